"""A dozen byte-level verbs over a connection, each an operation that a runner drives.

Owns the server's API: subjects, requests, answers, and which requests may be sent again. Knows nothing of codecs,
markers' meaning or values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django_natskv.exceptions import (
    BucketNotFound,
    ConnectFailed,
    JetStreamApiError,
    JetStreamNotEnabled,
    NotConnected,
)
from django_natskv.kv._nats.client import Client
from django_natskv.kv._nats.config import STREAM_PREFIX, BucketInfo
from django_natskv.kv._nats.errors import (
    CONSUMER_NOT_FOUND,
    NO_MESSAGE,
    NO_STORE,
    api_error,
    not_enabled,
    not_jetstream,
)
from django_natskv.kv._nats.exchange import ConnectionLost, Exchange, Pause, Pull, Together, in_doubt
from django_natskv.kv._nats.inbox import Inbox
from django_natskv.kv._nats.messages import Stored, all_direct, from_direct, from_leader, status_of, stream_of
from django_natskv.kv.runner import Operation

MAX_MATCHES = 1024  # what one read of many keys may match (F18)
# Bytes of one answer, at the least one value. Without a bound the server sends up to all that it may hold back for a
# connection (max_pending), and then cuts the connection off for being slow.
MAX_ANSWER = 2**20
OLDEST_API_LEVEL = 1  # nats-server 2.11 (F14)
ATOMIC_API_LEVEL = 2  # nats-server 2.12 (F19)
NO_RESPONDERS = "503"
_API_TYPE = "io.nats.jetstream.api."  # with this begins what every answer of the API calls itself
_CREATE_TRIES = 4
_CREATE_PAUSE = 0.05  # seconds between them
_DROP_AGAIN = 0.5  # seconds after which the deletion of a consumer that is given up is asked for again


class Wire:
    """The verbs of one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        settings = client.settings
        if settings.domain:
            self._api = f"$JS.{settings.domain}.API"
        else:
            self._api = settings.api_prefix or "$JS.API"
        self._mirrored: set[str] = set()
        self.level = 0  # of the API, once it was verified
        # Beyond a domain or an account's border even keys travel under the API's prefix.
        self.key_prefix = "$KV." if self._api == "$JS.API" else f"{self._api}.$KV."

    # --- requests ---

    def read(self, subject: str, payload: bytes, what: str, *, many: bool = False) -> Operation[Any]:
        """Ask something that changes nothing; asked again, once, when the connection was lost meanwhile."""
        try:
            return (yield Exchange(self.client, subject, payload, what=what, many=many))
        except ConnectionLost:
            return (yield Exchange(self.client, subject, payload, what=what, many=many, patient=True))

    def ask(self, verb: str, body: dict[str, Any] | None, what: str, bucket: str = "") -> Operation[dict[str, Any]]:
        """Ask the API and return its answer; raises what its error means. For requests that change nothing."""
        payload = json.dumps(body).encode() if body else b""
        reply = yield from self.read(f"{self._api}.{verb}", payload, what)
        return answer_of(reply, what, bucket)

    def change(self, verb: str, body: dict[str, Any], what: str, bucket: str) -> Operation[dict[str, Any]]:
        """As ``ask``, for a change that is safe to repeat; when the second answer is lost too, the outcome is open."""
        subject, payload = f"{self._api}.{verb}", json.dumps(body).encode()
        try:
            reply = yield Exchange(self.client, subject, payload, what=what, writes=True)
        except ConnectionLost:
            try:
                reply = yield Exchange(self.client, subject, payload, what=what, writes=True, patient=True)
            except NotConnected:
                raise in_doubt(what) from None
        return answer_of(reply, what, bucket)

    def tell(self, verb: str, body: dict[str, Any] | None, what: str, bucket: str = "") -> Operation[dict[str, Any]]:
        """As ``ask``, for what must not be repeated: a lost answer leaves the outcome open."""
        payload = json.dumps(body).encode() if body else b""
        exchange = Exchange(self.client, f"{self._api}.{verb}", payload, what=what, writes=True)
        try:
            reply = yield exchange
        except ConnectionLost:
            raise in_doubt(what) from None
        return answer_of(reply, what, bucket)

    # --- the account ---

    def verify(self) -> Operation[None]:
        """Make sure that JetStream is there and new enough."""
        try:
            info = yield from self.ask("INFO", None, "asking for JetStream")
        except JetStreamNotEnabled as error:
            if self._api == "$JS.API":
                raise
            message = f"{error} It was looked for under {self._api}: check DOMAIN or API_PREFIX in the settings."
            raise JetStreamNotEnabled(message) from None
        level = int((info.get("api") or {}).get("level") or 0)
        if level < OLDEST_API_LEVEL:
            message = (
                "The JetStream of this account is older than nats-server 2.11, which ignores what a bucket is asked "
                "for without saying so. Upgrade it."
            )
            raise ConnectFailed(message)
        self.level = level

    def names(self) -> Operation[list[str]]:
        """Return the names of all buckets, over all pages."""
        names = yield from self._pages("STREAM.NAMES", "streams", "listing the buckets")
        # One that is made meanwhile can move another to the next page, where it comes again.
        return [name.removeprefix(STREAM_PREFIX) for name in dict.fromkeys(names) if name.startswith(STREAM_PREFIX)]

    def infos(self) -> Operation[list[BucketInfo]]:
        """Return what the server says of all buckets, over all pages."""
        listed = yield from self._pages("STREAM.LIST", "streams", "listing the buckets")
        found = {info["config"]["name"]: info for info in listed}
        return [BucketInfo.parse(info) for name, info in found.items() if name.startswith(STREAM_PREFIX)]

    def _pages(self, verb: str, part: str, what: str) -> Operation[list[Any]]:
        found: list[Any] = []
        while True:
            # Not asked by subject: a mirror has none of its own and would be missing.
            page = yield from self.ask(verb, {"offset": len(found)}, what)
            items = page.get(part) or []
            found.extend(items)
            if not items or len(found) >= page.get("total", 0):
                return found

    # --- buckets ---

    def info(self, bucket: str, what: str = "") -> Operation[BucketInfo]:
        """Return what the server says of a bucket; ``BucketNotFound``. ``what`` it is asked for, else to open it."""
        what = what or f"opening the bucket {bucket!r}"
        answer = yield from self.ask(f"STREAM.INFO.{STREAM_PREFIX}{bucket}", None, what, bucket)
        return BucketInfo.parse(answer)

    def create_bucket(self, bucket: str, stream: dict[str, Any]) -> Operation[BucketInfo]:
        """Create a bucket; ``BucketExists`` over another configuration."""
        # The same configuration twice is no error to the server, so this is safe to repeat.
        verb = f"STREAM.CREATE.{STREAM_PREFIX}{bucket}"
        what = f"creating the bucket {bucket!r}"
        for _ in range(_CREATE_TRIES - 1):
            try:
                return BucketInfo.parse((yield from self.change(verb, stream, what, bucket)))
            except JetStreamApiError as error:
                # Deleting the last bucket removes the directory of all, which the next one may just have found there.
                if error.code != NO_STORE:
                    raise
            yield Pause(self.client, _CREATE_PAUSE, what)
        return BucketInfo.parse((yield from self.change(verb, stream, what, bucket)))

    def update_bucket(self, bucket: str, stream: dict[str, Any]) -> Operation[BucketInfo]:
        """Give a bucket a new configuration, whole."""
        verb = f"STREAM.UPDATE.{STREAM_PREFIX}{bucket}"
        answer = yield from self.change(verb, stream, f"updating the bucket {bucket!r}", bucket)
        return BucketInfo.parse(answer)

    def delete_bucket(self, bucket: str) -> Operation[None]:
        """Delete a bucket and everything in it; ``BucketNotFound``."""
        verb = f"STREAM.DELETE.{STREAM_PREFIX}{bucket}"
        yield from self.tell(verb, None, f"deleting the bucket {bucket!r}", bucket)

    def purge(self, bucket: str, pattern: str, before: int | None, what: str) -> Operation[int]:
        """Remove every revision under ``pattern``, or those before a revision; return how many there were."""
        body = {"filter": pattern} if before is None else {"filter": pattern, "seq": before}
        answer = yield from self.change(f"STREAM.PURGE.{STREAM_PREFIX}{bucket}", body, what, bucket)
        return int(answer.get("purged", 0))

    def purge_up_to(self, bucket: str, filters: Sequence[tuple[str, int]]) -> Operation[None]:
        """Remove, for each subject, all revisions up to the given one."""
        verb = f"STREAM.PURGE.{STREAM_PREFIX}{bucket}"
        what = f"removing tombstones from bucket {bucket!r}"
        bodies = [{"filter": subject, "seq": revision + 1} for subject, revision in filters]
        steps = [
            Exchange(self.client, f"{self._api}.{verb}", json.dumps(body).encode(), what=what, writes=True)
            for body in bodies
        ]
        for body, reply in zip(bodies, (yield Together(steps)), strict=True):
            if isinstance(reply, ConnectionLost):
                yield from self.change(verb, body, what, bucket)
            elif isinstance(reply, Exception):
                raise reply
            else:
                answer_of(reply, what, bucket)

    # --- reads ---

    def is_direct(self, info: BucketInfo) -> bool:
        """Tell whether a direct read of the bucket gives what is newest."""
        return info.direct and info.bucket not in self._mirrored

    def note_mirror(self, info: BucketInfo) -> None:
        """Remember the bucket that this one mirrors: a mirror answers direct reads of its origin too, and is behind."""
        if info.origin != info.bucket:
            self._mirrored.add(info.origin)

    def _is_own(self, info: BucketInfo, reply: Any) -> bool:
        """Tell whether the bucket itself answered; when it was a mirror, its leader is asked from now on."""
        own = stream_of(reply) == STREAM_PREFIX + info.bucket
        if not own:
            self._mirrored.add(info.bucket)
        return own

    def last(self, info: BucketInfo, subject: str, what: str) -> Operation[Stored | None]:
        """Return the newest revision of a subject, marker or not."""
        if not self.is_direct(info):
            return (yield from self.last_of_leader(info.bucket, subject, what))
        reply = yield from self.read(f"{self._api}.DIRECT.GET.{STREAM_PREFIX}{info.bucket}.{subject}", b"", what)
        status = status_of(reply)
        if status is not None:
            return (yield from self._no_direct(info.bucket, {"last_by_subj": subject}, status, what))
        if not self._is_own(info, reply):
            return (yield from self.last_of_leader(info.bucket, subject, what))
        return from_direct(reply)

    def last_of_leader(self, bucket: str, subject: str, what: str) -> Operation[Stored | None]:
        """As ``last``, of the leader, which alone is never behind (F18)."""
        return self.by_leader(bucket, {"last_by_subj": subject}, what)

    def at(self, info: BucketInfo, revision: int, what: str) -> Operation[Stored | None]:
        """Return a revision by its number, whatever key it belongs to."""
        if not self.is_direct(info):
            return (yield from self.by_leader(info.bucket, {"seq": revision}, what))
        payload = json.dumps({"seq": revision}).encode()
        reply = yield from self.read(f"{self._api}.DIRECT.GET.{STREAM_PREFIX}{info.bucket}", payload, what)
        status = status_of(reply)
        if status is not None:
            return (yield from self._no_direct(info.bucket, {"seq": revision}, status, what))
        return from_direct(reply)  # a revision never changes, whoever gives it

    def _no_direct(self, bucket: str, query: dict[str, Any], status: str, what: str) -> Operation[Stored | None]:
        if status == "404":
            return None
        # 503: no copy answers directly. Is the bucket gone, or was it reconfigured? The leader knows.
        return (yield from self.by_leader(bucket, query, what))

    def by_leader(self, bucket: str, query: dict[str, Any], what: str) -> Operation[Stored | None]:
        """Return the revision that ``query`` finds, asked of the leader."""
        verb = f"{self._api}.STREAM.MSG.GET.{STREAM_PREFIX}{bucket}"
        reply = yield from self.read(verb, json.dumps(query).encode(), what)
        answer = json.loads(reply.data) if reply.data else None
        if answer and (answer.get("error") or {}).get("err_code") == NO_MESSAGE:
            return None
        return from_leader(answer_of(reply, what, bucket)["message"])

    def many(self, info: BucketInfo, query: dict[str, Any], what: str) -> Operation[tuple[list[Stored], int] | None]:
        """Return the revisions that a read of many finds, and how many a limit of the server's cut off.

        None when a mirror answered, which may be behind: the leader must be asked.
        """
        subject = f"{self._api}.DIRECT.GET.{STREAM_PREFIX}{info.bucket}"
        payload = json.dumps({**query, "max_bytes": MAX_ANSWER}).encode()
        replies = yield from self.read(subject, payload, what, many=True)
        *found, end = replies
        status = status_of(end)
        if status == "404":
            return [], 0
        if status != "204":
            if status == NO_RESPONDERS:
                yield from self.info(info.bucket, what)
            description = end.headers.get("Description", "no description")
            message = f"The server refused {what}: {description} (code {status})."
            raise JetStreamApiError(message, code=int(status or 0), description=description)
        if found and not self._is_own(info, found[0]):
            return None
        # nats-server 2.11 says one too few at the end of an answer that a limit cut off; the last value knows better.
        left = max(int((reply.headers or {}).get("Nats-Num-Pending", 0)) for reply in replies[-2:])
        return all_direct(found), left

    def each_of_leader(self, bucket: str, queries: Sequence[dict[str, Any]], what: str) -> Operation[list[Any]]:
        """Return what each query finds, all asked of the leader at once."""
        verb = f"{self._api}.STREAM.MSG.GET.{STREAM_PREFIX}{bucket}"
        steps = [Exchange(self.client, verb, json.dumps(query).encode(), what=what) for query in queries]
        found: list[Stored | None] = []
        for query, reply in zip(queries, (yield Together(steps)), strict=True):
            if isinstance(reply, ConnectionLost):
                found.append((yield from self.by_leader(bucket, query, what)))
            elif isinstance(reply, Exception):
                raise reply
            elif reply.data and (json.loads(reply.data).get("error") or {}).get("err_code") == NO_MESSAGE:
                found.append(None)
            else:
                found.append(from_leader(answer_of(reply, what, bucket)["message"]))
        return found

    def subjects_under(self, info: BucketInfo, filters: Sequence[str], what: str) -> Operation[set[str]]:
        """Return the subjects of all keys, those of markers included, that there are now under ``filters``."""
        found: set[str] = set()
        for subject in filters:
            offset = 0
            while True:
                body = {"subjects_filter": subject, "offset": offset}
                answer = yield from self.ask(f"STREAM.INFO.{STREAM_PREFIX}{info.bucket}", body, what, info.bucket)
                page = answer["state"].get("subjects") or {}
                found.update(page)
                offset += len(page)
                if not page or offset >= answer.get("total", 0):
                    break
        return found

    # --- consumers ---

    def create_consumer(self, bucket: str, config: dict[str, Any], what: str) -> Operation[dict[str, Any]]:
        """Create a named consumer; the server lets it go after its ``inactive_threshold``."""
        stream = STREAM_PREFIX + bucket
        body = {"stream_name": stream, "config": config, "action": ""}
        return (yield from self.ask(f"CONSUMER.CREATE.{stream}.{config['name']}", body, what, bucket))

    def pull(self, bucket: str, name: str, inbox: Inbox, options: dict[str, Any], what: str) -> Pull:
        """Return the step that asks a consumer for its next deliveries."""
        payload = json.dumps(options).encode()
        return Pull(
            self.client, self.pull_subject(bucket, name), payload, batch=options["batch"], inbox=inbox, what=what
        )

    def pull_subject(self, bucket: str, name: str) -> str:
        """Return where to ask a consumer for deliveries."""
        return f"{self._api}.CONSUMER.MSG.NEXT.{STREAM_PREFIX}{bucket}.{name}"

    def drop_consumer(self, bucket: str, name: str) -> None:
        """Ask for a consumer's deletion without waiting for it, and without connecting for it: it ends by itself too.

        Where there is no connection any more this is the end of the process, or a forked child, whose parent reads on.
        """
        if not self.client.driver.is_begun:
            return
        subject = f"{self._api}.CONSUMER.DELETE.{STREAM_PREFIX}{bucket}.{name}"

        def ask() -> None:
            self.client.submit(Exchange(self.client, subject))

        ask()
        # The server may still be at its creation, and carries out the one after the other in no certain order.
        self.client.later(_DROP_AGAIN, ask)

    def delete_consumer(self, bucket: str, name: str, what: str) -> Operation[None]:
        """Delete a consumer; that it is gone already is fine."""
        try:
            yield from self.ask(f"CONSUMER.DELETE.{STREAM_PREFIX}{bucket}.{name}", None, what, bucket)
        except JetStreamApiError as error:
            if error.code != CONSUMER_NOT_FOUND:
                raise
        except BucketNotFound:
            return


def answer_of(reply: Any, what: str, bucket: str) -> dict[str, Any]:
    if status_of(reply) == NO_RESPONDERS:
        raise not_enabled()
    try:
        answer = json.loads(reply.data)
    except ValueError:
        answer = None
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        raise api_error(error, what, bucket)
    # An account may import anything at all under a prefix: whoever listens there answers too.
    if not isinstance(answer, dict) or not str(answer.get("type")).startswith(_API_TYPE):
        raise not_jetstream(what)
    return answer
