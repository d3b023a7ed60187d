"""The peers: who else could do the work of a bucket.

Owns how each is opened and called. Knows nothing of rounds and clocks.

Each gives what its users get: a bucket an Entry, Django's cache the unpickled value, the others bytes. ``PickleCodec``
gives the bucket the same work as Django's cache does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pickle
import threading
from collections.abc import Iterator
from typing import Any

from django.core.cache import caches

from benchmarks.load import Do, DoAsync, Open, OpenAsync
from benchmarks.servers import Missing
from django_natskv import connections

BUCKET = "bucket"
BUCKET_PICKLE = "bucket, pickled"
DJANGO = "RedisCache"
REDIS = "redis-py"
REDIS_ASYNC = "redis.asyncio"
BRIDGE = "naive bridge"
NATS = "nats-py, its own loop"


class PickleCodec:
    """What Django's RedisCache does to a value: pickled, unless it is a whole number."""

    def encode(self, value: Any) -> bytes:
        if type(value) is int:
            return str(value).encode()
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, data: bytes) -> Any:
        try:
            return int(data)
        except ValueError:
            return pickle.loads(data)


def library(name: str) -> Any:
    """Return a module that is not among the package's own requirements."""
    try:
        return importlib.import_module(name)
    except ImportError:
        message = f"{name} is not installed: pip install 'django-natskv[bench]'."
        raise Missing(message) from None


def bucket(name: str, verb: str, value: bytes, codec: Any = "bytes") -> Open:
    opened = connections["default"].kv().open_bucket(name, codec=codec)
    return lambda: _bound(opened.get, opened.put, verb, value)


def bucket_async(name: str, verb: str, value: bytes) -> OpenAsync:
    opened = connections["default"].kv().open_bucket(name, codec="bytes")

    async def begin() -> DoAsync:
        return _bound(opened.aget, opened.aput, verb, value)

    return begin


def django_cache(alias: str, verb: str, value: bytes) -> Open:
    """Django's own cache, one a thread as ``caches`` gives them; ``timeout=None``, for a bucket's entries stay too."""

    def begin() -> Do:
        cache = caches[alias]
        return _bound(cache.get, lambda key, value: cache.set(key, value, None), verb, value)

    return begin


def django_cache_async(alias: str, verb: str, value: bytes) -> OpenAsync:
    async def begin() -> DoAsync:
        cache = caches[alias]
        return _bound(cache.aget, lambda key, value: cache.aset(key, value, None), verb, value)

    return begin


def redis_sync(url: str, verb: str, value: bytes) -> Open:
    client = library("redis").Redis.from_url(url)
    return lambda: _bound(client.get, client.set, verb, value)


def redis_async(url: str, verb: str, value: bytes) -> OpenAsync:
    async def begin() -> DoAsync:
        client = library("redis.asyncio").Redis.from_url(url)
        return _bound(client.get, client.set, verb, value)

    return begin


class Bridge:
    """The bridge that everybody writes first: an event loop in a thread, and nats-py's own key-value client in it."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = self.run(importlib.import_module("nats").connect(url))

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def sync(self, name: str, verb: str, value: bytes) -> Open:
        kv = self.run(self._client.jetstream().key_value(name))
        run = self.run
        return lambda: _bound(lambda key: run(kv.get(key)), lambda key, value: run(kv.put(key, value)), verb, value)

    def awaited(self, name: str, verb: str, value: bytes) -> OpenAsync:
        kv = self.run(self._client.jetstream().key_value(name))

        def run(coroutine: Any) -> Any:
            return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

        async def begin() -> DoAsync:
            return _bound(lambda key: run(kv.get(key)), lambda key, value: run(kv.put(key, value)), verb, value)

        return begin

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.contextmanager
def bridge(url: str) -> Iterator[Bridge]:
    made = Bridge(url)
    try:
        yield made
    finally:
        made.close()


def nats_on_its_loop(url: str, name: str, verb: str, value: bytes) -> OpenAsync:
    """nats-py's own key-value client with a connection on the caller's event loop: no change of thread at all."""

    async def begin() -> DoAsync:
        client = await importlib.import_module("nats").connect(url)
        kv = await client.jetstream().key_value(name)
        return _bound(kv.get, kv.put, verb, value)

    return begin


def _bound(get: Any, put: Any, verb: str, value: bytes) -> Any:
    return get if verb == "get" else lambda key: put(key, value)
