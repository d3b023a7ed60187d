"""NatsKVCache: Django's cache API on a bucket.

Owns the two faces and what they promise. Knows nothing of how an operation is carried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func, memcache_key_warnings

from django_natskv.cache import clearing, counters, keys, writes
from django_natskv.cache.lifetime import seconds_of
from django_natskv.cache.place import Place, place_of
from django_natskv.cache.steps import Operation, arun, run
from django_natskv.cache.store import MISSING, Store, store_of

T = TypeVar("T")

_KNOWN = 4096  # names that a cache object remembers


class NatsKVCache(BaseCache):
    """Django's cache, kept in a bucket of NATS Key/Value.

    Every operation has two faces: the plain name blocks, the ``a`` name is awaited, from any event loop. Safe to use
    from any thread. Nothing is read from settings and nothing connects before the first operation.

    All operations may raise ``OperationalError`` while the server cannot be reached, unless ON_ERROR is "miss".
    """

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location
        self._params = params
        self._opened: Store | None = None
        self._names: dict[tuple[Any, Any], str] = {}
        options = params.get("OPTIONS") or {}
        bounded = params.get("max_entries") is not None or "MAX_ENTRIES" in options
        self._bounded = bounded

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place.name}>"

    # --- Django's ---

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` when it is not there.

        Not there is what was never set, has expired or was removed, and what cannot be verified or unpickled.
        """
        return self._run(self._get(self._name(key, version), default))

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """See get()."""
        return await self._arun(self._get(self._name(key, version), default))

    def set(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """Write ``value`` under ``key``, whatever is there.

        ``timeout`` in seconds, fractions included, by default TIMEOUT; None never expires, 0 and less removes the key.
        What pickling raises passes.
        """
        return self._run(self._set(key, self._name(key, version), value, self._seconds(timeout)))

    async def aset(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> None:
        """See set()."""
        return await self._arun(self._set(key, self._name(key, version), value, self._seconds(timeout)))

    def add(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Write ``value`` under ``key`` if it is not there; tell whether it was written. Atomic."""
        return self._run(self._add(key, self._name(key, version), value, self._seconds(timeout)))

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See add()."""
        return await self._arun(self._add(key, self._name(key, version), value, self._seconds(timeout)))

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give ``key`` another timeout and leave its value; tell whether it is there. Atomic."""
        return self._run(writes.touch(self._store, self._name(key, version), self._seconds(timeout)))

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See touch()."""
        return await self._arun(writes.touch(self._store, self._name(key, version), self._seconds(timeout)))

    def delete(self, key: Any, version: Any = None) -> bool:
        """Remove ``key``; tell whether it was there."""
        return self._run(writes.delete(self._store, self._name(key, version)))

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """See delete()."""
        return await self._arun(writes.delete(self._store, self._name(key, version)))

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Tell whether ``key`` is there."""
        return self._run(self._get(self._name(key, version), MISSING)) is not MISSING

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """See has_key()."""
        return await self._arun(self._get(self._name(key, version), MISSING)) is not MISSING

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Return the values of those of ``keys`` that are there, by key. One request for 1,024 keys."""
        return self._run(self._get_many(self._names_of(keys, version)))

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """See get_many()."""
        return await self._arun(self._get_many(self._names_of(keys, version)))

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Write several values by key, side by side; return the keys of those that could not be written.

        ``timeout`` as in set(). What pickling raises passes, and nothing was written then.
        """
        return self._run(self._set_many(data, self._names_of(data, version), self._seconds(timeout)))

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """See set_many()."""
        return await self._arun(self._set_many(data, self._names_of(data, version), self._seconds(timeout)))

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Remove several keys, in two requests or a few."""
        return self._run(self._delete_many(self._names_of(keys, version)))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """See delete_many()."""
        return await self._arun(self._delete_many(self._names_of(keys, version)))

    def incr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Add ``delta`` to the value of ``key`` and return the sum; the timeout stays. Atomic, of any size.

        Raises ``ValueError`` when ``key`` is not there.
        """
        return self._run(counters.add(self._store, key, self._name(key, version), delta))

    async def aincr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """See incr()."""
        return await self._arun(counters.add(self._store, key, self._name(key, version), delta))

    def decr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Subtract ``delta`` from the value of ``key`` and return the rest; see incr()."""
        return self._run(counters.add(self._store, key, self._name(key, version), -delta))

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """See decr()."""
        return await self._arun(counters.add(self._store, key, self._name(key, version), -delta))

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move the value of ``key`` up by ``delta`` versions and return the new version; the timeout stays.

        The new place is written before the old one is removed: no change is lost, and at no moment is the value
        nowhere. Raises ``ValueError`` when ``key`` is not there.
        """
        return self._run(self._incr_version(key, delta, self.version if version is None else version))

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See incr_version()."""
        return await self._arun(self._incr_version(key, delta, self.version if version is None else version))

    def decr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move the value of ``key`` down by ``delta`` versions; see incr_version()."""
        return self.incr_version(key, -delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See decr_version()."""
        return await self.aincr_version(key, -delta, version)

    def clear(self) -> None:
        """Remove everything that belongs to this cache's KEY_PREFIX, or, when it has none, everything in the bucket."""
        return self._run(clearing.clear(self._store))

    async def aclear(self) -> None:
        """See clear()."""
        return await self._arun(clearing.clear(self._store))

    def close(self, **kwargs: Any) -> None:
        """Do nothing: the connection belongs to the process, and Django calls this after every request."""

    async def aclose(self, **kwargs: Any) -> None:
        """See close()."""

    # --- the operations behind both faces ---

    def _get(self, stored: str, default: Any) -> Operation[Any]:
        value = yield from self._store.load(stored)
        return default if value is MISSING else value

    def _get_many(self, names: Mapping[str, Any]) -> Operation[dict[Any, Any]]:
        found = yield from self._store.find_many(names)
        values = {}
        for stored, each in found.items():
            value = yield from self._store.value(stored, each)
            if value is not MISSING:
                values[names[stored]] = value
        return values

    def _set(self, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[None]:
        yield from self._make_room(stored)
        yield from writes.put(self._store, key, stored, value, seconds)

    def _add(self, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[bool]:
        yield from self._make_room(stored)
        return (yield from writes.add(self._store, key, stored, value, seconds))

    def _set_many(
        self, data: Mapping[Any, Any], names: Mapping[str, Any], seconds: float | None
    ) -> Operation[list[Any]]:
        if self._bounded:
            for stored, key in names.items():
                yield from self._set(key, stored, data[key], seconds)
            return []
        values = {stored: (key, data[key]) for stored, key in names.items()}
        failed = yield from writes.put_many(self._store, values, seconds)
        return [names[stored] for stored in failed]

    def _delete_many(self, names: Mapping[str, Any]) -> Operation[None]:
        yield from writes.delete_many(self._store, names)

    def _incr_version(self, key: Any, delta: int, version: Any) -> Operation[Any]:
        target = version + delta
        yield from counters.move(self._store, key, self._name(key, version), self._name(key, target))
        return target

    def _make_room(self, stored: str) -> Operation[None]:
        if self._bounded:
            yield from clearing.make_room(self._store, stored, self._max_entries, self._cull_frequency)

    # --- names and times ---

    @property
    def _place(self) -> Place:
        return self._store.place

    @property
    def _store(self) -> Store:
        store = self._opened
        if store is None:
            store = self._opened = store_of(place_of(self._location, self._params), str(self.key_prefix))
        return store

    def _run(self, operation: Operation[T]) -> T:
        return run(operation)

    async def _arun(self, operation: Operation[T]) -> T:
        return await arun(operation)

    def _name(self, key: Any, version: Any) -> str:
        """Return the stored key of ``key``, with the warnings that Django gives for some."""
        if version is None:
            version = self.version
        plain = type(key) is str and type(version) is int
        if plain and (known := self._names.get((key, version))) is not None:
            return known
        made = self.make_key(key, version)
        self.validate_key(made)
        if self.key_func is default_key_func and type(self).make_key is BaseCache.make_key:
            stored = keys.encode(str(self.key_prefix), version, key)
        else:
            stored = keys.encode_made(str(self.key_prefix), str(made))
        if plain and not any(memcache_key_warnings(str(made))):  # those are given each time
            if len(self._names) >= _KNOWN:
                self._names.clear()
            self._names[key, version] = stored
        return stored

    def _names_of(self, keys: Iterable[Any], version: Any) -> dict[str, Any]:
        return {self._name(key, version): key for key in keys}

    def _seconds(self, timeout: Any) -> float | None:
        return seconds_of(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)
