"""Writes: each under an id of its own, settled when the connection was lost in the middle.

Owns what travels with a value and when a write may be sent again. Knows nothing of codecs and values.
"""

from __future__ import annotations

import json

from django_natskv.exceptions import OperationalError, ValueTooLarge, WrongRevision
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.errors import api_error, too_large_for_bucket, too_large_for_server
from django_natskv.kv._nats.exchange import ConnectionLost, Exchange, Pause, in_doubt
from django_natskv.kv._nats.messages import MESSAGE_ID, status_of
from django_natskv.kv._nats.verbs import NO_RESPONDERS, Wire
from django_natskv.kv.runner import Operation

_MOST_HEADERS = 256  # bytes that our headers of a write never exceed
_LEADERLESS_PAUSE = 0.1  # seconds between tries while a replicated bucket elects a leader (F20)


class Writer:
    """Writes revisions, each under an id of its own, by which a write in doubt is recognized afterwards (F17)."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def write(
        self,
        info: BucketInfo,
        key: str,
        data: bytes,
        headers: dict[str, str],
        *,
        what: str,
        expected: int | None = None,
    ) -> Operation[int]:
        """Store a revision of ``key`` and return its number; ``expected`` guards it.

        Raises ``WrongRevision``, ``BucketNotFound``, ``BucketFull``, ``ValueTooLarge`` (nothing was written) and
        ``OperationTimedOut`` (it may have been).
        """
        headers = {**headers, MESSAGE_ID: self._wire.client.new_id()}
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        yield from self._check_size(info, key, data, headers, what)
        try:
            return (yield from self._send(info, key, data, headers, what))
        except ConnectionLost:
            return (yield from self._settle(info, key, data, headers, what))

    def _check_size(
        self, info: BucketInfo, key: str, data: bytes, headers: dict[str, str], what: str
    ) -> Operation[None]:
        limit = info.max_value_size
        if limit < 0 or len(data) + _MOST_HEADERS <= limit:
            return
        if _size(headers, data) > limit:
            # Where the value fits and the id does not, the value goes first: a write in doubt then stays in doubt.
            del headers[MESSAGE_ID]
        size = _size(headers, data)
        if size > limit:
            # The limit may have been raised since the bucket was opened.
            limit = yield from self._limit(info)
        if 0 <= limit < size:
            raise too_large_for_bucket(what, info.bucket, key, size, limit)

    def _limit(self, info: BucketInfo) -> Operation[int]:
        return (yield from self._wire.info(info.origin)).max_value_size

    def _send(
        self, info: BucketInfo, key: str, data: bytes, headers: dict[str, str], what: str, *, patient: bool = False
    ) -> Operation[int]:
        subject = f"{self._wire.key_prefix}{info.origin}.{key}"
        while True:
            exchange = Exchange(
                self._wire.client, subject, data, headers or None, what=what, writes=True, patient=patient
            )
            try:
                reply = yield exchange
            except ValueTooLarge as error:
                raise too_large_for_server(what, info.bucket, key, error.size, error.limit) from None
            if status_of(reply) != NO_RESPONDERS:
                break
            # Nobody took it: there is no bucket, or it has no leader for now. Nothing was written (F20).
            yield from self._wire.info(info.origin, what)
            yield Pause(self._wire.client, _LEADERLESS_PAUSE, what)
        answer = json.loads(reply.data)
        if "error" in answer:
            refusal = api_error(answer["error"], what, info.bucket, key)
            if isinstance(refusal, ValueTooLarge):  # the limit was lowered since the bucket was opened
                limit = yield from self._limit(info)
                refusal = too_large_for_bucket(what, info.bucket, key, _size(headers, data), limit)
            raise refusal
        return int(answer["seq"])

    def _settle(self, info: BucketInfo, key: str, data: bytes, headers: dict[str, str], what: str) -> Operation[int]:
        """Find out what became of a write whose answer was lost with the connection; send it again where it is safe."""
        if MESSAGE_ID not in headers:
            raise in_doubt(what)
        try:
            return (yield from self._send_again(info, key, data, headers, what))
        except OperationalError:
            # Whatever refuses the second try says nothing about the first.
            raise in_doubt(what) from None

    def _send_again(
        self, info: BucketInfo, key: str, data: bytes, headers: dict[str, str], what: str
    ) -> Operation[int]:
        try:
            # The server drops what it has seen under this id, and answers as it did the first time.
            return (yield from self._send(info, key, data, headers, what, patient=True))
        except WrongRevision:
            # It may be our own first try that moved the key on: an unreplicated bucket compares before it looks at ids.
            stored = yield from self._wire.last_of_leader(info.origin, f"$KV.{info.origin}.{key}", what)
            if stored is not None and stored.headers.get(MESSAGE_ID) == headers[MESSAGE_ID]:
                return stored.revision
            raise


def _size(headers: dict[str, str], data: bytes) -> int:
    if not headers:
        return len(data)
    return len(data) + sum(len(name) + len(value) + 4 for name, value in headers.items()) + 12
