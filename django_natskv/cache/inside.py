"""The inside of a cache object: its keys' names, its times, and the operations that both faces carry out.

Owns what depends on the settings of one cache: KEY_PREFIX, VERSION, KEY_FUNCTION, TIMEOUT, MAX_ENTRIES and ON_ERROR.
Knows nothing of how values are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache, default_key_func, memcache_key_warnings

from django_natskv.cache import clearing, counters, extras, keys as names, making, writes
from django_natskv.cache.chunks import CHUNKS
from django_natskv.cache.lifetime import seconds_of
from django_natskv.cache.near import ABSENT, UNKNOWN
from django_natskv.cache.place import Place, is_away, place_of
from django_natskv.cache.steps import Operation, arun, run
from django_natskv.cache.store import MISSING, Store, store_of

T = TypeVar("T")

_KNOWN = 4096  # names that a cache object remembers


class Inside(BaseCache):
    """What ``NatsKVCache`` is made of. Nothing is read from settings nor connects before the first operation."""

    def __init__(self, location: object, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location
        self._params = params
        self._opened: Store | None = None
        self._held: Callable[[str], Any] = self._held_here
        self._names: dict[tuple[Any, Any], str] = {}
        options = params.get("OPTIONS") or {}
        bounded = params.get("max_entries") is not None or "MAX_ENTRIES" in options
        self._bounded = bounded

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place.name}>"

    # --- the operations behind both faces ---

    def _get(self, stored: str, default: Any) -> Operation[Any]:
        value = yield from self._store.load(stored)
        return default if value is MISSING else value

    def _has(self, stored: str) -> Operation[bool]:
        return (yield from self._store.load(stored)) is not MISSING

    def _get_many(self, wanted: Mapping[str, Any]) -> Operation[dict[Any, Any]]:
        values: dict[Any, Any] = {}
        missing = yield from self._get_near(wanted, values)
        found = (yield from self._store.find_many(missing)) if missing else {}
        store = self._store
        for stored, (entry, _) in found.items():
            if CHUNKS in entry.headers:
                value = yield from store.load_there(stored)
            else:
                value = store.read(stored, entry.value, entry)
            if value is not MISSING:
                values[wanted[stored]] = value
        return values

    def _get_near(self, wanted: Mapping[str, Any], values: dict[Any, Any]) -> Operation[list[str]]:
        """Put what is held in this process into ``values``; return the stored keys that are to be read."""
        near = self._store.near
        if near is None:
            return list(wanted)
        yield from self._place.opened()
        missing = []
        for stored, key in wanted.items():
            held = near.look_up(stored)
            if held is UNKNOWN:
                missing.append(stored)
            elif held is not ABSENT:
                values[key] = held
        return missing

    def _held_here(self, stored: str) -> Any:
        """Return the value that this process holds itself, if it does: else ``UNKNOWN``."""
        near = self._store.near
        self._held = _unknown if near is None else near.look_up
        return self._held(stored)

    def _set(self, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[None]:
        yield from self._make_room(stored)
        yield from writes.put(self._store, key, stored, value, seconds)

    def _add(self, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[bool]:
        yield from self._make_room(stored)
        return (yield from writes.add(self._store, key, stored, value, seconds))

    def _set_many(
        self, data: Mapping[Any, Any], wanted: Mapping[str, Any], seconds: float | None
    ) -> Operation[list[Any]]:
        failed: list[Any] = []
        names = list(wanted)
        at_once = self._max_entries if self._bounded else len(names)
        for start in range(0, len(names), at_once or 1):
            values = {stored: (wanted[stored], data[wanted[stored]]) for stored in names[start : start + at_once]}
            yield from self._make_room(*values)
            errors = yield from writes.put_many(self._store, values, seconds)
            failed.extend(wanted[stored] for stored in errors)
            away = [error for error in errors.values() if is_away(error)]
            if errors and self._place.options.on_error == "miss":
                # An outage is one too where it is told by the keys that failed.
                self._store.outages.met((away or list(errors.values()))[0])
            if away:
                failed.extend(wanted[stored] for stored in names[start + at_once :])
                break
        return failed

    def _delete_many(self, wanted: Mapping[str, Any]) -> Operation[None]:
        yield from writes.remove_many(self._store, wanted)

    def _get_or_set(self, key: Any, stored: str, default: Any, seconds: float | None, *, lock: bool) -> Operation[Any]:
        add = partial(self._add, key, stored, seconds=seconds)
        return making.get_or_set(self._store, self._soften, stored, default, add, lock=lock)

    def _compare_and_set(self, key: Any, stored: str, value: Any, revision: int, timeout: Any) -> Operation[int | None]:
        seconds = timeout if timeout is extras.KEEP else self._seconds(timeout)
        return extras.compare_and_set(self._store, key, stored, value, revision, seconds)

    def _search(self, pattern: str, version: Any) -> names.Search:
        if self._is_plain:
            return names.search(str(self.key_prefix), self.version if version is None else version, pattern)
        return names.search_made(str(self.key_prefix), pattern)

    def _incr_version(self, key: Any, delta: int, version: Any) -> Operation[Any]:
        version = self.version if version is None else version
        target = version + delta
        yield from counters.move(self._store, key, self._name(key, version), self._name(key, target))
        return target

    def _make_room(self, *wanted: str) -> Operation[None]:
        if self._bounded:
            yield from clearing.make_room(self._store, wanted, self._max_entries, self._cull_frequency)

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

    def _run(self, operation: Operation[T], missed: Any = None) -> T:
        return run(self._soften(operation, missed))

    async def _arun(self, operation: Operation[T], missed: Any = None) -> T:
        return await arun(self._soften(operation, missed))

    def _soften(self, operation: Operation[T], missed: Any) -> Operation[T]:
        """Return ``operation`` such that it gives ``missed`` where the cache is to go on without the server."""
        if self._place.options.on_error == "raise":
            return operation
        return self._store.outages.soften(operation, missed)

    def _name(self, key: Any, version: Any) -> str:
        """Return the stored key of ``key``, with the warnings that Django gives for some."""
        if version is None:
            version = self.version
        plain = type(key) is str and type(version) is int
        if plain and (known := self._names.get((key, version))) is not None:
            return known
        made = self.make_key(key, version)
        self.validate_key(made)
        if self._is_plain:
            stored = names.encode(str(self.key_prefix), version, key)
        else:
            stored = names.encode_made(str(self.key_prefix), str(made))
        if plain and not any(memcache_key_warnings(str(made))):  # those are given each time
            if len(self._names) >= _KNOWN:
                self._names.clear()
            self._names[key, version] = stored
        return stored

    @property
    def _is_plain(self) -> bool:
        """Whether keys are made of prefix, version and key as they are."""
        return self.key_func is default_key_func and type(self).make_key is BaseCache.make_key

    def _names_of(self, keys: Iterable[Any], version: Any) -> dict[str, Any]:
        return {self._name(key, version): key for key in keys}

    def _seconds(self, timeout: Any) -> float | None:
        return seconds_of(self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout)


def _unknown(stored: str) -> Any:  # noqa: ARG001
    return UNKNOWN
