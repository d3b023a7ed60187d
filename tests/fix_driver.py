"""Drivers of a test's own, and steps that answer themselves.

Owns their end, and that nothing is left of them; knows nothing of who drives.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_natskv.exceptions import NotConnected
from django_natskv.kv.driver import Driver
from django_natskv.kv.runner import Operation, Runner
from tests.fix_waiting import eventually

LONG = 600.0  # seconds: a wait that is not ended by what it waits for fails by the time limit of tests
Make = Callable[..., Runner]

_numbers = itertools.count(1)


class Echo:
    """A step that is answered on the loop, ``delay`` seconds after it began; never with a delay of None."""

    renews = False
    deadline = 0.0

    def __init__(self, driver: Driver, value: Any, delay: float | None = 0.0) -> None:
        self.driver, self.value, self.delay = driver, value, delay
        self.answered_by: int | None = None
        self.abandoned = False
        self.error: Exception | None = None
        self.then: Callable[[], None] | None = None  # called on the loop as soon as the step has begun

    def begin(self, done: Callable[[], None]) -> None:
        self.done = done
        self.driver.post(self._begun)

    def _begun(self) -> None:
        if self.then is not None:
            self.then()
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.answer)
        elif self.delay is not None:
            self.answer()

    def answer(self, error: Exception | None = None) -> None:
        self.answered_by = threading.get_ident()
        self.error = error
        self.done()

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        if self.answered_by is None:
            raise NotConnected
        return self.value

    def abandon(self) -> None:
        self.abandoned = True


def wait_for(step: Any) -> Operation[Any]:
    return (yield step)


def echo(runner: Runner, value: Any, delay: float | None = 0.0) -> Operation[Any]:
    return wait_for(Echo(runner.driver, value, delay))


async def nothing() -> None:
    """What there is to close."""


@pytest.fixture
def make_runner() -> Iterator[Make]:
    """Make a driver with a runner of operations; afterwards nothing waits and no thread is left."""
    made: list[Driver] = []

    def make(timeout: float = LONG, interrupted: Callable[[], Any] = int) -> Runner:
        name = f"driver-{next(_numbers)}"
        made.append(Driver(name, on_fork=int, on_interrupt=interrupted, on_turn=lambda: None))
        return Runner(made[-1], timeout)

    yield make
    for driver in made:
        eventually(lambda driver=driver: (driver._following, driver._awaiting) == (0, 0))  # type: ignore[misc]
        driver.stop(nothing)
        eventually(lambda driver=driver: not threads(driver))  # type: ignore[misc]


@pytest.fixture
def runner(make_runner: Make) -> Runner:
    return make_runner()


def threads(driver: Driver) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == driver.name]


def together(*work: Callable[[], None]) -> None:
    """Do all of it, each in a thread of its own; raise what one of them raised."""
    errors: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    crew = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(50)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def driving(runner: Runner) -> None:
    """Return when the calls of this thread are answered by itself."""

    def own() -> bool:
        step = Echo(runner.driver, None)
        runner.call(wait_for(step))
        return step.answered_by == threading.get_ident()

    eventually(own)
