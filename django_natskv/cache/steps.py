"""Steps: the waits of a cache's operations, and the two runners that carry them out, blocking and awaited.

Owns how an operation waits. Knows nothing of what is waited for.

An operation of the cache is written once, as a generator that yields steps and is sent their results, as the
operations of the facade are (ADR 0003). Its steps are calls of the facade, which has both faces itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol, TypeVar

from asgiref.sync import sync_to_async

T = TypeVar("T")


class Step(Protocol):
    """One wait, in both faces."""

    def block(self) -> Any:
        """Wait in this thread; return the result."""

    async def wait(self) -> Any:
        """See block()."""


Operation = Generator[Step, Any, T]


class Call:
    """A call of an operation that has two faces: ``name`` of ``target``."""

    __slots__ = ("args", "name", "options", "target")

    def __init__(self, target: Any, name: str, *args: Any, **options: Any) -> None:
        self.target = target
        self.name = name
        self.args = args
        self.options = options

    def block(self) -> Any:
        """See Step."""
        return getattr(self.target, self.name)(*self.args, **self.options)

    async def wait(self) -> Any:
        """See Step."""
        return await getattr(self.target, f"a{self.name}")(*self.args, **self.options)


class Pause:
    """A pause of so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def block(self) -> None:
        """See Step."""
        time.sleep(self.seconds)

    async def wait(self) -> None:
        """See Step."""
        await asyncio.sleep(self.seconds)


class Rest:
    """A pause that ends early once ``stopped`` is set; the result tells whether it is."""

    __slots__ = ("seconds", "stopped")

    def __init__(self, stopped: threading.Event, seconds: float) -> None:
        self.stopped = stopped
        self.seconds = seconds

    def block(self) -> bool:
        """See Step."""
        return self.stopped.wait(self.seconds)

    async def wait(self) -> bool:
        """See Step. Whoever stops a task cancels it."""
        await asyncio.sleep(self.seconds)
        return self.stopped.is_set()


class Aside:
    """Something that may block for long: awaited, it is done on the thread that Django keeps for such."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def block(self) -> Any:
        """See Step."""
        return self.function()

    async def wait(self) -> Any:
        """See Step."""
        return await sync_to_async(self.function, thread_sensitive=True)()


class Ask:
    """A call of what the user of the cache gave; awaited, what it returns may be awaitable."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def block(self) -> Any:
        """See Step."""
        return self.function()

    async def wait(self) -> Any:
        """See Step."""
        result: Any = self.function()
        if isawaitable(result):
            awaited: Awaitable[Any] = result
            return await awaited
        return result


class Done:
    """Something that happens once, for which threads and tasks may wait.

    Without a lock: a signal's handler may raise anywhere in ``happen``, which is then called again.
    """

    __slots__ = ("_waiters", "has_happened")

    def __init__(self) -> None:
        self.has_happened = False
        self._waiters: list[Callable[[], None]] = []

    def happen(self) -> None:
        """Let all who wait go on. Harmless to repeat."""
        self.has_happened = True
        for wake in self._waiters.copy():
            wake()

    def block(self, longest: float | None) -> bool:
        """Wait in this thread, at most ``longest`` seconds; tell whether it has happened."""
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        wake = partial(bell.put, None)
        self._waiters.append(wake)  # and then look: whoever makes it happen does the two the other way round
        try:
            if not self.has_happened:
                with contextlib.suppress(queue.Empty):
                    bell.get(timeout=longest)
        finally:
            self._waiters.remove(wake)
        return self.has_happened

    async def wait(self) -> None:
        """See block()."""
        loop = asyncio.get_running_loop()
        awaited: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not awaited.done():
                awaited.set_result(None)

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed before
                loop.call_soon_threadsafe(settle)

        self._waiters.append(wake)
        try:
            if not self.has_happened:
                await awaited
        finally:
            self._waiters.remove(wake)


class Until:
    """A wait for something that happens elsewhere in this process; the result tells whether it has.

    ``loop`` is the event loop that makes it happen, if one does: a thread waits for that at most ``longest`` seconds,
    and the loop's own thread not at all.
    """

    __slots__ = ("done", "longest", "loop")

    def __init__(self, done: Done, loop: asyncio.AbstractEventLoop | None, longest: float) -> None:
        self.done = done
        self.loop = loop
        self.longest = longest

    def block(self) -> bool:
        """See Step."""
        if self.loop is None:
            return self.done.block(None)
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self.loop:
                return False
        return self.done.block(self.longest)

    async def wait(self) -> bool:
        """See Step."""
        await self.done.wait()
        return True


def run(operation: Operation[T]) -> T:
    """Carry out ``operation`` in this thread, blocking while it waits."""
    try:
        step = next(operation)
        while True:
            try:
                result = step.block()
            except BaseException as error:  # noqa: BLE001 - it goes on where the operation waits
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except BaseException:
        operation.close()  # a signal's handler raised between two steps: others may wait for what is held in it
        raise


async def arun(operation: Operation[T]) -> T:
    """See run()."""
    try:
        step = next(operation)
        while True:
            try:
                result = await step.wait()
            except BaseException as error:  # noqa: BLE001 - it goes on where the operation waits
                step = operation.throw(error)
            else:
                step = operation.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    except BaseException:
        operation.close()  # see run()
        raise
