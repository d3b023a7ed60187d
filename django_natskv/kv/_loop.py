"""An event loop that a fork may leave behind, and its selector.

Owns how they differ from asyncio's own. Knows nothing of who drives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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
    """An event loop that leaves what it inherited alone, and that no blocking call keeps the process from ending for.

    A fork shares the selector with the parent (F13).
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self._made_in = os.getpid()
        # In development mode asyncio reports slow callbacks: of use to those who write some, and nobody does here.
        self.slow_callback_duration = float("inf")

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run ``func`` on a thread of its own, unless ``executor`` is given.

        asyncio's own pool would be waited for at the end of the process, and a name that nobody resolves can take half
        a minute; a few of those would also fill the pool, and no other name be looked up.
        """
        if executor is not None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[T] = self.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(error)

        def run() -> None:
            result, error = None, None
            try:
                result = func(*args)
            except Exception as raised:  # noqa: BLE001 - for whoever awaits it
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                self.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=run, name="natskv-aside", daemon=True).start()
        return future

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
