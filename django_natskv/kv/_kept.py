"""Entries as a local cache keeps them: which can be handed out as they are, what they weigh, when they end.

Owns the server's clock as far as this process knows it. Knows nothing of how entries are found or where they come from.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any

from django_natskv.exceptions import CodecError
from django_natskv.kv._core import Core
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.messages import Stored, moment, own_headers
from django_natskv.kv.entries import NO_HEADERS, Entry, Operation

OVERHEAD = 300  # bytes that an entry takes beside its key and its value
_IMMUTABLE = (str, int, float, bool, bytes, type(None))  # what no reader can change, and so is handed out as it is
_SHARED = frozenset(_IMMUTABLE)
_HEADER = 150  # bytes that a header takes beside its name and value, its part of the mapping included
_NUMBER = 32  # bytes of a value that has no length
_NEVER = "never"  # a time to live that takes a value out of its bucket's

_data, _headers, _revision, _written = map(attrgetter, ("data", "headers", "revision", "written"))

Monotonic = Callable[[], float]


@dataclass(frozen=True, slots=True)
class SpecialEntry(Entry):
    """An entry that cannot just be handed out: it expires, or a reader could change its value."""

    size: int = 0  # of the encoded value, in bytes
    lives: timedelta | None = None  # from ``created``, by the server's clock


Packed = tuple[str, Any, int, datetime | int]  # key, value, revision, created
Kept = Entry | Packed
"""How a mirror holds a key: an entry that can be handed out is only made of these four when it is asked for. Besides
the time it saves, the garbage collector has nothing to do with a plain tuple of such values (ADR 0012)."""


class Clock:
    """The time of the server, which alone says when an entry has expired.

    Before the server has told its time, the local clock stands in. ``monotonic`` is the clock that goes on in between.
    """

    def __init__(self, monotonic: Monotonic = time.monotonic, local: Callable[[], datetime] | None = None) -> None:
        self.monotonic = monotonic
        self.local = local or (lambda: datetime.now(UTC))
        self._told: tuple[datetime, float] | None = None

    def set(self, told: datetime) -> None:
        """Take that it is ``told`` at the server now."""
        self._told = (told, self.monotonic())

    def now(self) -> datetime:
        """Return the server's time."""
        if self._told is None:
            return self.local()
        told, at = self._told
        return told + timedelta(seconds=self.monotonic() - at)


class Keeper:
    """Makes the entries of one bucket, and hands them out. ``core`` is replaced when the bucket was looked at."""

    def __init__(self, core: Core, clock: Clock) -> None:
        self.core = core
        self._clock = clock
        self._ttl: timedelta | None = None
        self._least = 0  # seconds that the server lets any key with a time to live live
        self._lives: dict[str, timedelta | None] = {}

    def learn(self, info: BucketInfo) -> bool:
        """Take what the server says of the bucket; tell whether entries now live longer or shorter than before."""
        if info.asked is not None:
            self._clock.set(info.asked)
        before = (self._ttl, self._least)
        nanoseconds = info.config.get("max_age", 0)
        self._ttl = timedelta(microseconds=nanoseconds // 1_000) if nanoseconds else None
        # A limit marker's time raises shorter ones to itself where there is a history (F15).
        several = info.config.get("max_msgs_per_subject", 1) > 1
        self._least = info.config.get("subject_delete_marker_ttl", 0) // 1_000_000_000 if several else 0
        self._lives.clear()
        return before != (self._ttl, self._least)

    def entry(self, key: str, stored: Stored) -> Entry:
        """Return the entry of ``key`` for a value; ``CodecError`` when it does not decode."""
        value = self.core.decode(key, stored.data)
        headers = own_headers(stored.headers) if stored.headers else NO_HEADERS
        entry = Entry(self.core.name, key, value, stored.revision, stored.created, Operation.PUT, None, headers)
        lives = self._ttl if not stored.headers else self._lifetime(stored)
        if lives is None and isinstance(entry.value, _IMMUTABLE):
            return entry
        return special(entry, len(stored.data), lives)

    def keep(self, key: str, stored: Stored) -> Kept:
        """Return what a mirror holds of ``key`` for a value; ``CodecError`` when it does not decode."""
        value = self.core.decode(key, stored.data)
        lives = self._ttl if not stored.headers else self._lifetime(stored)
        headers = own_headers(stored.headers) if stored.headers else NO_HEADERS
        if lives is None and isinstance(value, _IMMUTABLE) and not headers:
            return (key, value, stored.revision, stored.written)
        entry = Entry(self.core.name, key, value, stored.revision, stored.created, Operation.PUT, None, headers)
        return entry if lives is None and isinstance(value, _IMMUTABLE) else special(entry, len(stored.data), lives)

    def keys_of(self, news: Iterable[Stored]) -> list[str]:
        """Return the key of each revision."""
        start = len(self.core.prefix)
        return [stored.subject[start:] for stored in news]

    def keep_together(self, keys: Sequence[str], news: Sequence[Stored]) -> tuple[dict[str, Kept], int] | None:
        """Return what ``keep`` does for each of many, by key, and what all of it weighs.

        None unless all are plain values that decode: then they have to be kept one by one.
        """
        if self._ttl is not None or any(map(_headers, news)):
            return None
        values = self.core.decode_together(list(map(_data, news)))
        if values is None or not _SHARED.issuperset(map(type, values)):
            return None
        size = OVERHEAD * len(keys) + sum(map(len, keys)) + sum(map(_size, values))
        return dict(
            zip(keys, zip(keys, values, map(_revision, news), map(_written, news), strict=True), strict=True)
        ), size

    def unpack(self, kept: Kept) -> Entry:
        """Return the entry of what is held of a key."""
        if isinstance(kept, Entry):
            return kept
        key, value, revision, written = kept
        return Entry(self.core.name, key, value, revision, moment(written), Operation.PUT)

    def hand_out(self, entry: Entry | None) -> Entry | None:
        """Return an entry of the reader's own, or None for one that has expired."""
        if not isinstance(entry, SpecialEntry):
            return entry
        return None if self.has_expired(entry) else plain(entry)

    def has_expired(self, entry: Kept) -> bool:
        """Tell whether the server has let go of ``entry`` by now."""
        if not isinstance(entry, SpecialEntry) or entry.lives is None:
            return False
        return entry.created + entry.lives <= self._clock.now()

    def encode(self, entry: Entry) -> bytes:
        """Return the value's bytes again; ``CodecError``."""
        return self.core.encode(entry.key, entry.value)

    def restore(
        self,
        key: str,
        data: bytes,
        revision: int,
        created: datetime,
        lives: timedelta | None,
        headers: Mapping[str, str],
    ) -> Entry | None:
        """Return an entry that was written to a file, or None when it does not decode any more."""
        try:
            value = self.core.decode(key, data)
        except CodecError:
            return None
        entry = Entry(self.core.name, key, value, revision, created, Operation.PUT, None, own_headers(headers))
        return entry if lives is None and isinstance(entry.value, _IMMUTABLE) else special(entry, len(data), lives)

    def _lifetime(self, stored: Stored) -> timedelta | None:
        given = stored.headers.get("Nats-TTL")
        if given is None:
            return self._ttl
        if given == _NEVER:
            return None
        if given not in self._lives:
            # Few different ones, shared by the many entries that have them.
            seconds = max(stored.time_to_live, self._least)
            lives = timedelta(seconds=seconds) if stored.time_to_live else None
            self._lives[given] = min((each for each in (lives, self._ttl) if each is not None), default=None)
        return self._lives[given]


def special(entry: Entry, size: int, lives: timedelta | None) -> SpecialEntry:
    """Return ``entry`` as one that is looked at before it is handed out."""
    return SpecialEntry(
        entry.bucket,
        entry.key,
        entry.value,
        entry.revision,
        entry.created,
        entry.operation,
        None,
        entry.headers,
        size=size,
        lives=lives,
    )


def plain(entry: Entry) -> Entry:
    """Return an entry that shares nothing with ``entry`` that could be changed."""
    if not isinstance(entry, SpecialEntry):
        return entry
    value = entry.value if isinstance(entry.value, _IMMUTABLE) else copy.deepcopy(entry.value)
    return Entry(entry.bucket, entry.key, value, entry.revision, entry.created, entry.operation, None, entry.headers)


def weight(kept: Kept) -> int:
    """Return the bytes that a key is counted with. The same for the same entry at all times."""
    if isinstance(kept, Entry):
        key = kept.key
        size = kept.size if isinstance(kept, SpecialEntry) else _size(kept.value)
        if kept.headers:
            size += sum(_HEADER + len(name) + len(text) for name, text in kept.headers.items())
    else:
        key, size = kept[0], _size(kept[1])
    return OVERHEAD + len(key) + size


def _size(value: object) -> int:
    return len(value) if isinstance(value, (str, bytes)) else _NUMBER


def revision_of(kept: Kept) -> int:
    """Return the revision of what is held of a key."""
    return kept[2] if isinstance(kept, tuple) else kept.revision
