"""An event loop that a fork may leave behind, and its selector.

Owns how they differ from asyncio's own. Knows nothing of who drives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import warnings
from collections.abc import Callable
from typing import Any

_PASSED = 3  # turns of the loop in a row that do not look for news from outside


class Selector(selectors.DefaultSelector):
    """A selector that is not asked between callbacks that are ready, three times in a row at most.

    asyncio asks it before each turn, also when it will not wait; a request takes three turns, of which one has to wait.
    """

    _passed = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0 and self._passed < _PASSED:
            self._passed += 1
            return []
        self._passed = 0
        return super().select(timeout)


class Loop(asyncio.SelectorEventLoop):
    """An event loop that leaves what it inherited alone: a fork shares the selector with the parent (F13)."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self._made_in = os.getpid()
        # In development mode asyncio reports slow callbacks: of use to those who write some, and nobody does here.
        self.slow_callback_duration = float("inf")

    def __del__(self, _getpid: Callable[[], int] = os.getpid, _warn: Any = warnings.warn) -> None:
        if self._made_in == _getpid():
            super().__del__(_warn)  # type: ignore[call-arg]  # as asyncio defines it


def cut_off(fileno: int) -> None:
    """Put the null device in the place of an inherited descriptor.

    The number stays taken, so that no later file gets it and is closed or watched in the old one's name.
    """
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, fileno, inheritable=False)
        finally:
            os.close(null)
