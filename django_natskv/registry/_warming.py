"""Warming: the copies of the registry's buckets in this process, all at once.

Owns how they are begun, waited for and told of. Knows nothing of objects.
"""

from __future__ import annotations

import asyncio

from django_natskv.kv import LocalCacheStatus
from django_natskv.registry._place import places


def start() -> None:
    """Begin to copy every bucket that a declared class is kept in; for hooks that run in each worker.

    Returns at once. Without it the first read begins, and waits.
    """
    for place in places():
        place.cache.start()


def wait_ready(timeout: float | None = None) -> bool:
    """Begin, and wait until all are complete, up to ``timeout`` seconds each (LOCAL_CACHE["WAIT"]); tell whether.

    A bucket that nobody has made yet is not complete.
    """
    start()
    return all(place.cache.wait_ready(timeout) for place in places())


async def await_ready(timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as wait_ready()
    """See wait_ready(). For the lifespan of an asynchronous application, whose loop the first read would hold up."""
    start()
    return all(await asyncio.gather(*(place.cache.await_ready(timeout) for place in places())))


def status() -> dict[tuple[str, str], LocalCacheStatus]:
    """Return what the copy of each bucket is worth now, by connection and bucket. Starts nothing, never waits.

    ``undecodable`` counts the keys of which this process has read something that it could not decode.
    """
    return {(place.alias, place.bucket): place.status() for place in places()}
