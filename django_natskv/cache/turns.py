"""Turns: callers of one process who read and write the same key do so one after the other.

Owns who is next. Knows nothing of what is done in a turn: whoever waits too long goes on without one, and the
compare-and-set decides, as it does between processes.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from concurrent.futures import Future, TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TypeVar

from django_natskv.cache.steps import Operation

T = TypeVar("T")

LONGEST_WAIT = 1.0  # seconds: who has the turn may be waiting for a server that does not answer, or for us


class Turns:
    """The turns that callers of this process have, by the names of keys."""

    def __init__(self) -> None:
        self.forked()
        _all.add(self)

    def forked(self) -> None:
        """Take, in a forked child, that nobody has a turn here: who had one stayed in the parent."""
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Future[None]]] = {}

    def in_turn(self, name: str, operation: Operation[T]) -> Operation[T]:
        """Carry ``operation`` out when everybody who came before for ``name`` is done."""
        turn = self._enter(name)
        mine = turn is None
        try:
            if turn is not None:
                yield _Wait(turn)
                self._has(name, turn)
                mine = True  # even if it never came: who had it may be gone for good, and nobody else would pass it on
            return (yield from operation)
        finally:
            if mine or (turn is not None and self._has(name, turn)):
                self._leave(name)

    def _enter(self, name: str) -> Future[None] | None:
        """Take the turn, if nobody has it; else return what is done when it comes."""
        with self._lock:
            line = self._lines.get(name)
            if line is None:
                self._lines[name] = deque()
                return None
            turn: Future[None] = Future()
            line.append(turn)
            return turn

    def _has(self, name: str, turn: Future[None]) -> bool:
        """Tell whether the turn has come; whoever has waited for long enough leaves the line."""
        with self._lock:
            with suppress(ValueError):
                self._lines.get(name, _NOBODY).remove(turn)
            return turn.done()

    def _leave(self, name: str) -> None:
        with self._lock:
            line = self._lines.get(name)
            if line:
                line.popleft().set_result(None)
            elif line is not None:
                del self._lines[name]


_NOBODY: deque[Future[None]] = deque()


class _Wait:
    """The wait for a turn, which ends without it after ``LONGEST_WAIT``."""

    __slots__ = ("turn",)

    def __init__(self, turn: Future[None]) -> None:
        self.turn = turn

    def block(self) -> None:
        """See Step."""
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            return  # a task of this very loop may have the turn, and could never give it back
        with suppress(FutureTimeoutError):
            self.turn.result(LONGEST_WAIT)

    async def wait(self) -> None:
        """See Step."""
        # Shielded, or a wait that is over would cancel the turn, which may come at that moment.
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self.turn)), LONGEST_WAIT)


def _forked() -> None:
    for turns in list(_all):
        turns.forked()


_all: weakref.WeakSet[Turns] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
