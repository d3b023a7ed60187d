"""Once: a value that is missing is made by one caller, and the others wait for it.

Owns who makes it, within a process. Knows nothing of how values are stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django_natskv.cache.steps import Done, Operation, Until

LONGEST_BLOCK = 10.0  # seconds that a thread waits for what an event loop makes, which may itself wait for that thread


class Flight:
    """One making of the value of one key. ``waits`` are the flights that its maker waits for now.

    ``follows`` tells that its maker waited for another one, which may have left the value where it is stored.
    """

    __slots__ = ("done", "follows", "loop", "result", "waits")

    def __init__(self) -> None:
        self.follows = False
        self.done = Done()
        self.loop = _running_loop()
        self.result: Any = None  # what the others may read, once it was made
        self.waits: set[Flight] = set()


_chain: ContextVar[tuple[Flight, ...]] = ContextVar("natskv_flights", default=())


class Flights:
    """The values that are being made in this process, by their names."""

    def __init__(self) -> None:
        self.forked()
        _all.add(self)

    def forked(self) -> None:
        """Take, in a forked child, that nothing is being made here: who made it stayed in the parent."""
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._waiting = 0  # callers

    def once(self, name: str, make: Callable[[Flight], Operation[Any]], found: Callable[[Any], Any]) -> Operation[Any]:
        """Return what ``make`` returns, called by one caller at a time; the others read with ``found`` what it left.

        ``make`` leaves a result on the flight that it is given; one that raises, or leaves none, hands over to the next
        that waits. Whoever could only wait for itself does not wait, and makes the value too.
        """
        follows = False
        while True:
            own = Flight()
            own.follows = follows
            try:
                try:
                    flight = self._join(name, own)
                    if flight is own:
                        return (yield from self._lead(own, make))
                finally:
                    # Around the joining too: a signal's handler may raise at any point, and others would wait for ever.
                    self._land(name, own)
            except BaseException:
                self._land(name, own)  # again: it may have raised in the middle of the first time
                raise
            if flight is None:
                return (yield from make(Flight()))
            try:
                waited = yield Until(flight.done, flight.loop, LONGEST_BLOCK)
            finally:
                self._leave(flight)
            if not waited:
                return (yield from make(Flight()))
            if flight.result is not None:
                return found(flight.result)
            follows = True

    def _lead(self, flight: Flight, make: Callable[[Flight], Operation[Any]]) -> Operation[Any]:
        # What the callable starts, tasks and threads of Django included, inherits this.
        before = _chain.get()
        try:
            _chain.set((*before, flight))
            return (yield from make(flight))
        finally:
            _chain.set(before)

    def _land(self, name: str, own: Flight) -> None:
        """Take that the caller's ``own`` flight, if it was made at all, is over. Harmless to repeat."""
        with self._lock:
            if self._flights.get(name) is own:
                del self._flights[name]
        own.done.happen()

    def _join(self, name: str, own: Flight) -> Flight | None:
        """Return the flight of ``name``, ``own`` if there was none; None where waiting for it could never end."""
        mine = _chain.get()
        with _graph:
            with self._lock:
                flight = self._flights.setdefault(name, own)
            if flight is own:
                return own
            if _reaches(flight, mine):
                return None
            self._waiting += 1
            for each in mine:
                each.waits.add(flight)
            return flight

    def _leave(self, flight: Flight) -> None:
        with _graph:
            self._waiting -= 1
            for each in _chain.get():
                each.waits.discard(flight)


def _forked() -> None:
    global _graph  # noqa: PLW0603 - a lock cannot be opened for someone who is not there any more
    _graph = threading.Lock()
    _chain.set(())
    for flights in list(_all):
        flights.forked()


_all: weakref.WeakSet[Flights] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
_graph = threading.Lock()  # over who waits for whom, in all stores


def _reaches(flight: Flight, wanted: tuple[Flight, ...]) -> bool:
    seen: set[Flight] = set()
    ahead = [flight]
    while ahead:
        each = ahead.pop()
        if each in wanted:
            return True
        if each not in seen:
            seen.add(each)
            ahead.extend(each.waits)
    return False


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
