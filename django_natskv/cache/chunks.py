"""Chunks: values that are larger than one message may be, in parts.

Owns where the parts are, and that they go when nothing refers to them any more. Knows nothing of what they hold.

The entry at the value's key is its head: it has no bytes, and a header ``Natskv-Chunks`` with the identity of this
writing, the number of chunks and the size of the whole. The chunks are there before the head is, so whoever reads a
head finds the value whole, or, when the head was overwritten meanwhile, not at all, and then looks again.

Whoever writes or removes a head erases the chunks that nothing refers to any more. Where that could not be done (the
writer was killed, nobody knows whether the head was written), a sweep finds them later, by what the heads say.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django_natskv.cache import keys
from django_natskv.cache.place import AWAY, Place, is_away
from django_natskv.cache.steps import Operation
from django_natskv.exceptions import OperationalError, ValueTooLarge
from django_natskv.kv import Change, Entry

logger = logging.getLogger("django_natskv.cache")

CHUNKS = "Natskv-Chunks"
SIZE = 512 * 1024  # bytes of a chunk, and of the largest value that is written in one
SMALLEST = 1024
_HEAD = re.compile(r"([A-Za-z0-9]{1,64})\.([1-9][0-9]{0,14})\.([0-9]{1,15})").fullmatch
_ROOM = 4096  # bytes of a message that are left for headers
_AT_ONCE = 2 * 2**20  # bytes of chunks in one call, each of which has a deadline of its own
_MARGIN_MS = 60_000  # that chunks outlive their head
_REMEMBERED = 10_000  # heads
LOOK = 60.0  # seconds for which it is remembered which keys have chunks, where it is asked for
_FEW = 1_000  # names of chunks that are worth to be looked at for that
SWEEP = 300.0  # seconds between two looks for chunks without a head, in a process that writes
# Seconds since its last chunk after which a head is not expected any more. A writer that was suspended for longer wrote
# for nothing: its value is a miss.
GRACE = 60.0


@dataclass(frozen=True, slots=True)
class Head:
    """What a head says of its chunks."""

    identity: str
    count: int
    size: int

    def __str__(self) -> str:
        return f"{self.identity}.{self.count}.{self.size}"

    @classmethod
    def of(cls, entry: Entry) -> Head | None:
        """Return what ``entry`` says, None if its value is in one piece."""
        said = entry.headers.get(CHUNKS) if entry.headers else None
        if said is None:
            return None
        found = _HEAD(said)
        if found is None:
            return cls("none", 0, -1)  # not ours: never whole
        return cls(found[1], int(found[2]), int(found[3]))


class Chunks:
    """The chunks of the values under one KEY_PREFIX."""

    def __init__(self, place: Place, prefix: str) -> None:
        self._place = place
        self._prefix = prefix
        self._size = SIZE
        # Of the keys that this process knows as chunked: the revision at which they were, and the head.
        self._heads: dict[str, tuple[int, Head]] = {}
        self._chunked: frozenset[str] | None = frozenset()  # keys that had chunks at the last look; None: any may have
        self._look_at = 0.0
        self._swept = False  # by this process
        self._sweep_at = time.monotonic() + SWEEP
        self.grace = GRACE

    def wants(self, data: bytes) -> bool:
        """Tell whether ``data`` has to be written in chunks."""
        return len(data) > self._size

    def shrink(self, error: ValueTooLarge) -> bool:
        """Take that less than a chunk was too large; tell whether smaller ones may do."""
        size = (error.limit or 0) - _ROOM
        if not SMALLEST <= size < self._size:
            return False
        self._size = size
        return True

    def write(self, stored: str, data: bytes, ttl_ms: int | None) -> Operation[Head]:
        """Write the chunks of ``data`` and return what its head has to say.

        Raises ``ValueTooLarge`` for what has no room in the bucket: it would drop everything else, and then its own
        first chunks.
        """
        room = self._place.room
        if room is not None and len(data) > room:
            bucket = self._place.name
            message = (
                f"The value of {stored!r} needs {len(data):,} bytes, and bucket {bucket!r} holds {room:,}. Nothing was "
                "written. Raise max_bucket_size or store less."
            )
            raise ValueTooLarge(message, bucket=bucket, key=stored, size=len(data), limit=room)
        if not self._swept:
            yield from self._sweep_now()
        while True:
            size = self._size
            head = Head(secrets.token_hex(10), -(-len(data) // size), len(data))
            try:
                yield from self._write(stored, data, head, size, ttl_ms)
            except ValueTooLarge as error:
                yield from self.erase(head)
                if not self.shrink(error):
                    raise
            except BaseException as error:
                yield from self.give_up(head, error)
                raise
            else:
                return head

    def _write(self, stored: str, data: bytes, head: Head, size: int, ttl_ms: int | None) -> Operation[None]:
        lives = None if ttl_ms is None else ttl_ms + _MARGIN_MS
        each = max(1, _AT_ONCE // size)
        for start in range(0, head.count, each):
            changes = [
                Change.put(
                    keys.chunk(stored, head.identity, number), data[number * size : (number + 1) * size], ttl_ms=lives
                )
                for number in range(start, min(start + each, head.count))
            ]
            results = yield from self._place.ask_many(changes)
            for result in results:
                if isinstance(result, OperationalError):
                    raise result

    def read(self, stored: str, revision: int, head: Head) -> Operation[bytes | None]:
        """Return the whole value of the head that has ``revision``, None if some of it is gone."""
        parts: list[bytes] = []
        each = max(1, _AT_ONCE // self._size)
        for start in range(0, head.count, each):
            numbers = range(start, min(start + each, head.count))
            wanted = [keys.chunk(stored, head.identity, number) for number in numbers]
            entries = yield from self._place.ask("get_many", wanted)
            if len(entries) < len(wanted):
                return None
            parts.extend(entries[name].value for name in wanted)
        known = self._heads.get(stored)
        self._remember(stored, revision, head)
        # Others have written in one piece over what this process knew, and were not to know of its chunks.
        if known is not None and known[0] < revision and known[1] != head:
            yield from self.erase(known[1])
        data = b"".join(parts)
        return data if len(data) == head.size else None

    def are_there(self, head: Head) -> Operation[bool]:
        """Tell whether all chunks of a head are there, without reading them."""
        names: list[str] = yield from self._place.ask("keys", keys.all_chunks(self._prefix, head.identity))
        return head.count == len(names) and head.size >= 0

    def among(self, stored: Iterable[str]) -> Operation[set[str]]:
        """Return those of ``stored`` that may have had chunks at the last look, some seconds ago.

        What this process has written since it knows by itself; a sweep finds the chunks of what others have.
        """
        if time.monotonic() >= self._look_at:
            yield from self._look()
        chunked = self._chunked
        return {name for name in stored if chunked is None or name in chunked}

    def _look(self) -> Operation[None]:
        chunked: frozenset[str] | None = None
        try:
            names: list[str] = yield from self._place.ask("keys", keys.all_chunks(self._prefix))
            if len(names) <= _FEW:
                chunked = frozenset(found[0] for found in map(keys.chunk_of, names) if found)
        except AWAY:
            raise
        except OperationalError as error:  # a user who may not list keys may remove values all the same
            logger.debug("Chunks in bucket %s could not be listed: %s", self._place.name, error)
        self._look_at = time.monotonic() + (SWEEP if chunked is None else LOOK)
        self._chunked = chunked

    def erase(self, head: Head) -> Operation[None]:
        """Remove the chunks of a head that is no more, or never was; leave them to a sweep where that fails.

        What was to be written was written, or was not, before: that it did not work here is no news of the value's.
        """
        try:
            yield from self._place.ask("erase", keys.all_chunks(self._prefix, head.identity))
        except OperationalError as error:
            logger.debug("Chunks in bucket %s were left to be swept: %s", self._place.name, error)
            self._sweep_soon()

    def give_up(self, head: Head, error: BaseException) -> Operation[None]:
        """Take that ``head`` was not written because of ``error``, or that nobody knows whether it was.

        Then its chunks have to stay: a head without chunks would be a value that is lost, and nobody was told.
        """
        if isinstance(error, OperationalError) and not is_away(error):
            yield from self.erase(head)
        else:
            self._sweep_soon()

    def sweep(self) -> Operation[int]:
        """Remove chunks that no head refers to, because whoever wrote or removed the head could not; return how many.

        Those written lately are left, as their heads may be on their way.
        """
        names: list[str] = yield from self._place.ask("keys", keys.all_chunks(self._prefix))
        last: dict[str, tuple[int, str]] = {}  # by identity
        for name in names:
            chunk = keys.chunk_of(name)
            if chunk is not None:
                stored, identity, number = chunk
                last[identity] = max(last.get(identity, (0, stored)), (number, stored))
        heads = yield from self._place.ask("get_many", list(dict.fromkeys(stored for _, stored in last.values())))
        swept = 0
        for identity, (number, stored) in last.items():
            head = Head.of(heads[stored]) if stored in heads else None
            if head is None or head.identity != identity:
                swept += yield from self._sweep_old(keys.chunk(stored, identity, number), identity)
        return swept

    def _sweep_old(self, newest: str, identity: str) -> Operation[int]:
        entry: Entry | None = yield from self._place.ask("get", newest)
        if entry is not None and entry.created.timestamp() > (yield from self._place.now()) - self.grace:
            self._sweep_soon()
            return 0
        erased: int = yield from self._place.ask("erase", keys.all_chunks(self._prefix, identity))
        return erased

    def sweep_now_and_then(self) -> Operation[None]:
        """Sweep, if that was not done for a while."""
        if time.monotonic() >= self._sweep_at:
            yield from self._sweep_now()

    def _sweep_now(self) -> Operation[None]:
        self._swept = True
        self._sweep_at = time.monotonic() + SWEEP
        try:
            yield from self.sweep()
        except AWAY:
            raise
        except OperationalError as error:  # a user who may not list keys may write values all the same
            logger.debug("Chunks in bucket %s could not be swept: %s", self._place.name, error)

    def _sweep_soon(self) -> None:
        self._sweep_at = min(self._sweep_at, time.monotonic() + self.grace)

    def knows(self, stored: str) -> bool:
        """Tell whether this process knows of chunks of the value at ``stored``."""
        return stored in self._heads

    def replaced(self, stored: str, revision: int, head: Head | None, over: Any) -> Operation[None]:
        """Take that ``head``, or a value in one piece, got ``revision``; remove the chunks of what was there, if known.

        ``over`` is the entry that was written over, where that is known.
        """
        dead = {self._known_before(stored, revision)}
        if isinstance(over, Entry):
            dead.add(Head.of(over))
        if head is not None:
            self._remember(stored, revision, head)
        for old in dead:
            if old is not None:
                yield from self.erase(old)

    def _known_before(self, stored: str, revision: int) -> Head | None:
        known = self._heads.get(stored)
        # Another thread's value may be newer than the one that this thread wrote just before: it stays.
        if known is None or known[0] >= revision or not self._take(stored, known):
            return None
        return known[1]

    def _take(self, stored: str, known: tuple[int, Head]) -> bool:
        """Forget ``known``; tell whether this caller was the one to do it."""
        taken = self._heads.pop(stored, None)
        if taken is not None and taken is not known:  # newer
            self._heads.setdefault(stored, taken)
        return taken is known

    def removed(self, stored: str, head: Head | None) -> Operation[None]:
        """Take that what had ``head`` was removed."""
        if head is not None:
            known = self._heads.get(stored)
            if known is not None and known[1] == head:
                self._take(stored, known)
            yield from self.erase(head)

    def forget(self) -> None:
        """Take that everything was removed."""
        self._heads.clear()

    def _remember(self, stored: str, revision: int, head: Head) -> None:
        # Without a lock, which a fork could leave locked. What is forgotten, even all of it, is found by a sweep.
        known = self._heads.get(stored)
        if known is not None and known[0] > revision:
            return
        if len(self._heads) >= _REMEMBERED:
            self._heads.clear()
        self._heads[stored] = revision, head
