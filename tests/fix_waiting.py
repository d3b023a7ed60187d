"""Waiting for conditions. Owns the only sleeps of the test suite; knows nothing of what is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 20.0  # seconds: no promise, but what a process may lack on a busy machine and a test still has


def eventually(condition: Callable[[], T], timeout: float = PATIENCE, message: str = "") -> T:
    """Call ``condition`` until it is true and return what it gave.

    An ``AssertionError`` of the condition counts as "not yet", so that a condition may be made of asserts; the last
    one is the cause of the failure. Raises ``AssertionError`` after ``timeout`` seconds.
    """
    attempts = _attempts(condition, timeout, message)
    for pause, result in attempts:
        if result:
            return result
        time.sleep(pause)
    raise AssertionError(message)  # pragma: no cover - the generator raises first


async def aeventually(
    condition: Callable[[], T],
    timeout: float = PATIENCE,  # noqa: ASYNC109 - the twin of eventually()
    message: str = "",
) -> T:
    """See eventually(); the running loop goes on meanwhile. The condition itself does not wait."""
    for pause, result in _attempts(condition, timeout, message):
        if result:
            return result
        await asyncio.sleep(pause)
    raise AssertionError(message)  # pragma: no cover - the generator raises first


def _attempts(condition: Callable[[], T], timeout: float, message: str) -> Iterator[tuple[float, T | None]]:
    deadline = time.monotonic() + timeout
    pause = 0.001
    while True:
        # Looked at before the condition: a test that was held up until after its deadline has not asked since.
        late = time.monotonic() > deadline
        result: T | None = None
        cause: AssertionError | None = None
        try:
            result = condition()
        except AssertionError as error:
            cause = error
        yield pause, result
        if late:
            what = message or getattr(condition, "__name__", "the condition")
            text = f"not within {timeout} s: {what}; the last result was {result!r}"
            raise AssertionError(text) from cause
        pause = min(pause * 1.5, 0.05)
