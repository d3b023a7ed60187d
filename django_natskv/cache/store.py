"""The store: values of one KEY_PREFIX in a bucket, found, judged and written.

Owns what counts as there: not expired, not cleared, readable. Knows nothing of Django's cache operations.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import SynchronousOnlyOperation

from django_natskv.cache import backoff, keys
from django_natskv.cache.chunks import CHUNKS, Chunks, Head
from django_natskv.cache.lifetime import EVER, KEPT, Lifetime, expiry, kept_until
from django_natskv.cache.markers import Markers
from django_natskv.cache.near import ABSENT, UNKNOWN, Near
from django_natskv.cache.once import Flights
from django_natskv.cache.outages import outages_of
from django_natskv.cache.place import Place
from django_natskv.cache.quiet import Quiet
from django_natskv.cache.steps import Aside, Operation
from django_natskv.cache.turns import Turns
from django_natskv.cache.values import UnreadableValueError
from django_natskv.exceptions import ValueTooLarge, WrongRevision
from django_natskv.kv import Entry

logger = logging.getLogger("django_natskv.cache")

MISSING: Any = object()
WHATEVER: Any = object()  # may be written over
KEY = "Natskv-Key"
_ADDED = 10_000  # keys that were added and are remembered
MARKER_TTL_MS = 1_000  # of a tombstone where nothing comes back after a crash
_LONGEST_KEY = 65_536  # characters of a hashed key that are kept beside its value


class Found(NamedTuple):  # made at each read: three times as fast as a frozen dataclass
    """What is there under a key: its entry, and when it expires by the server's clock."""

    entry: Entry
    expires: float | None

    @property
    def lifetime(self) -> Lifetime:
        """The lifetime of what is written in its place and keeps its end."""
        return Lifetime(until=self.expires)


class Count(NamedTuple):
    """A sum of this process: its entry and what it says, and when it was written by the monotonic clock.

    ``alone`` tells that, when it was last read, nobody else had counted on its key since this process did.
    """

    entry: Entry
    expires: float | None
    value: Any
    written: float
    alone: bool


class Store:
    """The values of one KEY_PREFIX, in one bucket, as one process sees them."""

    def __init__(self, place: Place, prefix: str) -> None:
        self.place = place
        self.prefix = prefix
        self.markers = Markers(place, prefix)
        self.near = Near(place, prefix) if place.options.local_cache else None
        self.chunks = Chunks(place, prefix)
        self.flights = Flights()
        self.turns = Turns()
        self.outages = outages_of(place)
        self.unreadable = 0
        self.seen: set[str] | None = None  # keys, where there is a bound on their number
        self.added: set[str] = set()  # keys that were added, or there to be added
        self.counts: dict[str, Count] = {}  # by key, which this process counted on lately
        self._counting = threading.Lock()
        self._unreadable_told = Quiet()

    def begin_anew(self) -> None:
        """Take that the bucket is gone, and that another one may come in its place."""
        if self.near is not None:
            self.near.begin_anew()

    # --- finding ---

    def find(self, stored: str) -> Operation[Found | None]:
        """Return what is there under a stored key."""
        yield from self.place.opened()
        cleared = self.markers.known()
        if cleared is None:
            return (yield from self.find_many([stored])).get(stored)
        entry = yield from self.place.ask("get", stored)
        return (yield from self.judge(entry, cleared))

    def look(self, stored: str) -> Operation[tuple[Entry | None, Found | None]]:
        """Return the entry under a stored key, and the same as what is there, None if it is nothing to a cache."""
        yield from self.place.opened()
        cleared = self.markers.known()
        entry = yield from self.place.ask("get", stored)
        if cleared is None:
            found = yield from self.find(stored)
        else:
            found = yield from self.judge(entry, cleared)
        return entry, found

    def find_many(self, stored: Iterable[str]) -> Operation[dict[str, Found]]:
        """Return what is there under stored keys, in as few requests as there can be."""
        yield from self.place.opened()
        wanted = list(stored)
        cleared = self.markers.known()
        names = wanted if cleared is not None else [*wanted, *self.markers.names]
        entries = yield from self.place.ask("get_many", names)
        if cleared is None:
            cleared = self.markers.among(entries)
        now = yield from self.place.now()
        found: dict[str, Found] = {}
        for key in wanted:
            entry = entries.get(key)
            if entry is None or entry.revision < cleared:
                continue
            expires = expiry(entry)
            if expires is None or expires > now:
                found[key] = Found(entry, expires)
        return found

    def judge(self, entry: Entry | None, cleared: int = 0) -> Operation[Found | None]:
        """Return ``entry`` as what is there, None if it has expired, or is older than the clear marker ``cleared``."""
        if entry is None or entry.revision < cleared:
            return None
        expires = expiry(entry)
        if expires is not None and expires <= (yield from self.place.now()):
            return None
        return Found(entry, expires)

    def load(self, stored: str) -> Operation[Any]:
        """Return the value under a stored key, or ``MISSING``."""
        if self.near is not None:
            yield from self.place.opened()
            value = yield from self.near.read(stored)
            if value is not UNKNOWN:
                return MISSING if value is ABSENT else value
        return (yield from self.load_there(stored))

    def load_there(self, stored: str) -> Operation[Any]:
        """Return the value that the server has under a stored key, or ``MISSING``."""
        while True:
            found = yield from self.find(stored)
            if found is None:
                return MISSING
            value = yield from self.value(stored, found)
            if value is not MISSING or CHUNKS not in found.entry.headers:
                return value
            # Chunks are gone: with their head, or because it was overwritten meanwhile.
            again = yield from self.find(stored)
            if again is None or again.entry.revision == found.entry.revision:
                return MISSING

    def value(self, stored: str, found: Found) -> Operation[Any]:
        """Return the value of what was found, or ``MISSING`` when it cannot be read."""
        entry = found.entry
        data = (yield from self.data(stored, entry)) if CHUNKS in entry.headers else entry.value
        return MISSING if data is None else self.read(stored, data, entry)

    def is_there(self, stored: str, found: Found) -> Operation[bool]:
        """Tell whether what was found can be read; of a large value, whether all of its chunks are there."""
        head = Head.of(found.entry)
        if head is None:
            return self.read(stored, found.entry.value, found.entry) is not MISSING
        return (yield from self.chunks.are_there(head))

    def read(self, stored: str, data: bytes, entry: Entry) -> Any:
        """Return the value of ``data``, or ``MISSING`` when it cannot be read."""
        try:
            return self.place.values.load(stored, data, entry.headers)
        except UnreadableValueError as error:
            self.count_unreadable(error)
            return MISSING

    def data(self, stored: str, entry: Entry) -> Operation[bytes | None]:
        """Return the bytes of an entry's value, None if some of its chunks are gone."""
        head = Head.of(entry)
        if head is None:
            return entry.value  # type: ignore[no-any-return]
        return (yield from self.chunks.read(stored, entry.revision, head))

    def count_unreadable(self, error: UnreadableValueError) -> None:
        """Take that a value could not be read; it counts as missing."""
        with self._counting:
            self.unreadable += 1
        if self._unreadable_told.may_speak():
            text = "Bucket %s of the cache holds a value that counts as missing (%d so far in this process): %s"
            logger.warning(text, self.place.name, self.unreadable, error)

    # --- writing ---

    def note_added(self, stored: str) -> None:
        """Take that a key was added or was there: the next one to add it may find it there."""
        if len(self.added) >= _ADDED:
            self.added.clear()
        self.added.add(stored)

    def dump(self, stored: str, value: Any) -> Operation[tuple[bytes, dict[str, str]]]:
        """Return the bytes and headers of ``value``; what pickling raises passes."""
        try:
            return self.place.values.dump(stored, value)
        except SynchronousOnlyOperation:
            # To pickle it takes a query (a QuerySet, a lazy user): off the event loop, then.
            dumped: tuple[bytes, dict[str, str]] = yield Aside(partial(self.place.values.dump, stored, value))
            return dumped

    def headers(self, key: Any, stored: str, lifetime: Lifetime, formats: Mapping[str, str]) -> dict[str, str]:
        """Return all headers of a value; not to be changed."""
        headers = lifetime.beside(formats)
        if keys.is_hashed(stored) and len(escaped := keys.escape(str(key))) <= _LONGEST_KEY:
            return {**headers, KEY: escaped}
        return headers

    def write(
        self,
        stored: str,
        data: bytes,
        headers: Mapping[str, str],
        lifetime: Lifetime,
        over: Entry | None = WHATEVER,
    ) -> Operation[int]:
        """Write a value over whatever is there, over one entry, or, where ``over`` is None, only where nothing is.

        Raises ``WrongRevision`` when something else is there.
        """
        yield from self.place.opened()
        yield from self.chunks.sweep_now_and_then()
        if over is WHATEVER and self.place.goes_back:
            return (yield from self._write_knowingly(stored, data, headers, lifetime))
        ttl_ms, kept = yield from self.kept(lifetime, over)
        headers = {**headers, **kept}
        if not self.chunks.wants(data):
            try:
                revision = yield from self._write(stored, data, headers, ttl_ms, over)
            except ValueTooLarge as error:
                if not self.chunks.shrink(error):
                    raise
            else:
                yield from self.chunks.replaced(stored, revision, None, over)
                return revision
        head = yield from self.chunks.write(stored, data, ttl_ms)
        try:
            revision, seen = yield from self._write_head(stored, {**headers, CHUNKS: str(head)}, ttl_ms, over)
        except BaseException as error:
            yield from self.chunks.give_up(head, error)
            raise
        yield from self.chunks.replaced(stored, revision, head, seen)
        return revision

    def _write_head(
        self, stored: str, headers: Mapping[str, str], ttl_ms: int | None, over: Entry | None
    ) -> Operation[tuple[int, Entry | None]]:
        """Write a head; return its revision and what it was written over.

        Where that may be anything it is looked at first: it may have chunks that nobody else would remove.
        """
        for pause in backoff.pauses():
            seen = (yield from self.place.ask("get", stored)) if over is WHATEVER else over
            try:
                return (yield from self._write(stored, b"", headers, ttl_ms, seen)), seen
            except WrongRevision:
                if over is not WHATEVER:
                    raise
                yield pause
        raise backoff.contended("writing", stored, self.place.name)

    def _write_knowingly(
        self, stored: str, data: bytes, headers: Mapping[str, str], lifetime: Lifetime
    ) -> Operation[int]:
        """Write over whatever is there, having seen it: what it is decides how long the new value is kept (F1)."""
        for pause in backoff.pauses():
            over = yield from self.place.ask("get", stored)
            try:
                return (yield from self.write(stored, data, headers, lifetime, over))
            except WrongRevision:
                yield pause
        raise backoff.contended("writing", stored, self.place.name)

    def kept(self, lifetime: Lifetime, over: Entry | None) -> Operation[tuple[int | None, dict[str, str]]]:
        """Return the milliseconds that the server is told to keep a value, and the header that says so.

        Where a crash brings older values back, the newest of a key that has not expired comes back (F1). So there no
        value is kept for a shorter time than the one that it is written over.
        """
        now = 0.0 if lifetime.until is None and over in (None, WHATEVER) else (yield from self.place.now())
        ttl_ms = lifetime.ttl_ms(now)
        if over is None or over is WHATEVER or ttl_ms is None or not self.place.goes_back:
            return ttl_ms, {}
        kept = kept_until(over)
        if kept <= now + ttl_ms / 1_000:
            return ttl_ms, {}
        if kept == math.inf:
            return None, {KEPT: EVER}
        return math.ceil((kept - now) * 1_000), {KEPT: f"{kept:.3f}"}

    def _write(
        self, stored: str, data: bytes, headers: Mapping[str, str], ttl_ms: int | None, over: Entry | None
    ) -> Operation[int]:
        name = "put" if over is WHATEVER else "create" if over is None else "update"
        guard = () if over is None or over is WHATEVER else (over.revision,)
        revision: int = yield from self.place.ask(name, stored, data, *guard, ttl_ms=ttl_ms, headers=headers)
        return revision

    def remove(self, stored: str, found: Found) -> Operation[None]:
        """Remove what was found; ``WrongRevision`` if it was changed since."""
        self.added.discard(stored)
        ttl_ms = yield from self.marker_ttl_ms(found)
        yield from self.place.ask("delete", stored, revision=found.entry.revision, marker_ttl_ms=ttl_ms)
        yield from self.chunks.removed(stored, Head.of(found.entry))

    def marker_ttl_ms(self, found: Found) -> Operation[int | None]:
        """Return how long the tombstone over what was found has to stay."""
        if not self.place.goes_back:
            return MARKER_TTL_MS
        # Otherwise a server that crashes after the tombstone has expired would bring the value back (F1).
        kept = kept_until(found.entry)
        if kept == math.inf:
            return None
        return max(MARKER_TTL_MS, math.ceil((kept - (yield from self.place.now())) * 1_000))


def store_of(place: Place, prefix: str) -> Store:
    """Return the store of a KEY_PREFIX in ``place``, one in a process."""
    store: Store | None = place.stores.get(prefix)
    # Of two made at once one is dropped, unused.
    return store or place.stores.setdefault(prefix, Store(place, prefix))
