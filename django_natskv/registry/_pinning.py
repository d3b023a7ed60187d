"""Pinning: one moment of the registry for a request, or for any other piece of work.

Owns the context manager. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django_natskv.registry import _views


@contextmanager
def snapshot() -> Iterator[None]:
    """Let all reads of configs and models inside give what they gave the first time; in sync and async code alike.

    Each bucket is pinned when it is first read. A save inside makes the next read of its bucket pin it anew. Nested
    ones join the outermost.
    """
    before = _views.view.get()
    mine = _views.pinned()
    _views.view.set(mine)
    try:
        yield
    finally:
        if before is None or before.pin is None:
            _views.view.set(before if _views.view.get() is mine else _views.unpinned(mine.pin))
