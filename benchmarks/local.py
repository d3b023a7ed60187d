"""Suite ``local``: what a read of a local cache costs, and how fast it is warm.

Owns which peers meet over which work. Knows nothing of how ratios are formed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import watch
from benchmarks.pairs import Batch, Contest, Sample
from benchmarks.servers import Servers
from django_natskv import connections

PLAIN = "dict, through a function"
LOOK_UP_TARGET = 2.0
LOOK_UPS = 50_000  # a batch
ALIAS = "default"


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. ``count`` keys instead of 100,000, for a quick look."""
    keys = count or watch.KEYS
    watch.fill(servers, keys)
    yield look_up(count or LOOK_UPS)
    yield warm_up(servers, keys)


def look_up(count: int) -> Contest:
    """Read one key of a mirror, beside the same of a dict."""
    cache = connections[ALIAS].local_cache(watch.BUCKET, codec="bytes")
    cache.wait_ready(120)
    entries = cache.items()

    def plain(key: str) -> Any:
        return entries.get(key)

    found = {PLAIN: reading(plain), "get": reading(cache.get), "value": reading(cache.value)}
    targets = {"get": LOOK_UP_TARGET, "value": LOOK_UP_TARGET}
    return Contest("look up a key that is there", PLAIN, found, targets, count)


def reading(read: Callable[[str], Any]) -> Batch:
    def batch(count: int) -> Sample:
        turns = range(count)
        began = time.perf_counter()
        for _ in turns:
            read("warm.key-7")
        return {"time": (time.perf_counter() - began) / count}

    return batch


def warm_up(servers: Servers, keys: int) -> Contest:
    """A mirror from nothing to live, beside reading Redis into a dict."""
    found: dict[str, Batch] = {}
    if servers.redis:
        found[watch.SCAN] = watch.once(lambda: watch.scan(servers.redis["memory"]), keys)
    found["mirror"] = watch.once(warm, keys)
    title = f"{keys:,} keys of 100 B into a local cache"
    return Contest(title, next(iter(found)), found, {"mirror": watch.WARM_UP_TARGET}, 1, watch.ROUNDS)


def warm() -> int:
    cache = connections[ALIAS].local_cache(watch.BUCKET, codec="bytes")
    cache.close()
    cache.wait_ready(120)
    return cache.status().entries
