"""The event loop behind the facade, and the two ways in: blocking and awaited.

Owns a loop on a thread of its own, the steps that an operation may wait for, and the two runners of operations.
Knows nothing of NATS: what a step means is its target's business (ADR 0003).

An operation is written once, as a generator that yields steps and is sent their results. ``Runner.call`` runs it
by blocking, ``Runner.acall`` by awaiting, both in the caller's thread: only steps, which hold bytes, cross to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeVar

from django_natskv.exceptions import OperationalError, UsageError

T = TypeVar("T")

JOIN_TIMEOUT = 1.0  # seconds that the end of the process waits for a loop to stop


class Step(Protocol):
    """Something that an operation waits for."""

    deadline: float  # on the monotonic clock; set by the runner
    renews: bool  # whether it is progress, from which the operation's time counts anew

    def begin(self, done: Callable[[], None]) -> None:
        """Start; ``done`` is called once, from the loop's thread, when the step is over."""

    def result(self) -> Any:
        """Return what came of it, or raise; called before ``done`` was, it means that time ran out."""

    def abandon(self) -> None:
        """Nobody waits any longer: forget it."""


Operation = Generator[Step, Any, T]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop that leaves what it inherited alone: a fork shares the selector with the parent (F13)."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self._made_in = os.getpid()

    def __del__(self, _getpid: Callable[[], int] = os.getpid, _warn: Any = warnings.warn) -> None:
        if self._made_in == _getpid():
            super().__del__(_warn)  # type: ignore[call-arg]  # as asyncio defines it


class Driver:
    """An event loop on a daemon thread, begun on first use, one a process.

    In a forked child everything that was inherited is dropped unclosed and the next use starts afresh (F13);
    ``on_fork`` is called there to let the owner drop its part, and returns what must be kept from being collected.
    """

    def __init__(self, name: str, on_fork: Callable[[], Any]) -> None:
        self.name = name
        self._on_fork = on_fork
        self._fresh()
        _drivers.add(self)

    def _fresh(self) -> None:
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._selector: Any = None
        self._thread: threading.Thread | None = None
        self._closing: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._posted: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def post(self, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called soon on the loop's thread. Many posts wake the loop once."""
        self._posted.append(callback)
        if not self._scheduled:
            self._scheduled = True
            loop = self._loop or self._start()
            try:
                loop.call_soon_threadsafe(self._run_posted)
            except RuntimeError:  # stopped meanwhile: begin again
                self._start(instead_of=loop).call_soon_threadsafe(self._run_posted)

    def mention(self, callback: Callable[[], None]) -> None:
        """As ``post``, but only where the loop runs: nothing is started for it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)

    def stop(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """End the loop: await ``closing()`` on it, cancel its tasks, join the thread. A later use begins anew."""
        with self._guard:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._scheduled = False
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_finish, loop, closing)
        if thread.ident != threading.get_ident():
            thread.join(JOIN_TIMEOUT)

    def after_fork(self) -> Any:
        """Drop, in a forked child, what belongs to the parent; return it, to be kept from being closed."""
        kept = (self._loop, self._thread, self._posted, self._on_fork())
        if self._selector is not None:
            cut_off(self._selector.fileno())
        self._fresh()
        return kept

    def _start(self, instead_of: asyncio.AbstractEventLoop | None = None) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None or self._loop is instead_of:
                self._selector = selectors.DefaultSelector()
                self._loop = _Loop(self._selector)
                self._thread = threading.Thread(target=_run, args=(self._loop,), name=self.name, daemon=True)
                self._thread.start()
            return self._loop

    def _run_posted(self) -> None:
        self._scheduled = False
        posted = self._posted
        while posted:
            posted.popleft()()


def cut_off(fileno: int) -> None:
    """Put the null device in the place of an inherited descriptor.

    The number stays taken, so that no later file gets it and is closed or watched in the old one's name.
    """
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, fileno)
        finally:
            os.close(null)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    _loop_threads.add(threading.get_ident())
    try:
        loop.run_forever()
        loop.run_until_complete(_cancel_all())
    finally:
        _loop_threads.discard(threading.get_ident())
        loop.close()


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _finish(loop: asyncio.AbstractEventLoop, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
    # The loop holds tasks weakly: the callback keeps this one until it is done.
    loop.create_task(closing()).add_done_callback(lambda _task: loop.stop())


class Runner:
    """Runs operations, blocking or awaited, with one deadline for all the steps of each."""

    __slots__ = ("timeout",)

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout

    def call(self, operation: Operation[T]) -> T:
        """Run ``operation`` to its end in this thread, blocking while it waits.

        Raises ``UsageError`` on the thread of one of our own loops, where the wait could never end.
        """
        if threading.get_ident() in _loop_threads:
            operation.close()
            message = "A blocking call on the connection's own event loop would wait for itself: await its a-twin."
            raise UsageError(message)
        deadline = time.monotonic() + self.timeout
        try:
            step = next(operation)
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                _block(step)
                try:
                    result = step.result()
                except OperationalError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException:
            operation.close()
            raise

    async def acall(self, operation: Operation[T]) -> T:
        """Run ``operation`` to its end in this task, awaiting while it waits; on any event loop."""
        deadline = time.monotonic() + self.timeout
        try:
            step = next(operation)
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                await _await(step)
                try:
                    result = step.result()
                except OperationalError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except BaseException:
            operation.close()
            raise


def _block(step: Step) -> None:
    lock = threading.Lock()
    lock.acquire()
    try:
        step.begin(lock.release)
        # Always with a timeout: it makes the wait interruptible on every platform.
        lock.acquire(timeout=max(0.0, step.deadline - time.monotonic()))
    except BaseException:
        step.abandon()
        raise


async def _await(step: Step) -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def done() -> None:
        # The caller's loop may be closed by the time that an answer comes.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)

    timer = loop.call_later(max(0.0, step.deadline - time.monotonic()), settle)
    try:
        step.begin(done)
        await future
    except BaseException:
        step.abandon()
        raise
    finally:
        timer.cancel()


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_loop_threads: set[int] = set()
_inherited: list[Any] = []


def _after_fork() -> None:
    _loop_threads.clear()
    _inherited.extend([driver.after_fork() for driver in list(_drivers)])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
