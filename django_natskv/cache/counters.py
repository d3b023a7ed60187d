"""Counters and versions: values that are made of the value before.

Owns that no change of them is lost. Knows nothing of how values are stored.
"""

from __future__ import annotations

from typing import Any

from django_natskv.cache import backoff
from django_natskv.cache.steps import Operation
from django_natskv.cache.store import MISSING, Store
from django_natskv.exceptions import WrongRevision


def add(store: Store, key: Any, stored: str, delta: Any) -> Operation[Any]:
    """Add ``delta`` to the value that is there and keep its end; ``ValueError`` when there is none."""
    for pause in backoff.pauses():
        found = yield from store.find(stored)
        value = MISSING if found is None else (yield from store.value(stored, found))
        if found is None or value is MISSING:
            raise missing(key)
        value += delta
        data, formats = yield from store.dump(stored, value)
        headers = store.headers(key, stored, found.lifetime, formats)
        try:
            yield from store.write(stored, data, headers, found.lifetime, found.entry)
        except WrongRevision:
            yield pause
        else:
            return value
    raise backoff.contended("counting", stored, store.place.name)


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
