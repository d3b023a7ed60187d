"""NatsKVCache: Django's cache API on a bucket.

Owns the two faces and what they promise. Knows nothing of how an operation is carried out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from django_natskv.cache import clearing, counters, extras, writes
from django_natskv.cache.inside import Inside
from django_natskv.cache.locks import TIMEOUT, Lock
from django_natskv.cache.near import ABSENT, UNKNOWN
from django_natskv.cache.steps import arun, run


class NatsKVCache(Inside):
    """Django's cache, kept in a bucket of NATS Key/Value.

    Every operation has two faces: the plain name blocks, the ``a`` name is awaited, from any event loop. Safe to use
    from any thread. Nothing is read from settings and nothing connects before the first operation.

    All operations may raise ``OperationalError`` while the server cannot be reached, unless ON_ERROR is "miss".
    """

    # --- Django's ---

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` when it is not there.

        Not there is what was never set, has expired or was removed, and what cannot be verified or unpickled.
        """
        stored = self._name(key, version)
        held = self._held(stored)
        if held is not UNKNOWN:
            return default if held is ABSENT else held
        return self._run(self._get(stored, default), default)

    async def aget(self, key: Any, default: Any = None, version: Any = None) -> Any:
        """See get()."""
        stored = self._name(key, version)
        held = self._held(stored)
        if held is not UNKNOWN:
            return default if held is ABSENT else held
        return await self._arun(self._get(stored, default), default)

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
        return self._run(self._add(key, self._name(key, version), value, self._seconds(timeout)), False)

    async def aadd(self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See add()."""
        return await self._arun(self._add(key, self._name(key, version), value, self._seconds(timeout)), False)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """Give ``key`` another timeout and leave its value; tell whether it is there. Atomic."""
        return self._run(writes.touch(self._store, self._name(key, version), self._seconds(timeout)), False)

    async def atouch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> bool:
        """See touch()."""
        return await self._arun(writes.touch(self._store, self._name(key, version), self._seconds(timeout)), False)

    def delete(self, key: Any, version: Any = None) -> bool:
        """Remove ``key``; tell whether it was there."""
        return self._run(writes.delete(self._store, self._name(key, version)), False)

    async def adelete(self, key: Any, version: Any = None) -> bool:
        """See delete()."""
        return await self._arun(writes.delete(self._store, self._name(key, version)), False)

    def has_key(self, key: Any, version: Any = None) -> bool:
        """Tell whether ``key`` is there."""
        return self._run(self._has(self._name(key, version)), False)

    async def ahas_key(self, key: Any, version: Any = None) -> bool:
        """See has_key()."""
        return await self._arun(self._has(self._name(key, version)), False)

    def get_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """Return the values of those of ``keys`` that are there, by key. One request for 1,024 keys."""
        return self._run(self._get_many(self._names_of(keys, version)), {})

    async def aget_many(self, keys: Iterable[Any], version: Any = None) -> dict[Any, Any]:
        """See get_many()."""
        return await self._arun(self._get_many(self._names_of(keys, version)), {})

    def set_many(self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None) -> list[Any]:
        """Write several values by key, side by side; return the keys of those that could not be written.

        ``timeout`` as in set(). What pickling raises passes, and nothing was written then.
        """
        return self._run(self._set_many(data, self._names_of(data, version), self._seconds(timeout)), list(data))

    async def aset_many(
        self, data: Mapping[Any, Any], timeout: Any = DEFAULT_TIMEOUT, version: Any = None
    ) -> list[Any]:
        """See set_many()."""
        return await self._arun(self._set_many(data, self._names_of(data, version), self._seconds(timeout)), list(data))

    def delete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """Remove several keys, side by side."""
        return self._run(self._delete_many(self._names_of(keys, version)))

    async def adelete_many(self, keys: Iterable[Any], version: Any = None) -> None:
        """See delete_many()."""
        return await self._arun(self._delete_many(self._names_of(keys, version)))

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        lock: bool = False,
    ) -> Any:
        """Return the value of ``key``; when it is not there, write ``default`` and return what is there then.

        ``default`` may be a callable, which is called in one thread or task of this process at a time for a key, while
        the others wait for what it returns; awaited, it may return an awaitable. With ``lock`` in one process at a time
        too. When it raises, the next that waits calls it. It may use the cache, this very key included.
        """
        return run(self._get_or_set(key, self._name(key, version), default, self._seconds(timeout), lock=lock))

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        lock: bool = False,
    ) -> Any:
        """See get_or_set()."""
        return await arun(self._get_or_set(key, self._name(key, version), default, self._seconds(timeout), lock=lock))

    def incr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Add ``delta`` to the value of ``key`` and return the sum; the timeout stays. Atomic, of any size.

        Raises ``ValueError`` when ``key`` is not there.
        """
        return self._run(counters.add(self._store, key, self._name(key, version), delta), counters.missing(key))

    async def aincr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """See incr()."""
        return await self._arun(counters.add(self._store, key, self._name(key, version), delta), counters.missing(key))

    def decr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """Subtract ``delta`` from the value of ``key`` and return the rest; see incr()."""
        return self._run(counters.add(self._store, key, self._name(key, version), -delta), counters.missing(key))

    async def adecr(self, key: Any, delta: Any = 1, version: Any = None) -> Any:
        """See decr()."""
        return await self._arun(counters.add(self._store, key, self._name(key, version), -delta), counters.missing(key))

    def incr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """Move the value of ``key`` up by ``delta`` versions and return the new version; the timeout stays.

        The new place is written before the old one is removed: no change is lost, and at no moment is the value
        nowhere. Raises ``ValueError`` when ``key`` is not there.
        """
        return self._run(self._incr_version(key, delta, version), counters.missing(key))

    async def aincr_version(self, key: Any, delta: int = 1, version: Any = None) -> Any:
        """See incr_version()."""
        return await self._arun(self._incr_version(key, delta, version), counters.missing(key))

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

    # --- beyond Django's ---

    def ttl(self, key: Any, version: Any = None) -> float | None:
        """Return the seconds until ``key`` expires; None if it never does, 0.0 when it is not there."""
        return self._run(extras.ttl(self._store, self._name(key, version)), 0.0)

    async def attl(self, key: Any, version: Any = None) -> float | None:
        """See ttl()."""
        return await self._arun(extras.ttl(self._store, self._name(key, version)), 0.0)

    def expire(self, key: Any, timeout: Any, version: Any = None) -> bool:
        """Let ``key`` expire in ``timeout`` seconds; tell whether it is there. As touch(), with no default."""
        return self.touch(key, timeout, version)

    async def aexpire(self, key: Any, timeout: Any, version: Any = None) -> bool:
        """See expire()."""
        return await self.atouch(key, timeout, version)

    def persist(self, key: Any, version: Any = None) -> bool:
        """Let ``key`` never expire; tell whether it is there."""
        return self.touch(key, None, version)

    async def apersist(self, key: Any, version: Any = None) -> bool:
        """See persist()."""
        return await self.atouch(key, None, version)

    def keys(self, pattern: str = "*", version: Any = None) -> list[str]:
        """Return the keys that match ``pattern``, in no particular order.

        ``*`` stands for any characters, dots included, ``?`` for one, ``[abc]`` for one of some. What the pattern
        spells out before the first of these narrows what the server is asked for, word by word ("user.7.*"). A key
        may still be listed up to two seconds after it has expired.
        """
        return self._run(extras.listing(self._store, self._search(pattern, version)), [])

    async def akeys(self, pattern: str = "*", version: Any = None) -> list[str]:
        """See keys()."""
        return await self._arun(extras.listing(self._store, self._search(pattern, version)), [])

    def iter_keys(self, pattern: str = "*", version: Any = None) -> Iterator[str]:
        """Return an iterator over the keys that match ``pattern``; see keys().

        The names are asked for when it begins, all at once. What more has to be read of them (the keys that are hashed,
        and in a file bucket whether they are there) is read a thousand at a time, as the iteration comes to them.
        """
        found = self._search(pattern, version)
        names = self._run(extras.search(self._store, found), [])
        for some in extras.portions(names):
            for key in self._run(extras.told(self._store, found, some), {}).values():  # noqa: UP028 - nor can the twin
                yield key

    async def aiter_keys(self, pattern: str = "*", version: Any = None) -> AsyncIterator[str]:
        """See iter_keys()."""
        found = self._search(pattern, version)
        names = await self._arun(extras.search(self._store, found), [])
        for some in extras.portions(names):
            for key in (await self._arun(extras.told(self._store, found, some), {})).values():
                yield key

    def delete_pattern(self, pattern: str, version: Any = None) -> int:
        """Remove the keys that match ``pattern``, as keys() finds them; return how many there were."""
        return self._run(extras.delete_matching(self._store, self._search(pattern, version)), 0)

    async def adelete_pattern(self, pattern: str, version: Any = None) -> int:
        """See delete_pattern()."""
        return await self._arun(extras.delete_matching(self._store, self._search(pattern, version)), 0)

    def get_entry(self, key: Any, version: Any = None) -> extras.CacheEntry | None:
        """Return the value of ``key`` with its revision and times, or None when it is not there."""
        return self._run(extras.entry(self._store, key, self._name(key, version)))

    async def aget_entry(self, key: Any, version: Any = None) -> extras.CacheEntry | None:
        """See get_entry()."""
        return await self._arun(extras.entry(self._store, key, self._name(key, version)))

    def compare_and_set(
        self, key: Any, value: Any, revision: int, timeout: Any = extras.KEEP, version: Any = None
    ) -> int | None:
        """Write ``value`` if ``revision`` (of get_entry()) is still the newest of ``key``.

        Returns the new revision, or None when the key was changed or removed since. The time of expiry stays, unless
        ``timeout`` is given.
        """
        return self._run(self._compare_and_set(key, self._name(key, version), value, revision, timeout))

    async def acompare_and_set(
        self, key: Any, value: Any, revision: int, timeout: Any = extras.KEEP, version: Any = None
    ) -> int | None:
        """See compare_and_set()."""
        return await self._arun(self._compare_and_set(key, self._name(key, version), value, revision, timeout))

    def lock(self, name: str, timeout: float = TIMEOUT) -> Lock:
        """Return the lock ``name``, which one holder has in all processes that use this cache and KEY_PREFIX.

        ``timeout`` is the length of its lease in seconds: how long others wait for a holder that died. The lease is
        renewed while the lock is held.
        """
        return Lock(self._place, str(self.key_prefix), name, timeout)

    @property
    def unreadable(self) -> int:
        """How many times this process met a value that could not be verified or unpickled, and counted as missing."""
        return self._store.unreadable

    def close(self, **kwargs: Any) -> None:
        """Do nothing: the connection belongs to the process, and Django calls this after every request."""

    async def aclose(self, **kwargs: Any) -> None:
        """See close()."""
