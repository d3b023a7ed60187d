"""Operations and the two runners of them: blocking and awaited.

Owns how an operation is driven through its steps, and its deadline. Knows nothing of what steps do (ADR 0003).

An operation is written once, as a generator that yields steps and is sent their results. ``Runner.call`` runs it
by blocking, ``Runner.acall`` by awaiting, both in the caller's thread: only steps, which hold bytes, cross to the loop.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

from django_natskv.exceptions import OperationalError, UsageError
from django_natskv.kv._breath import requested
from django_natskv.kv.driver import Driver, Step, in_own_loop

T = TypeVar("T")
Operation = Generator[Step, Any, T]


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
        if in_own_loop():
            operation.close()
            message = "A blocking call inside the connection's own event loop would wait for itself: await its a-twin."
            raise UsageError(message)
        try:
            step = next(operation)
            now = time.monotonic()
            deadline = now + self.timeout  # what was encoded before took its own time
            requested(now)
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                self.driver.block(step)
                deadline = step.deadline  # later, where this process stood still
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
            now = time.monotonic()
            deadline = now + self.timeout  # what was encoded before took its own time
            requested(now)
            while True:
                if step.renews:
                    deadline = time.monotonic() + self.timeout
                step.deadline = deadline
                await self.driver.wait(step)
                deadline = step.deadline  # later, where this process or the caller's loop stood still
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
