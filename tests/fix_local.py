"""Local caches for the tests, and what they are held against.

Owns no server; knows nothing of how a copy is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_natskv.exceptions import OperationalError
from django_natskv.kv import LocalCache
from tests.fix_waiting import eventually


def live(cache: LocalCache[Any], timeout: float = 30.0) -> LocalCache[Any]:
    """Wait until ``cache`` is live, and return it."""
    cache.start()
    eventually(lambda: cache.status().state == "live", timeout, f"{cache!r} is live: {cache.status().reason}")
    return cache


def feed(cache: LocalCache[Any]) -> Any:
    """Return what feeds ``cache``, for tests that look behind the face."""
    return cache._feed


def run_of(cache: LocalCache[Any]) -> Any:
    """Return something that is the same object as long as the watch of a mirror goes on unbroken."""
    return cache._feed.mirror.entries if cache._feed is not None else None


def held(cache: LocalCache[Any]) -> dict[str, tuple[Any, int]]:
    """Return value and revision of all that ``cache`` holds."""
    return {key: (entry.value, entry.revision) for key, entry in cache.items().items()}


def stored(bucket: Any) -> dict[str, tuple[Any, int]]:
    """Return value and revision of all that is in ``bucket``."""
    return {key: (entry.value, entry.revision) for key, entry in bucket.get_many(bucket.keys()).items()}


def equal(cache: LocalCache[Any], bucket: Any, timeout: float = 30.0) -> None:
    """Wait until ``cache`` is live and holds what is in ``bucket``."""

    def same() -> bool:
        try:
            return cache.status().state == "live" and held(cache) == stored(bucket)
        except OperationalError:  # the bucket cannot be read yet
            return False

    eventually(same, timeout, f"{cache!r} is equal to {bucket!r}")


def insist(write: Callable[..., Any], *arguments: Any) -> None:
    """Call ``write`` until the connection is back."""

    def written() -> bool:
        try:
            write(*arguments)
        except OperationalError:
            return False
        return True

    eventually(written, 30, "written")
