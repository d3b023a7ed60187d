"""How a bucket's status looks.

Owns the titles and units of its fields. Must not know where the status comes from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from django_natskv.kv import BucketHealth, BucketStatus
from django_natskv.management.terminal.entries import show_time
from django_natskv.management.terminal.output import Column, Listing, Record, counted, exact
from django_natskv.management.terminal.units import show_duration, show_size, show_size_exactly

_NOTHING = "-"


def record(status: BucketStatus) -> Record:
    """Return every field of one bucket."""
    return Record(_FIELDS, asdict(status))


def record_with_health(status: BucketStatus, health: BucketHealth, readers: Mapping[str, str]) -> Record:
    """Return every field of one bucket, how it is kept, and who reads it from a local cache, with its mode."""
    written = None if health.written is None else health.written.isoformat()
    told = {**asdict(health), "created": health.created.isoformat(), "written": written}
    kept = {name: told[name] for name in ("created", "written", "keys", "revisions", "cluster", "leader", "replicas")}
    caches = [{"source": source, "mode": mode} for source, mode in readers.items()]
    return Record((*_FIELDS, _HEALTH, _READERS), {**asdict(status), "health": kept, "local_caches": caches})


def listing(statuses: Sequence[BucketStatus]) -> Listing:
    """Return a line for each bucket."""
    return Listing(_COLUMNS, [asdict(status) for status in statuses])


def show_option(option: str, value: Any) -> str:
    """Return what is shown of one option of a configuration."""
    return _SHOW.get(option, exact)(value)


def _text(value: str | None) -> str:
    return value or _NOTHING


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _metadata(value: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(value.items())) or _NOTHING


def _placement(value: Mapping[str, Any] | None) -> str:
    if not value:
        return _NOTHING
    cluster = [f"cluster {value['cluster']}"] if value.get("cluster") else []
    return ", ".join(cluster + [f"tag {tag}" for tag in value.get("tags", ())])


def _republish(value: Mapping[str, Any] | None) -> str:
    if not value:
        return _NOTHING
    return f"{value['source']} to {value['destination']}" + (", headers only" if value["headers_only"] else "")


def _origin(value: Mapping[str, Any] | None) -> str:
    if not value:
        return _NOTHING
    return f"{value['bucket']}@{value['domain']}" if "domain" in value else str(value["bucket"])


def _origins(value: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(map(_origin, value)) or _NOTHING


def _health(value: Mapping[str, Any]) -> str:
    revisions, keys = counted(value["revisions"], "revision"), counted(value["keys"], "key")
    written = f", last written {show_time(value['written'])}" if value["written"] else ""
    kept = f"made {show_time(value['created'])}{written}; {revisions} of {keys}, markers included"
    if not value["leader"]:
        return kept
    leader = f"leader {value['leader']} of cluster {value['cluster'] or _NOTHING}"
    return "; ".join([kept, leader, *map(_replica, value["replicas"])])


def _replica(value: Mapping[str, Any]) -> str:
    if not value["online"]:
        return f"replica {value['name']} is offline, {value['lag']} behind"
    if not value["current"]:
        return f"replica {value['name']} is {value['lag']} behind, heard {show_duration(value['silent_ms'])} ago"
    return f"replica {value['name']} is current"


def _readers(value: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(f"{reader['source']} ({reader['mode']})" for reader in value) or _NOTHING


_HEALTH = Column("health", "Health", _health)
_READERS = Column("local_caches", "Local caches", _readers)
_FIELDS = (
    Column("bucket", "Bucket"),
    Column("description", "Description", _text),
    Column("values", "Values"),
    Column("bytes", "Size", show_size_exactly),
    Column("history", "History"),
    Column("ttl_ms", "TTL", show_duration),
    Column("limit_marker_ttl_ms", "Limit marker TTL", show_duration),
    Column("max_value_size", "Max value size", show_size_exactly),
    Column("max_bucket_size", "Max bucket size", show_size_exactly),
    Column("storage", "Storage"),
    Column("discard", "Discard"),
    Column("replicas", "Replicas"),
    Column("compression", "Compression", _yes),
    Column("metadata", "Metadata", _metadata),
    Column("placement", "Placement", _placement),
    Column("republish", "Republish", _republish),
    Column("mirror", "Mirror of", _origin),
    Column("sources", "Sources", _origins),
)
_SHOW = {column.name: column.show for column in _FIELDS}
_COLUMNS = (
    Column("bucket", "Bucket"),
    Column("values", "Values", right=True),
    Column("bytes", "Size", show_size, right=True),
    Column("max_bucket_size", "Limit", show_size, right=True),
    Column("history", "History", right=True),
    Column("ttl_ms", "TTL", show_duration, right=True),
    Column("storage", "Storage"),
    Column("replicas", "Replicas", right=True),
    Column("description", "Description", _text),
)
