"""Between a bucket's configuration and what the server keeps of it.

Owns the mapping both ways and the facts of a bucket that requests depend on. Knows nothing of how they are fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django_natskv.kv.entries import BucketConfig, BucketHealth, Replica

STREAM_PREFIX = "KV_"
ATOMIC = "allow_atomic"
_MS = 1_000_000  # nanoseconds
_DUPLICATES = 120 * 1000 * _MS  # how long the server remembers the id of a write, when the bucket's TTL is not shorter


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """What the server says of a bucket: its configuration, raw, and its state."""

    bucket: str
    config: Mapping[str, Any]
    created: datetime
    bytes: int
    first_revision: int
    last_revision: int
    subjects: int  # distinct keys, those that only a marker remembers among them
    cluster: Mapping[str, Any] = field(default_factory=dict)
    asked: datetime | None = None  # the server's clock when it answered
    revisions: int = 0  # that are kept, of all keys
    written: datetime | None = None  # when the newest of them was

    @classmethod
    def parse(cls, info: Mapping[str, Any]) -> BucketInfo:
        """Return the facts of the server's answer."""
        state = info["state"]
        return cls(
            bucket=info["config"]["name"].removeprefix(STREAM_PREFIX),
            config=info["config"],
            created=datetime.fromisoformat(info["created"]),
            bytes=state["bytes"],
            first_revision=state["first_seq"],
            last_revision=state["last_seq"],
            subjects=state.get("num_subjects", 0),
            cluster=info.get("cluster") or {},
            asked=datetime.fromisoformat(info["ts"]) if info.get("ts") else None,
            revisions=state.get("messages", 0),
            # An empty bucket has a time of the year 1.
            written=datetime.fromisoformat(state["last_ts"]) if state.get("messages") else None,
        )

    @property
    def direct(self) -> bool:
        """Whether any copy may answer a read: only where there is one copy is that the newest value for sure (F18)."""
        return bool(self.config.get("allow_direct")) and self.config.get("num_replicas", 1) == 1

    @property
    def max_value_size(self) -> int:
        """The largest value with its headers, in bytes, or -1."""
        return int(self.config.get("max_msg_size", -1))

    @property
    def origin(self) -> str:
        """The bucket whose keys these are: another one where this is its mirror."""
        mirror = self.config.get("mirror")
        return str(mirror["name"]).removeprefix(STREAM_PREFIX) if mirror else self.bucket


def to_stream(config: BucketConfig, *, atomic: bool = False) -> dict[str, Any]:
    """Return what the server is asked for, for a new bucket; ``atomic``: that it takes several writes as one."""
    stream: dict[str, Any] = {
        "name": STREAM_PREFIX + config.bucket,
        "subjects": [f"$KV.{config.bucket}.>"],
        "retention": "limits",
        "max_msgs": -1,
        "max_consumers": -1,
        "max_msgs_per_subject": 1,
        "max_age": 0,
        "max_msg_size": -1,
        "max_bytes": -1,
        "storage": "file",
        "num_replicas": 1,
        "compression": "none",
        "discard": "new",
        "duplicate_window": _duplicate_window(config.ttl_ms),
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": False,
        "allow_msg_ttl": True,
    }
    stream.update(changes(config))
    if config.mirror is not None:
        # A mirror takes its keys from its origin, and writes go there.
        del stream["subjects"]
        stream["mirror_direct"] = True
    elif atomic:
        stream[ATOMIC] = True
    return stream


def updated(stream: Mapping[str, Any], config: BucketConfig) -> dict[str, Any]:
    """Return what the server is asked for, to change what ``config`` gives and leave the rest of ``stream``."""
    result = {**stream, **changes(config)}
    if config.ttl_ms is not None:
        result["duplicate_window"] = _duplicate_window(config.ttl_ms)
    return result


def _duplicate_window(ttl_ms: int | None) -> int:
    # The server refuses one that is longer than the bucket's TTL.
    return min((ttl_ms or 0) * _MS, _DUPLICATES) or _DUPLICATES


def changes(config: BucketConfig) -> dict[str, Any]:
    """Return the server's names and values of the options that ``config`` gives."""
    result: dict[str, Any] = {}
    for option, value in config.given().items():
        if option in _OPTIONS:
            name, convert = _OPTIONS[option]
            result[name] = convert(value, config.bucket)
    return result


def from_stream(info: BucketInfo) -> dict[str, Any]:
    """Return the options of a bucket as the server applied them, under the names of ``BucketStatus``."""
    stream = info.config
    return {
        "bucket": info.bucket,
        "description": stream.get("description") or None,
        "history": stream.get("max_msgs_per_subject", 1),
        "ttl_ms": stream.get("max_age", 0) // _MS,
        "max_value_size": _unlimited(stream.get("max_msg_size", -1)),
        "max_bucket_size": _unlimited(stream.get("max_bytes", -1)),
        "storage": stream.get("storage", "file"),
        "discard": stream.get("discard", "old"),
        "replicas": stream.get("num_replicas", 1),
        "compression": stream.get("compression", "none") != "none",
        "limit_marker_ttl_ms": stream.get("subject_delete_marker_ttl", 0) // _MS,
        "metadata": {name: value for name, value in (stream.get("metadata") or {}).items() if name[:6] != "_nats."},
        "placement": _placement(stream.get("placement")),
        "republish": _republish(stream.get("republish"), info.bucket),
        "mirror": _origin(stream["mirror"]) if stream.get("mirror") else None,
        "sources": tuple(_origin(source) for source in stream.get("sources") or ()),
    }


def health_of(info: BucketInfo) -> BucketHealth:
    """Return how a bucket is kept."""
    replicas = [
        Replica(
            name=peer.get("name", ""),
            current=bool(peer.get("current")),
            online=not peer.get("offline"),
            lag=peer.get("lag", 0),
            silent_ms=peer.get("active", 0) // _MS,
        )
        for peer in info.cluster.get("replicas") or ()
    ]
    return BucketHealth(
        bucket=info.bucket,
        created=info.created,
        keys=info.subjects,
        revisions=info.revisions,
        first_revision=info.first_revision,
        last_revision=info.last_revision,
        cluster=info.cluster.get("name"),
        # A server of its own calls itself the leader of nothing.
        leader=(info.cluster.get("leader") or None) if info.cluster.get("name") else None,
        replicas=tuple(sorted(replicas, key=lambda replica: replica.name)),
        written=info.written,
    )


def _unlimited(size: int) -> int:
    return size if size > 0 else -1


def _placement(placement: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if not placement:
        return None
    found = {"cluster": placement.get("cluster"), "tags": tuple(placement.get("tags") or ())}
    return {name: value for name, value in found.items() if value}


def _republish(republish: Mapping[str, Any] | None, bucket: str) -> Mapping[str, Any] | None:
    if not republish:
        return None
    return {
        "source": (republish.get("src") or ">").removeprefix(f"$KV.{bucket}."),
        "destination": republish["dest"],
        "headers_only": bool(republish.get("headers_only")),
    }


def _to_republish(republish: Mapping[str, Any], bucket: str) -> dict[str, Any] | None:
    # An empty one is no way to say "none": the server would publish everything again at its own subject.
    if not republish:
        return None
    return {
        "src": f"$KV.{bucket}.{republish.get('source', '>')}",
        "dest": republish["destination"],
        "headers_only": republish.get("headers_only", False),
    }


def _origin(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    found = {"bucket": str(origin["name"]).removeprefix(STREAM_PREFIX)}
    api = (origin.get("external") or {}).get("api", "")
    if api.startswith("$JS.") and api.endswith(".API"):
        found["domain"] = api[4:-4]
    return found


def _to_origin(origin: Mapping[str, Any], bucket: str, *, rename: bool) -> dict[str, Any]:
    source: dict[str, Any] = {"name": STREAM_PREFIX + origin["bucket"]}
    if origin.get("domain"):
        source["external"] = {"api": f"$JS.{origin['domain']}.API", "deliver": ""}
    if rename and origin["bucket"] != bucket:
        source["subject_transforms"] = [{"src": f"$KV.{origin['bucket']}.>", "dest": f"$KV.{bucket}.>"}]
    return source


_OPTIONS: dict[str, tuple[str, Any]] = {
    "description": ("description", lambda value, _: value),
    "history": ("max_msgs_per_subject", lambda value, _: value),
    "ttl_ms": ("max_age", lambda value, _: value * _MS),
    "max_value_size": ("max_msg_size", lambda value, _: value),
    "max_bucket_size": ("max_bytes", lambda value, _: value),
    "storage": ("storage", lambda value, _: value),
    "discard": ("discard", lambda value, _: value),
    "replicas": ("num_replicas", lambda value, _: value),
    "compression": ("compression", lambda value, _: "s2" if value else "none"),
    "limit_marker_ttl_ms": ("subject_delete_marker_ttl", lambda value, _: value * _MS),
    "metadata": ("metadata", lambda value, _: dict(value)),
    "placement": ("placement", lambda value, _: {**value, "tags": list(value.get("tags", ()))}),
    "republish": ("republish", _to_republish),
    "mirror": ("mirror", lambda value, bucket: _to_origin(value, bucket, rename=False)),
    "sources": ("sources", lambda value, bucket: [_to_origin(origin, bucket, rename=True) for origin in value]),
}
