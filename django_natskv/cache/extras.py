"""Extras: what Django's caches do not have.

Owns reading times and entries, compare-and-set, and finding keys by a pattern. Knows nothing of how keys are spelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django_natskv.cache import keys, writes
from django_natskv.cache.lifetime import Lifetime
from django_natskv.cache.steps import Operation
from django_natskv.cache.store import KEY, MISSING, Store
from django_natskv.exceptions import WrongRevision

KEEP: Any = object()  # the timeout that something has
AT_ONCE = 1_000  # keys that are looked at, or deleted, in one go


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A value as the cache holds it: with its revision, which ``compare_and_set`` compares, and its times.

    ``created`` is when it was written, ``expires`` when it will be gone, None for never; both by the server's clock,
    aware, in UTC.
    """

    key: Any
    value: Any
    revision: int
    created: datetime
    expires: datetime | None


def ttl(store: Store, stored: str) -> Operation[float | None]:
    """Return the seconds that are left, None for no end, 0.0 when there is nothing."""
    found = yield from store.find(stored)
    if found is None or not (yield from store.is_there(stored, found)):
        return 0.0
    if found.expires is None:
        return None
    return max(0.0, found.expires - (yield from store.place.now()))


def entry(store: Store, key: Any, stored: str) -> Operation[CacheEntry | None]:
    """Return what is there with its revision."""
    found = yield from store.find(stored)
    value = MISSING if found is None else (yield from store.value(stored, found))
    if found is None or value is MISSING:
        return None
    expires = None if found.expires is None else datetime.fromtimestamp(found.expires, UTC)
    return CacheEntry(key, value, found.entry.revision, found.entry.created, expires)


def compare_and_set(
    store: Store, key: Any, stored: str, value: Any, revision: int, seconds: Any
) -> Operation[int | None]:
    """Write ``value`` if ``revision`` is still the newest; return the new revision, None if it is not."""
    data, formats = yield from store.dump(stored, value)
    found = yield from store.find(stored)
    if found is None or found.entry.revision != revision:
        return None
    lifetime = found.lifetime if seconds is KEEP else Lifetime(seconds)
    try:
        headers = store.headers(key, stored, lifetime, formats)
        return (yield from store.write(stored, data, headers, lifetime, found.entry))
    except WrongRevision:
        return None


def search(store: Store, found: keys.Search) -> Operation[list[str]]:
    """Return the stored keys that may be meant: those in the patterns of ``found``."""
    names: list[str] = yield from store.place.ask("keys", list(found.patterns))
    return [name for name in names if keys.decode(name) is not None]


def told(store: Store, found: keys.Search, names: Sequence[str]) -> Operation[dict[str, str]]:
    """Return, by stored key, those of the keys ``names`` that ``found`` matches."""
    matching: dict[str, str] = {}
    hashed = [name for name in names if keys.is_hashed(name)]
    # Of these the name says nothing; and where older values come back, neither does their presence.
    back = store.place.goes_back
    there = (yield from store.find_many(names if back else hashed)) if back or hashed else {}
    for name in names:
        decoded = keys.decode(name)
        key = None if decoded is None else decoded.key
        if back or keys.is_hashed(name):
            if name not in there:
                continue
            key = key if key is not None else _kept_key(there[name].entry.headers.get(KEY))
        if key is not None and found.matches(key):
            matching[name] = key
    return matching


def _kept_key(escaped: str | None) -> str | None:
    try:
        return None if escaped is None else keys.unescape(escaped)
    except ValueError:  # written by someone else
        return None


def portions(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Return the stored keys ``names`` in portions that are looked at in one go."""
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))


def listing(store: Store, found: keys.Search) -> Operation[list[str]]:
    """Return the keys that ``found`` matches."""
    names = yield from search(store, found)
    listed: list[str] = []
    for some in portions(names):
        listed.extend((yield from told(store, found, some)).values())
    return listed


def delete_matching(store: Store, found: keys.Search) -> Operation[int]:
    """Remove the keys that ``found`` matches; return how many there were."""
    names = yield from search(store, found)
    removed = 0
    for some in portions(names):
        matching = yield from told(store, found, some)
        removed += yield from writes.delete_many(store, matching)
    return removed
