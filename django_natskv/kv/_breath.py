"""Pauses in long work, so that the other threads of the process keep their pace beside it.

Owns when a thread lets go of the interpreter lock, and for how long. Knows nothing of what the work is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

# Seconds of a thread's processor time: while requests are made, and else. A thread that waits for the lock would ask
# for it only after 5 ms (the switch interval), and a request waits for it several times; what other slices come to is
# in docs/explanation/performance.md.
SHORT, LONG = 250e-6, 1e-3
RECENT = 0.02  # seconds from a request in which others are expected
_NAP = 1e-6  # seconds, of which a system makes some 60: to let go without a sleep mostly gets the lock back at once
_PART = 16  # items from breath to breath

_thread = threading.local()
_latest_request = 0.0


def requested(now: float) -> None:
    """Take that a request begins, at ``now`` on the monotonic clock: it is not to wait long for a thread that works."""
    global _latest_request  # noqa: PLW0603 - one interpreter lock a process, and no lock for this
    _latest_request = now


def breathe() -> None:
    """Let others have the interpreter for a moment, if this thread has worked for a slice since it last did.

    Cheap enough for every hundredth part of a millisecond's work.
    """
    now = time.thread_time()
    worked = now - getattr(_thread, "since", 0.0)
    if worked < SHORT or (worked < LONG and time.monotonic() - _latest_request > RECENT):
        return
    time.sleep(_NAP)
    _thread.since = now


def paced(items: Iterable[T]) -> Iterator[T]:
    """Yield ``items``, each of little work, and breathe now and then."""
    for position, item in enumerate(items):
        if not position % _PART:
            breathe()
        yield item
