"""Suite ``cache``: every operation of Django's cache, ours beside its peers, blocking and awaited.

Owns which peers meet over which work. Knows nothing of how they are timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from django.conf import settings
from django.core.cache import caches

from benchmarks import floor, load
from benchmarks.load import KEYS, Do, DoAsync, Open, OpenAsync
from benchmarks.pairs import Contest
from benchmarks.request import SIZES, TASKS, THREADS
from benchmarks.servers import Servers
from benchmarks.setup import BUCKETS, DJANGO_REDIS, INVALIDATE, LOCMEM, MEMCACHED, MIRROR, OURS
from django_natskv.signals import initialized

DJANGO = "RedisCache"
ALIASES = {  # by peer
    DJANGO: "memory",
    "django-redis": DJANGO_REDIS,
    "PyMemcacheCache": MEMCACHED,
    "LocMemCache": LOCMEM,
    "NatsKVCache": OURS,
}
NATSKV = "NatsKVCache"
LOCALS = {"LocMemCache": LOCMEM, f"{NATSKV}, mirror": MIRROR, f"{NATSKV}, invalidate": INVALIDATE}

SINGLE, MANY, EQUAL = 1.2, 1.5, 1.0  # times of RedisCache: one key, 100 keys; and eight threads, or LocMemCache
PREPARED = 8  # operations a batch where each uses up 100 keys

_unique = itertools.count()
_live: set[str] = set()  # aliases whose local cache was started


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. With a ``count``, for a quick look, only some of them."""
    found = peers()
    yield from held(count)
    for size, verb in product(("100 B",) if count else SIZES, SMOKE if count else OPERATIONS):
        if verb in SIZELESS and size != "100 B":
            continue
        for alias in found.values():
            fill(alias, bytes(SIZES[size]))
        name = f"cache {verb}" if verb in SIZELESS else f"cache {verb} {size}"
        yield from blocking(name, verb, found, bytes(SIZES[size]), servers.nats)
        yield from awaited(name, verb, found, bytes(SIZES[size]))


def peers() -> dict[str, str]:
    """Return the aliases of the caches that can be measured here."""
    return {peer: alias for peer, alias in ALIASES.items() if alias in settings.CACHES}


def fill(alias: str, value: Any) -> None:
    """Write every key that is read, and take away what is to be missing."""
    cache = caches[alias]
    cache.set_many(dict.fromkeys(KEYS, value))
    for number, key in itertools.product(range(THREADS + 1), KEYS):
        cache.add(f"counter.{number}.{key}", 0)


# --- what is held in the process itself ---


def held(count: int | None) -> Iterator[Contest]:
    """Read what a local cache holds, beside LocMemCache: a value that needs no copy, and one that does."""
    values = {**{size: bytes(length) for size, length in SIZES.items()}, "a dict": {"name": "x" * 40, "ids": [1, 2, 3]}}
    for name, value in values.items():
        for alias in LOCALS.values():
            fill_held(alias, value)
        targets = dict.fromkeys(LOCALS, EQUAL)
        found: dict[str, Open] = {peer: opener(alias, "get", value) for peer, alias in LOCALS.items()}
        alone = {peer: load.alone(opened) for peer, opened in found.items()}
        yield Contest(f"local get {name}, 1 thread", "LocMemCache", alone, targets, count)
        with contextlib.ExitStack() as stack:
            several = {peer: stack.enter_context(load.threads(opened, THREADS)) for peer, opened in found.items()}
            yield Contest(f"local get {name}, {THREADS} threads", "LocMemCache", several, targets, count)


def fill_held(alias: str, value: Any) -> None:
    cache = caches[alias]
    live = threading.Event()

    def begun(bucket: str, **_: Any) -> None:
        if bucket == BUCKETS.get(alias):
            live.set()

    initialized.connect(begun)
    cache.set_many(dict.fromkeys(KEYS, value))
    cache.get(KEYS[0])  # the first one starts the local cache
    if alias not in _live and alias in BUCKETS and not live.wait(60):
        message = f"the local cache of {alias} was not live within a minute"
        raise RuntimeError(message)
    initialized.disconnect(begun)
    _live.add(alias)
    for key in KEYS:
        cache.get(key)


# --- what is asked of a server ---


def blocking(name: str, verb: str, found: dict[str, str], value: bytes, url: str) -> Iterator[Contest]:
    baseline = next(iter(found))
    openers = {peer: opener(alias, verb, value) for peer, alias in found.items()}
    alone = {peer: load.alone(opened) for peer, opened in openers.items()}
    bound = MANY if verb.endswith("_many") else SINGLE
    each = PREPARED if verb == "delete_many" else None
    if verb in floor.VERBS:
        alone[floor.FLOOR] = load.alone(floor.opener(url, verb))
    yield Contest(f"{name}, 1 thread", baseline, alone, {NATSKV: bound}, each)
    with contextlib.ExitStack() as stack:
        several = {peer: stack.enter_context(load.threads(opened, THREADS)) for peer, opened in openers.items()}
        bound = MANY if verb.endswith("_many") else EQUAL
        yield Contest(f"{name}, {THREADS} threads", baseline, several, {NATSKV: bound}, each)


def awaited(name: str, verb: str, found: dict[str, str], value: bytes) -> Iterator[Contest]:
    baseline = next(iter(found))
    many = verb.endswith("_many")
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        for number in (1,) if many else (1, TASKS):
            several = {
                peer: load.tasks(loop, opener_async(alias, verb, value), number) for peer, alias in found.items()
            }
            bound = {NATSKV: EQUAL}
            title = f"{name}, {number} task{'s' * (number > 1)}"
            yield Contest(title, baseline, several, bound, PREPARED if many else None)


def opener(alias: str, verb: str, value: Any) -> Open:
    """One cache object a thread, as Django has it."""

    def begin() -> Do:
        return OPERATIONS[verb](caches[alias], "", value)

    return begin


def opener_async(alias: str, verb: str, value: Any) -> OpenAsync:
    async def begin() -> DoAsync:
        return OPERATIONS[verb](caches[alias], "a", value)

    return begin


# --- the operations: what they are called with, on either face ---


def _plain(verb: str) -> Callable[[Any, str, Any], Any]:
    return lambda cache, face, _value: getattr(cache, face + verb)


def _with_value(verb: str) -> Callable[[Any, str, Any], Any]:
    def make(cache: Any, face: str, value: Any) -> Any:
        do = getattr(cache, face + verb)
        return lambda key: do(key, value)

    return make


def _get_absent(cache: Any, face: str, _value: Any) -> Any:
    do = getattr(cache, f"{face}get")
    return lambda key: do(f"absent.{key}")


def _add_new(cache: Any, face: str, value: Any) -> Any:
    do = getattr(cache, f"{face}add")
    return lambda _key: do(f"new.{next(_unique)}", value)


def _incr(cache: Any, face: str, _value: Any) -> Any:
    """Each of the threads counts on keys of its own."""
    do, number = getattr(cache, f"{face}incr"), next(_unique) % THREADS
    return lambda key: do(f"counter.{number}.{key}")


def _incr_shared(cache: Any, face: str, _value: Any) -> Any:
    do = getattr(cache, f"{face}incr")
    return lambda _key: do(f"counter.{THREADS}.{KEYS[0]}")


def _get_many(cache: Any, face: str, _value: Any) -> Any:
    do = getattr(cache, f"{face}get_many")
    return lambda _key: do(KEYS)


def _set_many(cache: Any, face: str, value: Any) -> Any:
    do, data = getattr(cache, f"{face}set_many"), dict.fromkeys(KEYS, value)
    return lambda _key: do(data)


def _delete(cache: Any, face: str, value: Any) -> Any:
    do = getattr(cache, f"{face}delete")
    return load.Consuming(lambda keys: cache.set_many(dict.fromkeys(keys, value)), lambda keys: do(keys[0]), 1)


def _delete_many(cache: Any, face: str, value: Any) -> Any:
    do = getattr(cache, f"{face}delete_many")
    return load.Consuming(lambda keys: cache.set_many(dict.fromkeys(keys, value)), do, len(KEYS))


OPERATIONS: dict[str, Callable[[Any, str, Any], Any]] = {
    "get": _plain("get"),
    "get absent": _get_absent,
    "has_key": _plain("has_key"),
    "set": _with_value("set"),
    "add new": _add_new,
    "add there": _with_value("add"),
    "touch": _plain("touch"),
    "get_or_set there": _with_value("get_or_set"),
    "incr": _incr,
    "incr one key": _incr_shared,
    "delete": _delete,
    "get_many": _get_many,
    "set_many": _set_many,
    "delete_many": _delete_many,
}
SMOKE = ("get", "delete", "get_many")
SIZELESS = ("get absent", "incr", "incr one key")
