"""Writes: each under an id of its own, settled when the connection was lost in the middle.

Owns what travels with a value and when a write may be sent again. Knows nothing of codecs and values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django_natskv.exceptions import OperationalError, OperationTimedOut, ValueTooLarge, WrongRevision
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.errors import api_error, too_large_for_bucket, too_large_for_server
from django_natskv.kv._nats.exchange import ConnectionLost, Exchange, Pause, in_doubt
from django_natskv.kv._nats.messages import MESSAGE_ID, status_of
from django_natskv.kv._nats.verbs import NO_RESPONDERS, Wire
from django_natskv.kv._nats.volley import Volley
from django_natskv.kv.runner import Operation

GUARD = "Nats-Expected-Last-Subject-Sequence"
# What nearly every answer is. Anything else, a word more or another order, is read as JSON.
_STORED = re.compile(rb'\{"stream":"[\w-]+", ?"seq":([0-9]{1,19})\}').fullmatch
_AT_ONCE = 256  # writes sent side by side
_BYTES_AT_ONCE = 2**21  # of their values
LEADERLESS_PAUSE = 0.1  # seconds between tries while a replicated bucket elects a leader (F20)


class Write(NamedTuple):  # one for each of many: three times as fast as a frozen dataclass
    """One revision to be written; ``expected`` guards it, ``doing`` says in a word what is tried in ``bucket``."""

    key: str
    data: bytes
    headers: dict[str, str]
    expected: int | None
    doing: str
    bucket: str
    creates: bool = False  # it wants no live value there: a marker it may write over
    repeats: bool = False  # it may be stored twice, and has no id

    @property
    def what(self) -> str:
        """What is tried, in words."""
        return f"{self.doing} {self.key!r} in bucket {self.bucket!r}"


class Writer:
    """Writes revisions, each under an id of its own, by which a write in doubt is recognized afterwards (F17)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def write(self, info: BucketInfo, write: Write) -> Operation[int]:
        """Store a revision and return its number.

        Raises ``WrongRevision``, ``BucketNotFound``, ``BucketFull``, ``ValueTooLarge`` (nothing was written) and
        ``OperationTimedOut`` (it may have been).
        """
        headers = _headers(write, (yield from self._name(info, write)))
        try:
            return (yield from self._send(info, write, headers))
        except ConnectionLost:
            return (yield from self._settle(info, write, headers))

    def write_many(self, info: BucketInfo, writes: Sequence[Write]) -> Operation[list[int | OperationalError]]:
        """Store revisions side by side; return the number of each, or the error that ``write`` would have raised.

        Bounded in number and bytes at a time, so that the server is never given more than it takes from a connection.
        Those that are sent at a time may be stored in any order. When none of them was answered in time the others are
        not sent: each would wait as long again.
        """
        results: list[int | OperationalError] = []
        silent = False
        for group in groups(writes):
            if silent:
                results += [_not_sent(write.what) for write in group]
                continue
            found = yield from self._write_group(info, group)
            silent = all(isinstance(result, OperationTimedOut) for result in found)
            results += found
        return results

    def _write_group(self, info: BucketInfo, group: Sequence[Write]) -> Operation[list[int | OperationalError]]:
        names = yield from self._names(info, group)
        results: list[Any] = list(names)
        sent = [(place, group[place], name) for place, name in enumerate(names) if isinstance(name, str)]
        if sent:
            replies = yield self._volley(info, [write for _, write, _ in sent], [name for _, _, name in sent])
            for (place, write, name), reply in zip(sent, replies, strict=True):
                stored = None if isinstance(reply, Exception) else _STORED(reply.data)
                if stored is None:
                    results[place] = yield from self._outcome(info, write, _headers(write, name), reply)
                else:
                    results[place] = int(stored[1])
        return results

    def _names(self, info: BucketInfo, group: Sequence[Write]) -> Operation[list[str | OperationalError]]:
        """Return the id of each write, or the error that it meets before it is sent."""
        if info.max_value_size < 0:
            new_id = self._wire.client.new_id
            return ["" if write.repeats else new_id() for write in group]
        names: list[str | OperationalError] = []
        for write in group:
            try:
                names.append((yield from self._name(info, write)))
            except OperationalError as error:
                names.append(error)
        return names

    def _outcome(
        self, info: BucketInfo, write: Write, headers: dict[str, str], reply: Any
    ) -> Operation[int | OperationalError]:
        try:
            if isinstance(reply, ConnectionLost):
                return (yield from self._settle(info, write, headers))
            if isinstance(reply, ValueTooLarge):
                return too_large_for_server(write.what, info.bucket, write.key, reply.size, reply.limit)
            if isinstance(reply, OperationalError):
                return reply
            if status_of(reply) == NO_RESPONDERS:
                return (yield from self._send(info, write, headers))
            return (yield from self._revision(info, write, headers, reply))
        except OperationalError as error:
            return error

    def _name(self, info: BucketInfo, write: Write) -> Operation[str]:
        """Return a new id for a write, "" where it does without; ``ValueTooLarge`` where the write has no room."""
        name, limit = "" if write.repeats else self._wire.client.new_id(), info.max_value_size
        if limit < 0 or size_of(_headers(write, name), write.data) <= limit:
            return name
        # Where the value fits and the id does not, the value goes first: a write in doubt then stays in doubt.
        size = size_of(_headers(write, ""), write.data)
        if size > limit:
            # The limit may have been raised since the bucket was opened.
            limit = yield from self._limit(info)
        if 0 <= limit < size:
            raise too_large_for_bucket(write.what, info.bucket, write.key, size, limit)
        return ""

    def _limit(self, info: BucketInfo) -> Operation[int]:
        return (yield from self._wire.info(info.origin)).max_value_size

    def _volley(self, info: BucketInfo, writes: Sequence[Write], names: Sequence[str]) -> Volley:
        subject = f"{self._wire.key_prefix}{info.origin}."
        what = f"writing {len(writes):,} keys in bucket {info.bucket!r}"
        return Volley(self._wire.client, subject, writes, _blocks(writes, names), what)

    def _exchange(self, info: BucketInfo, write: Write, headers: dict[str, str], *, patient: bool = False) -> Exchange:
        return Exchange(
            self._wire.client,
            f"{self._wire.key_prefix}{info.origin}.{write.key}",
            write.data,
            headers or None,
            what=write.what,
            writes=True,
            patient=patient,
        )

    def _send(
        self, info: BucketInfo, write: Write, headers: dict[str, str], *, patient: bool = False
    ) -> Operation[int]:
        while True:
            try:
                reply = yield self._exchange(info, write, headers, patient=patient)
            except ValueTooLarge as error:
                raise too_large_for_server(write.what, info.bucket, write.key, error.size, error.limit) from None
            if status_of(reply) != NO_RESPONDERS:
                break
            # Nobody took it: there is no bucket, or it has no leader for now. Nothing was written (F20).
            yield from self._wire.info(info.origin, write.what)
            yield Pause(self._wire.client, LEADERLESS_PAUSE, write.what)
        return (yield from self._revision(info, write, headers, reply))

    def _revision(self, info: BucketInfo, write: Write, headers: dict[str, str], reply: Any) -> Operation[int]:
        stored = _STORED(reply.data)
        if stored is not None:
            return int(stored[1])
        answer = json.loads(reply.data)
        if "error" in answer:
            refusal = api_error(answer["error"], write.what, info.bucket, write.key)
            if isinstance(refusal, ValueTooLarge):  # the limit was lowered since the bucket was opened
                limit = yield from self._limit(info)
                refusal = too_large_for_bucket(write.what, info.bucket, write.key, size_of(headers, write.data), limit)
            raise refusal
        return int(answer["seq"])

    def _settle(self, info: BucketInfo, write: Write, headers: dict[str, str]) -> Operation[int]:
        """Find out what became of a write whose answer was lost with the connection; send it again where it is safe."""
        if MESSAGE_ID not in headers and not write.repeats:
            raise in_doubt(write.what)
        try:
            return (yield from self._send_again(info, write, headers))
        except OperationalError:
            # Whatever refuses the second try says nothing about the first.
            raise in_doubt(write.what) from None

    def _send_again(self, info: BucketInfo, write: Write, headers: dict[str, str]) -> Operation[int]:
        try:
            # The server drops what it has seen under its id, and answers as it did the first time.
            return (yield from self._send(info, write, headers, patient=True))
        except WrongRevision:
            # It may be our own first try that moved the key on: an unreplicated bucket compares before it looks at ids.
            subject = f"$KV.{info.origin}.{write.key}"
            stored = yield from self._wire.last_of_leader(info.origin, subject, write.what)
            if stored is not None and stored.headers.get(MESSAGE_ID) == headers[MESSAGE_ID]:
                return stored.revision
            raise


def _headers(write: Write, name: str) -> dict[str, str]:
    """Return all headers of a write that has ``name`` as its id, or none."""
    headers = {**write.headers, MESSAGE_ID: name} if name else {**write.headers}
    if write.expected is not None:
        headers[GUARD] = str(write.expected)
    return headers


def _blocks(writes: Sequence[Write], names: Sequence[str]) -> list[bytes]:
    """Return the ``_headers`` of each write as they are sent. Most have the same but for the id, joined once."""
    blocks: list[bytes] = []
    joined: dict[int, str] = {}
    for write, name in zip(writes, names, strict=True):
        headers, expected = write.headers, write.expected
        lines = joined.get(id(headers))
        if lines is None:
            lines = joined[id(headers)] = "".join([f"{header}: {value}\r\n" for header, value in headers.items()])
        identity = f"{MESSAGE_ID}: {name}\r\n" if name else ""
        guard = "" if expected is None else f"{GUARD}: {expected}\r\n"
        blocks.append(f"NATS/1.0\r\n{lines}{identity}{guard}\r\n".encode() if lines or identity or guard else b"")
    return blocks


def _not_sent(what: str) -> OperationTimedOut:
    return OperationTimedOut(f"No answer came in time to what was to be written before {what}, which was not sent.")


def groups(writes: Sequence[Write]) -> Iterator[Sequence[Write]]:
    """Cut ``writes`` into what a server is given at a time."""
    start = size = 0
    for position, write in enumerate(writes):
        if position > start and (position - start == _AT_ONCE or size + len(write.data) > _BYTES_AT_ONCE):
            yield writes[start:position]
            start, size = position, 0
        size += len(write.data)
    if start < len(writes):
        yield writes[start:]


def size_of(headers: dict[str, str], data: bytes) -> int:
    """Return the bytes that a write counts for."""
    if not headers:
        return len(data)
    return len(data) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12
