"""The store: values of one KEY_PREFIX in a bucket, found, judged and written.

Owns what counts as there: not expired, not cleared, readable. Knows nothing of Django's cache operations.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation

from django_natskv.cache import keys
from django_natskv.cache.chunks import CHUNKS, Chunks, Head
from django_natskv.cache.lifetime import Lifetime, expiry
from django_natskv.cache.once import Flights
from django_natskv.cache.outages import Outages
from django_natskv.cache.place import Place
from django_natskv.cache.quiet import Quiet
from django_natskv.cache.steps import Aside, Operation
from django_natskv.cache.values import UnreadableValueError
from django_natskv.exceptions import OperationalError, ValueTooLarge
from django_natskv.kv import Entry

logger = logging.getLogger("django_natskv.cache")

MISSING: Any = object()
KEY = "Natskv-Key"
MARKER_TTL_MS = 1_000  # of a tombstone where nothing comes back after a crash
_LONGEST_KEY = 65_536  # characters of a hashed key that are kept beside its value


@dataclass(frozen=True, slots=True)
class Found:
    """What is there under a key: its entry, and when it expires by the server's clock."""

    entry: Entry
    expires: float | None

    @property
    def lifetime(self) -> Lifetime:
        """The lifetime of what is written in its place and keeps its end."""
        return Lifetime(until=self.expires)


class Store:
    """The values of one KEY_PREFIX, in one bucket, as one process sees them."""

    def __init__(self, place: Place, prefix: str) -> None:
        self.place = place
        self.prefix = prefix
        self.markers = tuple(dict.fromkeys((keys.clear_marker(), keys.clear_marker(prefix))))
        self.chunks = Chunks(place, prefix)
        self.flights = Flights()
        self.outages = Outages(place)
        self.unreadable = 0
        self.seen: set[str] | None = None  # keys, where there is a bound on their number
        self._counting = threading.Lock()
        self._unreadable_told = Quiet()

    # --- finding ---

    def find(self, stored: str) -> Operation[Found | None]:
        """Return what is there under a stored key."""
        if (yield from self.place.goes_back()):
            return (yield from self.find_many([stored])).get(stored)
        entry = yield from self.place.ask("get", stored)
        return (yield from self.judge(entry))

    def find_many(self, stored: Iterable[str]) -> Operation[dict[str, Found]]:
        """Return what is there under stored keys, in as few requests as there can be."""
        wanted = list(stored)
        back = yield from self.place.goes_back()
        entries = yield from self.place.ask("get_many", [*wanted, *self.markers] if back else wanted)
        cleared = max((entries[marker].revision for marker in self.markers if marker in entries), default=0)
        found: dict[str, Found] = {}
        for key in wanted:
            judged = yield from self.judge(entries.get(key), cleared)
            if judged is not None:
                found[key] = judged
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
        try:
            data = yield from self.data(stored, found.entry)
            if data is None:
                return MISSING
            return self.place.values.load(stored, data, found.entry.headers)
        except UnreadableValueError as error:
            self.count_unreadable(error)
            return MISSING

    def data(self, stored: str, entry: Entry) -> Operation[bytes | None]:
        """Return the bytes of an entry's value, None if some of its chunks are gone."""
        head = Head.of(entry)
        if head is None:
            return entry.value  # type: ignore[no-any-return]
        return (yield from self.chunks.read(stored, head))

    def count_unreadable(self, error: UnreadableValueError) -> None:
        """Take that a value could not be read; it counts as missing."""
        with self._counting:
            self.unreadable += 1
        if self._unreadable_told.may_speak():
            text = "Bucket %s of the cache holds a value that counts as missing (%d so far in this process): %s"
            logger.warning(text, self.place.name, self.unreadable, error)

    # --- writing ---

    def dump(self, stored: str, value: Any) -> Operation[tuple[bytes, dict[str, str]]]:
        """Return the bytes and headers of ``value``; what pickling raises passes."""
        try:
            return self.place.values.dump(stored, value)
        except SynchronousOnlyOperation:
            # To pickle it takes a query (a QuerySet, a lazy user): off the event loop, then.
            dumped: tuple[bytes, dict[str, str]] = yield Aside(partial(self.place.values.dump, stored, value))
            return dumped

    def headers(self, key: Any, stored: str, lifetime: Lifetime, formats: Mapping[str, str]) -> dict[str, str]:
        """Return all headers of a value."""
        headers = {**formats, **lifetime.headers()}
        if keys.is_hashed(stored) and len(escaped := keys.escape(str(key))) <= _LONGEST_KEY:
            headers[KEY] = escaped
        return headers

    def write(
        self,
        stored: str,
        data: bytes,
        headers: Mapping[str, str],
        lifetime: Lifetime,
        guard: int | None = None,
    ) -> Operation[int]:
        """Write a value: over whatever is there, where nothing is (``guard`` 0), or over one revision.

        Raises ``WrongRevision`` when the guard does not hold.
        """
        ttl_ms = yield from self.ttl_ms(lifetime)
        if not self.chunks.wants(data):
            try:
                revision = yield from self._write(stored, data, headers, ttl_ms, guard)
            except ValueTooLarge as error:
                if not self.chunks.shrink(error):
                    raise
            else:
                yield from self.chunks.replaced(stored, None)
                return revision
        head = yield from self.chunks.write(stored, data, ttl_ms)
        try:
            revision = yield from self._write(stored, b"", {**headers, CHUNKS: str(head)}, ttl_ms, guard)
        except OperationalError:
            yield from self.chunks.erase(head)
            raise
        yield from self.chunks.replaced(stored, head)
        return revision

    def ttl_ms(self, lifetime: Lifetime) -> Operation[int | None]:
        """Return the milliseconds that the server is told."""
        now = 0.0 if lifetime.until is None else (yield from self.place.now())
        return lifetime.ttl_ms(now)

    def _write(
        self, stored: str, data: bytes, headers: Mapping[str, str], ttl_ms: int | None, guard: int | None
    ) -> Operation[int]:
        name = "put" if guard is None else "update" if guard else "create"
        over = (guard,) if guard else ()
        revision: int = yield from self.place.ask(name, stored, data, *over, ttl_ms=ttl_ms, headers=headers)
        return revision

    def remove(self, stored: str, found: Found) -> Operation[None]:
        """Remove what was found; ``WrongRevision`` if it was changed since."""
        ttl_ms = yield from self.marker_ttl_ms(found)
        yield from self.place.ask("delete", stored, revision=found.entry.revision, marker_ttl_ms=ttl_ms)
        yield from self.chunks.removed(stored, Head.of(found.entry))

    def marker_ttl_ms(self, found: Found) -> Operation[int | None]:
        """Return how long the tombstone over what was found has to stay."""
        if not (yield from self.place.goes_back()):
            return MARKER_TTL_MS
        # Otherwise a server that crashes after the tombstone has expired would bring the value back (F1).
        return (yield from self.ttl_ms(found.lifetime))


def store_of(place: Place, prefix: str) -> Store:
    """Return the store of a KEY_PREFIX in ``place``, one in a process."""
    store: Store | None = place.stores.get(prefix)
    # Of two made at once one is dropped, unused.
    return store or place.stores.setdefault(prefix, Store(place, prefix))
