"""Making: values that are made where they are missing.

Owns get_or_set. Knows nothing of who makes what when: flights and locks do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django_natskv.cache.locks import TIMEOUT, Lock
from django_natskv.cache.once import Flight
from django_natskv.cache.steps import Ask, Operation
from django_natskv.cache.store import MISSING, Store

Soften = Callable[[Operation[Any], Any], Operation[Any]]
Add = Callable[[Any], Operation[bool]]


def get_or_set(store: Store, soften: Soften, stored: str, default: Any, add: Add, *, lock: bool) -> Operation[Any]:
    """Return the value that is there, else add ``default``, or what it returns, and return what is there then.

    ``soften`` lets a read or write go on without the server, where the cache is made so.
    """
    value = yield from soften(store.load(stored), MISSING)
    if value is not MISSING:
        return value
    if not callable(default):
        return (yield from _keep(store, soften, stored, default, add, None))
    make = partial(_make, store, soften, stored, default, add)
    if lock:
        make = partial(_locked, store, soften, stored, make)
    return (yield from store.flights.once(stored, make, partial(_read, store, stored)))


def _make(
    store: Store, soften: Soften, stored: str, default: Callable[[], Any], add: Add, flight: Flight
) -> Operation[Any]:
    if flight.follows:
        # Whoever took over from one that failed may have been done before this one was awake.
        value = yield from soften(store.load(stored), MISSING)
        if value is not MISSING:
            flight.result = yield from store.dump(stored, value)
            return value
    value = yield Ask(default)
    return (yield from _keep(store, soften, stored, value, add, flight))


def _keep(store: Store, soften: Soften, stored: str, value: Any, add: Add, flight: Flight | None) -> Operation[Any]:
    added = yield from soften(add(value), True)
    if not added:
        # Somebody else was first: everybody gets the same value.
        found = yield from soften(store.load(stored), MISSING)
        value = value if found is MISSING else found
    if flight is not None:
        flight.result = yield from store.dump(stored, value)
    return value


def _read(store: Store, stored: str, dumped: tuple[bytes, dict[str, str]]) -> Any:
    """Return a copy of the reader's own."""
    return store.place.values.load(stored, *dumped)


def _locked(
    store: Store, soften: Soften, stored: str, make: Callable[[Flight], Operation[Any]], flight: Flight
) -> Operation[Any]:
    """Make the value under a lock of all processes; without one while the server is away."""
    held = Lock(store.place, store.prefix, f"make:{stored}", TIMEOUT)
    got = yield from soften(held.acquiring(), False)
    try:
        value = (yield from soften(store.load(stored), MISSING)) if got else MISSING
        if value is not MISSING:
            flight.result = yield from store.dump(stored, value)
            return value
        return (yield from make(flight))
    finally:
        if got:
            yield from soften(held.releasing(), None)
