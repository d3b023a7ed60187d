"""Several writes as one: the server carries out all of them, or none.

Owns what such a batch is made of, what its answers mean, and how one is settled whose answer was lost. Knows nothing of
codecs and values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django_natskv.exceptions import (
    JetStreamApiError,
    OperationalError,
    OperationTimedOut,
    ValueTooLarge,
    WrongRevision,
)
from django_natskv.kv._nats.config import ATOMIC, BucketInfo
from django_natskv.kv._nats.errors import api_error, too_large_for_bucket, too_large_for_server, wrong_revision
from django_natskv.kv._nats.exchange import ConnectionLost, Exchange, Pause, Together, in_doubt
from django_natskv.kv._nats.messages import Stored, status_of
from django_natskv.kv._nats.verbs import ATOMIC_API_LEVEL, NO_RESPONDERS, Wire
from django_natskv.kv._nats.writes import GUARD, LEADERLESS_PAUSE, Write, groups, size_of
from django_natskv.kv.changes import ABSENT
from django_natskv.kv.runner import Operation

MOST = 1_000  # writes that a server takes as one (F19)
BATCH_ID = "Nats-Batch-Id"  # kept with each write, so that one can be recognized afterwards
_BATCH_SEQUENCE = "Nats-Batch-Sequence"
_BATCH_COMMIT = "Nats-Batch-Commit"
_DISABLED = 10174
_INCOMPLETE = 10176
_TRIES = 5
_READ_AT_ONCE = 256


class _UnfinishedError(OperationalError):
    """The server let go of a batch before it was whole: nothing was written, and it may be sent again."""


class Batches:
    """Writes revisions of one bucket, all or nothing."""

    def __init__(self, wire: Wire, info: BucketInfo) -> None:
        self._wire = wire
        self._allowed = bool(info.config.get(ATOMIC))

    def write(self, info: BucketInfo, writes: Sequence[Write], what: str) -> Operation[list[int]]:
        """Store all revisions, or none, and return their numbers.

        Raises ``WrongRevision`` for the key whose guard failed, ``JetStreamApiError`` where the server cannot do it,
        and what a single write raises. After ``OperationTimedOut`` they may have been written, all of them.
        """
        last: OperationalError | None = None
        for _ in range(_TRIES):
            try:
                if not self._allowed:
                    yield from self._allow(info, what)
                return (yield from self._write(info, writes, what))
            except WrongRevision as error:
                writes = yield from self._over_markers(info, writes, what)
                last = error
            except _UnfinishedError as error:
                yield Pause(self._wire.client, LEADERLESS_PAUSE, what)
                last = OperationTimedOut(str(error))
            except JetStreamApiError as error:
                if error.code != _DISABLED or not self._allowed:
                    raise
                self._allowed = False  # the bucket was made anew by another program
                last = error
        assert last is not None  # noqa: S101 - each try ended in one of the above
        raise last

    def _allow(self, info: BucketInfo, what: str) -> Operation[None]:
        """Make sure that the bucket takes batches: without that an older server would store their parts one by one."""
        now = yield from self._wire.info(info.origin, what)
        if not now.config.get(ATOMIC):
            yield from self._wire.verify()
            if self._wire.level >= ATOMIC_API_LEVEL:
                now = yield from self._wire.update_bucket(info.origin, {**now.config, ATOMIC: True})
            if not now.config.get(ATOMIC):
                description = "several writes as one need nats-server 2.12"
                message = f"This server cannot do {what}: {description}. Nothing was sent. Upgrade it."
                raise JetStreamApiError(message, code=_DISABLED, description=description)
        self._allowed = True

    def _write(self, info: BucketInfo, writes: Sequence[Write], what: str) -> Operation[list[int]]:
        batch = self._wire.client.new_id()
        try:
            return (yield from self._send(info, writes, batch, what))
        except ConnectionLost:
            return (yield from self._settle(info, writes, batch, what))

    def _settle(self, info: BucketInfo, writes: Sequence[Write], batch: str, what: str) -> Operation[list[int]]:
        """Find out what became of a batch whose answer was lost with the connection."""
        try:
            if any(write.expected is not None for write in writes):
                try:
                    # Where a key is guarded only one of two batches can be carried out: this one now, or that one.
                    return (yield from self._send(info, writes, self._wire.client.new_id(), what, patient=True))
                except WrongRevision:
                    pass  # perhaps it was the first one that moved the key on
            heads = yield from self._heads(info, writes, what)
        except OperationalError:
            raise in_doubt(what) from None
        for position, stored in enumerate(heads):
            if stored is not None and stored.headers.get(BATCH_ID) == batch:
                return _revisions(stored.revision - position + len(writes) - 1, len(writes))
        # Somebody may have written over all of it since, or it may still be on its way.
        raise in_doubt(what)

    def _over_markers(self, info: BucketInfo, writes: Sequence[Write], what: str) -> Operation[list[Write]]:
        """Return the writes as they may go through; ``WrongRevision`` for the first one that may not."""
        heads = yield from self._heads(info, writes, what)
        result = []
        for write, stored in zip(writes, heads, strict=True):
            there = ABSENT if stored is None else stored.revision
            if write.expected in (None, there):
                result.append(write)
            elif write.creates and stored is not None and not stored.is_live:
                # A marker counts as a revision: what stands there must be named to be written over (F17).
                result.append(write._replace(expected=there))
            else:
                raise wrong_revision(write.what, info.bucket, write.key)
        return result

    def _heads(self, info: BucketInfo, writes: Sequence[Write], what: str) -> Operation[list[Stored | None]]:
        found: list[Stored | None] = []
        for start in range(0, len(writes), _READ_AT_ONCE):
            queries = [
                {"last_by_subj": f"$KV.{info.origin}.{write.key}"} for write in writes[start : start + _READ_AT_ONCE]
            ]
            found += yield from self._wire.each_of_leader(info.origin, queries, what)
        return found

    # --- one batch ---

    def _send(
        self, info: BucketInfo, writes: Sequence[Write], batch: str, what: str, *, patient: bool = False
    ) -> Operation[list[int]]:
        all_headers = yield from self._headers(info, writes, batch)
        sent = 0
        answer: dict[str, Any] = {}
        for group in groups(writes):
            steps = [
                Exchange(
                    self._wire.client,
                    f"{self._wire.key_prefix}{info.origin}.{write.key}",
                    write.data,
                    all_headers[sent + offset],
                    what=what,
                    writes=sent + offset + 1 == len(writes),  # only with the last one is anything written
                    patient=patient,
                )
                for offset, write in enumerate(group)
            ]
            sent += len(group)
            replies = yield Together(steps)
            answer = yield from self._answer(info, group, replies, what, commits=sent == len(writes))
        return _revisions(int(answer["seq"]), len(writes))

    def _headers(self, info: BucketInfo, writes: Sequence[Write], batch: str) -> Operation[list[dict[str, str]]]:
        limit = info.max_value_size
        result = []
        for number, write in enumerate(writes, 1):
            headers = {**write.headers, BATCH_ID: batch, _BATCH_SEQUENCE: str(number)}
            if write.expected is not None:
                headers[GUARD] = str(write.expected)
            if number == len(writes):
                headers[_BATCH_COMMIT] = "1"
            size = size_of(headers, write.data)
            if 0 <= limit < size:
                limit = (yield from self._wire.info(info.origin)).max_value_size  # it may have been raised
            if 0 <= limit < size:
                raise too_large_for_bucket(write.what, info.bucket, write.key, size, limit)
            result.append(headers)
        return result

    def _answer(
        self, info: BucketInfo, group: Sequence[Write], replies: Sequence[Any], what: str, *, commits: bool
    ) -> Operation[dict[str, Any]]:
        """Return the server's answer to the last write of a group; raise what went wrong with any of them."""
        if commits and isinstance(replies[-1], ConnectionLost | OperationTimedOut):
            raise replies[-1]
        unfinished: OperationalError | None = None
        answer: dict[str, Any] = {}
        for write, reply in zip(group, replies, strict=True):
            _raise_failed(info, write, reply)
            answer = json.loads(reply.data) if reply.data else {}
            if status_of(reply) == NO_RESPONDERS:
                # Nobody took it: there is no bucket, or it has no leader for now (F20).
                yield from self._wire.info(info.origin, what)
                unfinished = _UnfinishedError(f"No server took {what} in time. It was not done.")
            elif (answer.get("error") or {}).get("err_code") == _INCOMPLETE:
                # Another write was refused, or a leader that came in the middle knows only the rest.
                unfinished = _UnfinishedError(f"The server lost a part of {what}. It was not done.")
            elif "error" in answer:
                raise api_error(answer["error"], write.what, info.bucket, write.key)
        if unfinished is not None:
            raise unfinished
        return answer


def _raise_failed(info: BucketInfo, write: Write, reply: Any) -> None:
    if isinstance(reply, ConnectionLost):
        raise _UnfinishedError(str(reply))
    if isinstance(reply, ValueTooLarge):
        raise too_large_for_server(write.what, info.bucket, write.key, reply.size, reply.limit)
    if isinstance(reply, OperationalError):
        raise reply


def _revisions(last: int, count: int) -> list[int]:
    # A batch is stored in one go, under numbers without a gap.
    return list(range(last - count + 1, last + 1))
