"""The event loop behind the facade, and the two ways to wait for a step on it: blocking and awaited.

Owns a loop and who drives it. Knows nothing of NATS or of operations: what a step means is its target's business.

The loop has no thread of its own in the usual sense (ADR 0007). A thread that blocks on a step drives the loop itself
meanwhile, which saves two changes of thread a request; where several wait at once, where something is awaited, and
while nobody calls at all, a keeper thread drives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from django_natskv.exceptions import NotConnected
from django_natskv.kv._interrupts import HeldSignals
from django_natskv.kv._loop import Loop, Selector, cut_off

_NOTHING = contextlib.nullcontext()

JOIN_TIMEOUT = 1.0  # seconds that the end of the process waits for a loop to stop
HOT = 0.02  # seconds without a blocking call after which the keeper takes the loop back
LATE = 0.1  # seconds that a deadline was passed by when somebody looked: the process, or the caller's loop, stood still
MOMENT = 0.25  # seconds that a step is given then, for an answer that has come and lies unread
_ROUNDS = 100  # of cancelling what runs on a loop that ends, and what was begun by that


class Step(Protocol):
    """Something that an operation waits for."""

    deadline: float  # on the monotonic clock; set by the runner, put off by a driver that could not look in time

    @property
    def renews(self) -> bool:
        """Whether it is progress, from which the operation's time counts anew."""

    def begin(self, done: Callable[[], None]) -> None:
        """Start; ``done`` is called once, on the loop, when the step is over."""

    def result(self) -> Any:
        """Return what came of it, or raise; called before ``done`` was, it means that time ran out."""

    def abandon(self) -> None:
        """Nobody waits any longer: forget it."""


class _Waiter:
    """A thread that blocks on a step. Its state changes under the driver's guard, but for ``roused``."""

    __slots__ = ("begun", "bell", "drives", "follows", "over", "put_off", "roused")

    def __init__(self) -> None:
        self.begun = False
        self.put_off = False  # it has been given its moment
        self.over = False
        self.drives = False
        self.follows = False
        self.roused = False  # a signal has come: leave, so that it can be handled
        self.bell: queue.SimpleQueue[None] | None = None  # not a lock: a signal rings it too


class Driver:
    """An event loop, begun on first use, one a process, and whoever drives it.

    In a forked child everything that was inherited is dropped unclosed and the next use starts afresh (F13);
    ``on_fork`` is called there to let the owner drop its part, and returns what must be kept from being collected.
    ``on_interrupt`` is called on the loop after an exception, such as a KeyboardInterrupt, broke into a driving thread:
    no task of the loop can be trusted to be whole any more. ``on_turn`` is called on the loop after what was posted.
    """

    def __init__(
        self, name: str, on_fork: Callable[[], Any], on_interrupt: Callable[[], None], on_turn: Callable[[], None]
    ) -> None:
        self.name = name
        self._on_turn = on_turn
        self._on_fork = on_fork
        self._on_interrupt = on_interrupt
        self._fresh()
        _drivers.add(self)

    def _fresh(self) -> None:
        self._guard = threading.Lock()
        self._loop: Loop | None = None
        self._selector: Any = None
        self._keeper: threading.Thread | None = None
        self._call_keeper = threading.Event()
        self._posted: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._driver: int | None = None  # the thread that drives the loop now
        self._drive_until = 0.0
        self._last_call = 0.0
        self._following = 0  # threads that block while another one drives
        self._awaiting = 0  # steps that are awaited
        self._closing: Callable[[], Coroutine[Any, Any, None]] | None = None

    # --- from any thread ---

    def post(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called soon on the loop. Many posts wake the loop once."""
        self._posted.append(callback)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        try:
            loop = self._running_loop()
            if self._driver == threading.get_ident():
                loop.call_soon(self._run_posted)  # nobody is asleep in it
                return
            while True:
                try:
                    loop.call_soon_threadsafe(self._run_posted)
                    break
                except RuntimeError:
                    if loop is self._loop:
                        raise
                    loop = self._running_loop()  # it was stopped just now
        except BaseException:
            self._scheduled = False  # or no later post would wake the loop
            raise
        if self._driver is None:
            self._call_keeper.set()

    def mention(self, callback: Callable[[], None]) -> None:
        """As ``post``, but only where there is a loop: nothing is started for it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)

    @property
    def is_begun(self) -> bool:
        """Whether there is a loop that takes what is posted now: one that is being stopped, only from itself."""
        return self._loop is not None and (self._closing is None or self._in_keeper())

    def is_driven_here(self) -> bool:
        """Tell whether the calling thread is inside the loop, where it must not wait for anything of the loop's."""
        return self._driver == threading.get_ident()

    def block(self, step: Step) -> None:
        """Begin ``step`` and block until it is over or its deadline has passed.

        A process that stood still meanwhile (stopped, starved, on a machine that slept) has read nothing, so that a
        deadline which is found long gone says nothing of the server: the step gets a moment more, once.
        """
        waiter = _Waiter()
        in_main = threading.get_ident() == threading.main_thread().ident
        signals = HeldSignals(partial(self._rouse, waiter)) if in_main else _NOTHING
        try:
            while True:
                with signals:
                    self._turn(waiter, step)
                if waiter.over:
                    return
                if time.monotonic() >= step.deadline:
                    if waiter.put_off or not _put_off(step):
                        return
                    waiter.put_off = True
                waiter.roused = False
        except BaseException:
            step.abandon()
            raise

    async def wait(self, step: Step) -> None:
        """Begin ``step`` and await its end or its deadline, on any event loop; see ``block``.

        A caller's loop that something blocked counts as one that stood still.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not future.done():
                future.set_result(None)

        def done() -> None:
            # The caller's loop may be closed by the time that an answer comes.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle)

        def time_is_up() -> None:
            if _put_off(step):
                loop.call_later(MOMENT, settle)
            else:
                settle()

        timer = loop.call_later(max(0.0, step.deadline - time.monotonic()), time_is_up)
        with self._guard:
            self._awaiting += 1
        try:
            step.begin(done)
            if self._driver is None:
                self._call_keeper.set()
            await future
        except BaseException:
            step.abandon()
            raise
        finally:
            with self._guard:
                self._awaiting -= 1
            timer.cancel()

    def stop(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop: await ``closing()`` on it, cancel its tasks, join the keeper. A later use begins anew."""
        with self._guard:
            loop, keeper = self._loop, self._keeper
            if loop is None or keeper is None or self._closing is not None:
                return
            self._closing = closing
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        self._call_keeper.set()
        if keeper.ident != threading.get_ident():
            keeper.join(JOIN_TIMEOUT)

    def after_fork(self) -> Any:
        """Drop, in a forked child, what belongs to the parent; return it, to be kept from being closed."""
        kept = (self._loop, self._keeper, self._posted, self._on_fork())
        if self._selector is not None:
            cut_off(self._selector.fileno())
        self._fresh()
        return kept

    # --- who drives ---

    def _turn(self, waiter: _Waiter, step: Step) -> None:
        """Wait for ``step`` until it is over, its time is up or a signal has come; drive meanwhile where one can."""
        loop = self._loop if waiter.begun else self._running_loop()
        self._enter(waiter, loop)
        try:
            if not waiter.begun:
                waiter.begun = True
                step.begin(partial(self._done, waiter))
            if waiter.drives and loop is not None:
                self._drive(waiter, loop, step.deadline)
            elif waiter.bell is not None and not waiter.roused:
                # Always with a timeout: it makes the wait interruptible on every platform.
                with contextlib.suppress(queue.Empty):
                    waiter.bell.get(timeout=max(0.0, step.deadline - time.monotonic()))
        finally:
            self._leave(waiter)

    def _enter(self, waiter: _Waiter, loop: Loop | None) -> None:
        # Not where an event loop runs already: a thread has one at a time.
        may_drive = asyncio._get_running_loop() is None  # noqa: SLF001 - its public twin raises where there is none
        with self._guard:
            if waiter.over:
                return
            if may_drive and self._driver is None and self._closing is None and loop is self._loop is not None:
                self._driver = threading.get_ident()
                waiter.drives = True
            else:
                waiter.bell = queue.SimpleQueue()
                waiter.follows = True
                self._following += 1
        if waiter.follows and self._driver is None:
            self._call_keeper.set()

    def _drive(self, waiter: _Waiter, loop: Loop, deadline: float) -> None:
        self._drive_until = deadline
        while not (waiter.over or waiter.roused or self._closing is not None) and time.monotonic() < deadline:
            self._run(loop)

    def _run(self, loop: Loop) -> None:
        try:
            loop.run_forever()
        except BaseException:
            self.post(self._on_interrupt)
            raise

    def _done(self, waiter: _Waiter) -> None:
        """On a loop, mostly this one: the waiter's step is over."""
        with self._guard:
            waiter.over = True
            loop = self._loop
            if waiter.drives and loop is not None:
                if self._driver == threading.get_ident():
                    loop.stop()
                else:  # the step ended on another driver's loop, and this one sleeps in its selector
                    loop.call_soon_threadsafe(loop.stop)
            elif waiter.follows and waiter.bell is not None:
                waiter.follows = False
                self._following -= 1
                waiter.bell.put(None)
                if not self._following and not self._awaiting and loop is not None and self._in_keeper():
                    # The next call is likely to come from the thread that is let go here.
                    loop.stop()

    def _rouse(self, waiter: _Waiter) -> None:
        """Inside a signal's handler, which may have interrupted anything: have the waiter leave."""
        waiter.roused = True
        loop, bell = self._loop, waiter.bell
        if waiter.drives and loop is not None:
            loop.call_soon_threadsafe(loop.stop)
        if bell is not None:
            bell.put(None)

    def _leave(self, waiter: _Waiter) -> None:
        wanted: Any = False
        with self._guard:
            if waiter.drives:
                waiter.drives = False
                self._last_call = time.monotonic()
                self._driver = None
                wanted = self._scheduled or self._following or self._awaiting or self._closing is not None
            elif waiter.follows:
                waiter.follows = False
                self._following -= 1
            waiter.bell = None  # or the next turn, if the step ends before it, would wait for one that rings no more
        if wanted:
            self._call_keeper.set()

    def _keep(self, loop: Loop) -> None:
        """Drive the loop whenever nobody else does and somebody should; the keeper's whole life."""
        try:
            while self._closing is None:
                if not (self._take_over() and self._keep_driving(loop)):
                    self._call_keeper.wait(HOT)
                    self._call_keeper.clear()
            while not self._take_over():  # another thread is on its way out of the loop
                time.sleep(0.001)
            self._run_out(loop)
        finally:
            with self._guard:
                self._loop = self._keeper = self._driver = self._closing = None
                self._scheduled = False
            loop.close()
            if self._posted:  # by somebody who came between
                with contextlib.suppress(RuntimeError):  # no thread is started while the process ends
                    self._schedule()

    def _keep_driving(self, loop: Loop) -> bool:
        """Drive until the loop is stopped; tell whether somebody still needs it driven."""
        try:
            loop.run_forever()
        finally:
            with self._guard:
                self._last_call = time.monotonic()
                self._driver = None
        return bool(self._scheduled or self._following or self._awaiting)

    def _in_keeper(self) -> bool:
        return self._keeper is not None and self._keeper.ident == threading.get_ident()

    def _take_over(self) -> bool:
        now = time.monotonic()
        with self._guard:
            if self._driver is None:
                idle = now - self._last_call > HOT
                if idle or self._scheduled or self._following or self._awaiting or self._closing is not None:
                    self._driver = threading.get_ident()
                    return True
            elif now > self._drive_until and self._loop is not None:
                # A driving thread has no timer of its own: it is told here that its time is up.
                self._loop.call_soon_threadsafe(self._loop.stop)
        return False

    def _run_out(self, loop: Loop) -> None:
        """Close what is open, and end what runs: also what begins in the loop's very last turn."""
        closing = self._closing
        for _ in range(_ROUNDS):
            finish = loop.create_task(self._finish(closing))
            finish.add_done_callback(lambda _task: loop.stop())
            while not finish.done():
                loop.run_forever()
            if not asyncio.all_tasks(loop):
                return
            closing = None

    async def _finish(self, closing: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        if closing is not None:
            await closing()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        # Meanwhile others may be begun: by those, or by what was posted just before the end.
        await asyncio.gather(*tasks, return_exceptions=True)

    def _running_loop(self) -> Loop:
        loop = self._loop
        return loop if loop is not None and self._closing is None else self._start()

    def _start(self) -> Loop:
        if sys.is_finalizing():
            # What runs now, a finalizer for instance, is the last; a new thread would be waited for without end.
            message = "The process is ending: nothing is sent any more."
            raise NotConnected(message)
        keeper = self._keeper
        if self._closing is not None and keeper is not None and keeper.ident != threading.get_ident():
            keeper.join(JOIN_TIMEOUT)  # the old one first: they share what this object knows
        with self._guard:
            if self._loop is None:
                self._selector = Selector()
                self._loop = Loop(self._selector)
                self._keeper = threading.Thread(target=self._keep, args=(self._loop,), name=self.name, daemon=True)
                self._keeper.start()
            return self._loop

    def _run_posted(self) -> None:
        self._scheduled = False
        posted = self._posted
        while posted:
            posted.popleft()()
        self._on_turn()


def _put_off(step: Step) -> bool:
    """Put off the deadline of a step if it passed while nobody could look; tell whether."""
    now = time.monotonic()
    if now - step.deadline < LATE:
        return False
    step.deadline = now + MOMENT
    return True


def in_own_loop() -> bool:
    """Tell whether the calling thread is inside a loop of ours, where to block would be to wait for oneself."""
    return isinstance(asyncio._get_running_loop(), Loop)  # noqa: SLF001 - its public twin raises where there is none


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_inherited: list[Any] = []


def _after_fork() -> None:
    _inherited.extend([driver.after_fork() for driver in list(_drivers)])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
