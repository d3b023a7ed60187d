"""The event loop behind the facade, and the two ways in: blocking and awaited.

Owns a loop, who drives it, the steps that an operation may wait for, and the two runners of operations. Knows nothing
of NATS: what a step means is its target's business (ADR 0003).

An operation is written once, as a generator that yields steps and is sent their results. ``Runner.call`` runs it
by blocking, ``Runner.acall`` by awaiting, both in the caller's thread: only steps, which hold bytes, cross to the loop.

The loop has no thread of its own in the usual sense (ADR 0007). A thread that blocks on a step drives the loop itself
meanwhile, which saves two changes of thread a request; where several wait at once, where something is awaited, and
while nobody calls at all, a keeper thread drives it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import asyncio
import contextlib
import os
import selectors
import signal
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any, Protocol, TypeVar

from django_natskv.exceptions import OperationalError, UsageError

T = TypeVar("T")

_NOTHING = contextlib.nullcontext()

JOIN_TIMEOUT = 1.0  # seconds that the end of the process waits for a loop to stop
HOT = 0.02  # seconds without a blocking call after which the keeper takes the loop back

# What the handlers of these raise is meant for the code that was interrupted; see _Signals.
_SIGNALS = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGINT", "SIGTERM", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGVTALRM", "SIGPROF",
    )
    if hasattr(signal, name)
)  # fmt: skip


class Step(Protocol):
    """Something that an operation waits for."""

    deadline: float  # on the monotonic clock; set by the runner
    renews: bool  # whether it is progress, from which the operation's time counts anew

    def begin(self, done: Callable[[], None]) -> None:
        """Start; ``done`` is called once, on the loop, when the step is over."""

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
        # In development mode asyncio reports slow callbacks: of use to those who write some, and nobody does here.
        self.slow_callback_duration = float("inf")

    def __del__(self, _getpid: Callable[[], int] = os.getpid, _warn: Any = warnings.warn) -> None:
        if self._made_in == _getpid():
            super().__del__(_warn)  # type: ignore[call-arg]  # as asyncio defines it


class _Waiter:
    """A thread that blocks on a step. ``over`` and ``gone`` change under the driver's guard."""

    __slots__ = ("drives", "gone", "lock", "over")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.over = False
        self.gone = False
        self.drives = False


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
        self._loop: _Loop | None = None
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
        if self._scheduled:
            return
        self._scheduled = True
        loop = self._running_loop()
        if self._driver == threading.get_ident():
            loop.call_soon(self._run_posted)  # nobody is asleep in it
            return
        loop.call_soon_threadsafe(self._run_posted)
        if self._driver is None:
            self._call_keeper.set()

    def mention(self, callback: Callable[[], None]) -> None:
        """As ``post``, but only where there is a loop: nothing is started for it."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)

    def block(self, step: Step) -> None:
        """Begin ``step`` and block until it is over or its deadline has passed."""
        waiter = _Waiter()
        loop = self._running_loop()
        self._enter(waiter, loop)
        try:
            step.begin(lambda: self._done(waiter, loop))
            if waiter.drives:
                self._drive(waiter, loop, step.deadline)
            if not waiter.over:
                # Always with a timeout: it makes the wait interruptible on every platform.
                waiter.lock.acquire(timeout=max(0.0, step.deadline - time.monotonic()))
        except BaseException:
            step.abandon()
            raise
        finally:
            self._leave(waiter)

    async def wait(self, step: Step) -> None:
        """Begin ``step`` and await its end or its deadline, on any event loop."""
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

    def _enter(self, waiter: _Waiter, loop: _Loop) -> None:
        # Not where an event loop runs already: a thread has one at a time.
        may_drive = asyncio._get_running_loop() is None  # noqa: SLF001 - its public twin raises where there is none
        with self._guard:
            if may_drive and self._driver is None and self._closing is None and loop is self._loop:
                self._driver = threading.get_ident()
                waiter.drives = True
            else:
                self._following += 1
        if not waiter.drives and self._driver is None:
            self._call_keeper.set()

    def _drive(self, waiter: _Waiter, loop: _Loop, deadline: float) -> None:
        self._drive_until = deadline
        in_main = threading.get_ident() == threading.main_thread().ident
        try:
            while not waiter.over and self._closing is None and time.monotonic() < deadline:
                with _Signals(loop) if in_main else _NOTHING:
                    self._run(loop)
        finally:
            self._last_call = time.monotonic()
            with self._guard:
                waiter.drives = False
                waiter.gone = waiter.over
                self._following += not waiter.over
                self._driver = None
                wanted = self._scheduled or self._following or self._awaiting or self._closing is not None
            if wanted:
                self._call_keeper.set()

    def _run(self, loop: _Loop) -> None:
        try:
            loop.run_forever()
        except BaseException:
            self.post(self._on_interrupt)
            raise

    def _done(self, waiter: _Waiter, loop: _Loop) -> None:
        """On the loop: the waiter's step is over."""
        with self._guard:
            waiter.over = True
            if waiter.drives:
                if self._driver == threading.get_ident():
                    loop.stop()
                else:  # the step ended on another driver's loop, and this one sleeps in its selector
                    loop.call_soon_threadsafe(loop.stop)
                return
            waiter.lock.release()
            if not waiter.gone:
                waiter.gone = True
                self._following -= 1
            if not self._following and not self._awaiting and self._keeper_drives():
                # The next call is likely to come from the thread that is let go here.
                loop.stop()

    def _leave(self, waiter: _Waiter) -> None:
        with self._guard:
            if waiter.drives:  # broken off before it began to
                waiter.drives = False
                self._driver = None
            elif not waiter.gone:
                waiter.gone = True
                self._following -= 1

    def _keep(self, loop: _Loop) -> None:
        """Drive the loop whenever nobody else does and somebody should; the keeper's whole life."""
        try:
            while self._closing is None:
                if not (self._take_over() and self._keep_driving(loop)):
                    self._call_keeper.wait(HOT)
                    self._call_keeper.clear()
            while not self._take_over():  # another thread is on its way out of the loop
                time.sleep(0.001)
            finish = loop.create_task(self._finish())
            finish.add_done_callback(lambda _task: loop.stop())
            while not finish.done():
                loop.run_forever()
        finally:
            with self._guard:
                self._loop = self._keeper = self._driver = self._closing = None
                self._scheduled = False
            loop.close()

    def _keep_driving(self, loop: _Loop) -> bool:
        """Drive until the loop is stopped; tell whether somebody still needs it driven."""
        try:
            loop.run_forever()
        finally:
            with self._guard:
                self._last_call = time.monotonic()
                self._driver = None
        return bool(self._following or self._awaiting)

    def _keeper_drives(self) -> bool:
        return self._keeper is not None and self._driver == self._keeper.ident

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

    async def _finish(self) -> None:
        if self._closing is not None:
            await self._closing()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _running_loop(self) -> _Loop:
        loop = self._loop
        return loop if loop is not None and self._closing is None else self._start()

    def _start(self) -> _Loop:
        keeper = self._keeper
        if self._closing is not None and keeper is not None and keeper.ident != threading.get_ident():
            keeper.join(JOIN_TIMEOUT)  # the old one first: they share what this object knows
        with self._guard:
            if self._loop is None:
                self._selector = selectors.DefaultSelector()
                self._loop = _Loop(self._selector)
                self._keeper = threading.Thread(target=self._keep, args=(self._loop,), name=self.name, daemon=True)
                self._keeper.start()
            return self._loop

    def _run_posted(self) -> None:
        self._scheduled = False
        posted = self._posted
        while posted:
            posted.popleft()()
        self._on_turn()


class _Signals:
    """Holds signals back while the main thread drives, and has them handled in the caller's frame instead.

    A handler may raise (Ctrl-C, an alarm, Celery's soft time limit). Inside the loop that would end one of its tasks;
    in the caller's frame it ends the caller's work, which is what it is for.
    """

    __slots__ = ("_handlers", "_held", "_loop")

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._handlers: dict[int, Any] = {}
        self._held: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        # The C functions: those of the signal module make an enum of every number and handler, 1 us each.
        found = {number: _signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
        try:
            for number in self._handlers:
                _signal.signal(number, self._hold)
        except BaseException:  # one came just now
            self._restore()
            raise

    def __exit__(self, *_: object) -> None:
        self._restore()
        while self._held:
            number, frame = self._held.pop(0)
            self._handlers[number](number, frame)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held.append((number, frame))
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _restore(self) -> None:
        raised: BaseException | None = None
        for number, handler in self._handlers.items():
            for _ in range(2):  # a handler that is in place again may be called, and raise, at once
                try:
                    _signal.signal(number, handler)
                    break
                except BaseException as error:  # noqa: BLE001 - raised below, when all are in place
                    raised = error
        if raised is not None:
            raise raised


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


class Runner:
    """Runs operations, blocking or awaited, with one deadline of ``timeout`` seconds for all the steps of each."""

    __slots__ = ("driver", "timeout")

    def __init__(self, driver: Driver, timeout: float) -> None:
        self.driver = driver
        self.timeout = timeout

    def call(self, operation: Operation[T]) -> T:
        """Run ``operation`` to its end in this thread, blocking while it waits.

        Raises ``UsageError`` inside one of our own loops, where the wait could never end.
        """
        if isinstance(asyncio._get_running_loop(), _Loop):  # noqa: SLF001 - its public twin raises
            operation.close()
            message = "A blocking call inside the connection's own event loop would wait for itself: await its a-twin."
            raise UsageError(message)
        try:
            step = next(operation)
            deadline = time.monotonic() + self.timeout  # what was encoded before took its own time
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                self.driver.block(step)
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
        try:
            step = next(operation)
            deadline = time.monotonic() + self.timeout  # what was encoded before took its own time
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                await self.driver.wait(step)
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


_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_inherited: list[Any] = []


def _after_fork() -> None:
    _inherited.extend([driver.after_fork() for driver in list(_drivers)])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
