"""Counters and versions: values that are made of the value before.

Owns that no change of them is lost. Knows nothing of how values are stored.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from django_natskv.cache import backoff
from django_natskv.cache.lifetime import Lifetime
from django_natskv.cache.steps import Operation
from django_natskv.cache.store import MISSING, Count, Store
from django_natskv.exceptions import WrongRevision

RECENT = 0.1  # seconds that a sum of this process is built upon, if nobody else counts on its key
_REMEMBERED = 10_000  # sums


def add(store: Store, key: Any, stored: str, delta: Any) -> Operation[Any]:
    """Add ``delta`` to the value that is there and keep its end; ``ValueError`` when there is none."""
    return store.turns.in_turn(stored, _add(store, key, stored, delta))


def _add(store: Store, key: Any, stored: str, delta: Any) -> Operation[Any]:
    # Forgotten in any case: what is in doubt, or was changed by others, is to be read.
    count = store.counts.pop(stored, None)
    # Only a number: to what was written since, other things may be added.
    if count is not None and type(delta) is int and (yield from _may_go_on(store, count)):
        try:
            return (yield from _write(store, key, stored, count, count.value + delta))
        except WrongRevision:
            pass
    for pause in backoff.pauses():
        found = yield from store.find(stored)
        value = MISSING if found is None else (yield from store.value(stored, found))
        if found is None or value is MISSING:
            raise missing(key)
        alone = count is not None and count.entry.revision == found.entry.revision
        count = Count(found.entry, found.expires, value, time.monotonic(), alone)
        try:
            return (yield from _write(store, key, stored, count, value + delta))
        except WrongRevision:
            yield pause
    raise backoff.contended("counting", stored, store.place.name)


def _may_go_on(store: Store, count: Count) -> Operation[bool]:
    """Tell whether the next sum may be written over the last one without reading it again."""
    # No older than what is read may be by the time that it is written over, for the same guard holds for both. Where
    # clear markers count (F1) they have to be read.
    if not count.alone or store.place.goes_back or time.monotonic() - count.written > RECENT:
        return False
    return count.expires is None or count.expires > (yield from store.place.now())


def _write(store: Store, key: Any, stored: str, count: Count, value: Any) -> Operation[Any]:
    """Write the next sum over ``count`` and remember it; ``WrongRevision``."""
    data, formats = yield from store.dump(stored, value)
    lifetime = Lifetime(until=count.expires)
    began = time.monotonic()
    headers = store.headers(key, stored, lifetime, formats)
    revision = yield from store.write(stored, data, headers, lifetime, count.entry)
    if type(value) is int and not store.chunks.wants(data):
        if len(store.counts) >= _REMEMBERED:
            store.counts.clear()
        entry = replace(count.entry, value=data, revision=revision, headers=headers)
        store.counts[stored] = Count(entry, count.expires, value, began, count.alone)
    return value


def move(store: Store, key: Any, stored: str, target: str) -> Operation[None]:
    """Move what is there to the stored key ``target``, its end kept; ``ValueError`` when there is nothing.

    The target is written first, so that at no moment the value is nowhere; another process may see both for a moment.
    What others write to the old place meanwhile is moved too.
    """
    for pause in backoff.pauses():
        found = yield from store.find(stored)
        value = MISSING if found is None else (yield from store.value(stored, found))
        if found is None or value is MISSING:
            raise missing(key)
        data, formats = yield from store.dump(target, value)
        if target == stored:
            return
        headers = store.headers(key, target, found.lifetime, formats)
        yield from store.write(target, data, headers, found.lifetime)
        try:
            yield from store.remove(stored, found)
        except WrongRevision:
            yield pause
        else:
            return
    raise backoff.contended("moving", stored, store.place.name)


def missing(key: Any) -> ValueError:
    """Return the error of Django's caches for a key that is not there."""
    return ValueError(f"Key '{key}' not found")
