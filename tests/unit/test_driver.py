"""The event loop and who drives it: steps that answer themselves, so that nothing but the hand-over can fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import pytest

from django_natskv.exceptions import NotConnected, UsageError
from django_natskv.kv import driver as driver_module
from django_natskv.kv._loop import Selector
from django_natskv.kv.runner import Runner
from tests.fix_driver import LONG, Echo, Make, driving, echo, nothing, threads, together, wait_for
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper takes no loop back of itself, however long the machine holds up a thread between two calls."""
    monkeypatch.setattr(driver_module, "HOT", LONG)


# ---------------------------------------------------------------------- who drives


@pytest.mark.usefixtures("left_alone")
def test_a_thread_that_calls_often_drives_itself(runner: Runner) -> None:
    driving(runner)
    assert runner.driver._driver is None  # and lets go


def test_the_selector_is_passed_over_between_ready_callbacks_but_never_for_long() -> None:
    here, there = socket.socketpair()
    with Selector() as selector, here, there:
        selector.register(here, selectors.EVENT_READ)
        there.send(b"news")
        assert [bool(selector.select(0)) for _ in range(8)] == [False, False, False, True, False, False, False, True]
        assert selector.select(None), "who would wait is told at once"
        assert selector.select(1)


def test_after_a_rest_the_keeper_drives(runner: Runner) -> None:
    for number in range(5):
        assert runner.call(echo(runner, number)) == number
        eventually(lambda: runner.driver._in_keeper() or runner.driver._driver == threads(runner.driver)[0].ident)
    step = Echo(runner.driver, "first")
    assert runner.call(wait_for(step)) == "first"
    driving(runner)


def test_many_threads_get_their_own_answers(runner: Runner) -> None:
    def work(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(150):
            value = (seed, number)
            assert runner.call(echo(runner, value, chance.choice((0, 0, 0.0001, 0.002)))) == value

    together(*(lambda seed=seed: work(seed) for seed in range(16)))
    driving(runner)


def test_threads_and_event_loops_get_their_own_answers(runner: Runner) -> None:
    def blocking(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(150):
            assert runner.call(echo(runner, (seed, number), chance.choice((0, 0.001)))) == (seed, number)

    async def awaiting(seed: int) -> None:
        async def one(number: int) -> None:
            assert await runner.acall(echo(runner, (seed, number), 0.001 * (number % 2))) == (seed, number)

        for number in range(0, 150, 5):
            await asyncio.gather(*map(one, range(number, number + 5)))

    together(
        *(lambda seed=seed: blocking(seed) for seed in range(4)),
        *(lambda seed=seed: asyncio.run(awaiting(seed)) for seed in range(4, 7)),
    )
    driving(runner)


async def test_a_blocking_call_beside_a_running_event_loop_is_served(runner: Runner) -> None:
    for number in range(100):
        assert runner.call(echo(runner, number)) == number
        assert await runner.acall(echo(runner, -number)) == -number


def test_a_step_that_ends_on_another_drivers_loop_wakes_the_one_who_drives(make_runner: Make) -> None:
    """As the first watch of a connection does. This loop has nothing else that would wake it."""
    runner, other = make_runner(), make_runner()
    woken = 0
    while woken < 20:
        driving(runner)
        step = Echo(other.driver, "there")
        begin = step.begin
        drove: list[bool] = []

        def noted(done: Callable[[], None], begin: Any = begin, drove: list[bool] = drove) -> None:
            drove.append(runner.driver._driver == threading.get_ident())
            begin(done)

        step.begin = noted  # type: ignore[method-assign]
        assert runner.call(wait_for(step)) == "there"
        woken += drove == [True]


def test_a_step_that_is_over_as_soon_as_it_begins_is_not_waited_for(runner: Runner) -> None:
    for _ in range(50):
        step = Echo(runner.driver, 1)

        def over(done: Callable[[], None], step: Echo = step) -> None:
            step.answered_by = 1
            done()

        step.begin = over  # type: ignore[method-assign]
        assert runner.call(wait_for(step)) == 1
    assert runner.call(echo(runner, 2)) == 2


@pytest.mark.usefixtures("left_alone")
def test_what_is_posted_while_nobody_drives_is_done(runner: Runner) -> None:
    for _ in range(50):
        driving(runner)
        assert runner.driver._driver is None
        done = threading.Event()
        runner.driver.post(done.set)
        assert done.wait(20)


def test_what_is_posted_from_everywhere_is_done_once_and_in_order(runner: Runner) -> None:
    got: dict[int, list[int]] = {seed: [] for seed in range(6)}

    def post(seed: int) -> None:
        for number in range(500):
            runner.driver.post(lambda number=number: got[seed].append(number))  # type: ignore[misc]
            if number % 50 == 0:
                runner.call(echo(runner, None))

    together(*(lambda seed=seed: post(seed) for seed in got))
    eventually(lambda: all(numbers == list(range(500)) for numbers in got.values()))


def test_what_is_mentioned_starts_nothing(runner: Runner) -> None:
    mentioned = threading.Event()
    runner.driver.mention(mentioned.set)
    assert threads(runner.driver) == []
    runner.call(echo(runner, None))
    runner.driver.mention(mentioned.set)
    assert mentioned.wait(20)


# ---------------------------------------------------------------------- time and faults


@pytest.mark.parametrize("beside", [0, 3])
def test_a_step_that_never_ends_is_left_at_its_deadline(make_runner: Make, beside: int) -> None:
    runner = make_runner(timeout=0.1)

    def give_up() -> None:
        step = Echo(runner.driver, None, None)
        with pytest.raises(NotConnected):
            runner.call(wait_for(step))
        assert time.monotonic() >= step.deadline

    together(*[give_up] * (1 + beside))
    give_up()


async def test_an_await_of_what_never_ends_is_left_at_its_deadline(make_runner: Make) -> None:
    runner = make_runner(timeout=0.1)
    with pytest.raises(NotConnected):
        await runner.acall(echo(runner, None, None))


async def test_a_cancelled_await_abandons_its_step(runner: Runner) -> None:
    step = Echo(runner.driver, None, None)
    task = asyncio.create_task(runner.acall(wait_for(step)))
    await aeventually(lambda: runner.driver._awaiting == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert step.abandoned


def test_a_step_that_cannot_begin_leaves_the_loop_free(runner: Runner) -> None:
    step = Echo(runner.driver, None)
    step.begin = lambda _: 1 / 0  # type: ignore[assignment, method-assign]
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            runner.call(wait_for(step))
        assert runner.call(echo(runner, 1)) == 1
    assert step.abandoned


def test_an_error_of_a_step_is_thrown_into_its_operation(runner: Runner) -> None:
    step = Echo(runner.driver, None, None)

    def operation() -> Generator[Any, Any, str]:
        step.then = lambda: step.answer(NotConnected("gone"))
        try:
            yield step
        except NotConnected as error:
            yield Echo(runner.driver, None)
            return str(error)
        raise AssertionError

    assert runner.call(operation()) == "gone"


def test_a_call_from_the_loop_itself_is_refused(runner: Runner) -> None:
    caught: list[UsageError] = []

    def call() -> None:
        try:
            runner.call(echo(runner, 1))
        except UsageError as error:
            caught.append(error)

    runner.driver.post(call)
    eventually(lambda: caught)


@pytest.mark.usefixtures("left_alone")
def test_an_exception_that_breaks_into_the_loop_is_told_and_reaches_the_caller(make_runner: Make) -> None:
    """asyncio lets a SystemExit of a callback out of the loop, whoever drives it."""
    told = threading.Event()
    runner = make_runner(interrupted=told.set)

    def leave() -> None:
        raise SystemExit

    driving(runner)
    step = Echo(runner.driver, None)
    step.answer = leave  # type: ignore[assignment]
    with pytest.raises(SystemExit):
        runner.call(wait_for(step))
    assert told.wait(20)
    assert step.abandoned
    assert runner.call(echo(runner, 1)) == 1


class LateEcho(Echo):
    """A step that ends just after it was found not to be over: its deadline is asked for then."""

    @property
    def deadline(self) -> float:
        if self.roused:
            self.roused = False
            self.answer()
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline = deadline

    roused = False


def late_after_a_signal(runner: Runner) -> None:
    """Have a step end just after a signal's handler has run and the step was found not to be over."""
    step = LateEcho(runner.driver, "late", None)

    def note(*_: Any) -> None:
        step.roused = True

    before = signal.signal(signal.SIGUSR1, note)
    try:
        step.then = lambda: os.kill(os.getpid(), signal.SIGUSR1)
        assert runner.call(wait_for(step)) == "late"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_step_that_ends_between_a_signal_and_the_next_wait_is_not_waited_for(runner: Runner) -> None:
    late_after_a_signal(runner)


async def test_nor_is_it_by_a_thread_that_waits_while_another_one_drives(runner: Runner) -> None:
    late_after_a_signal(runner)  # an event loop runs here: the keeper drives


def test_a_post_to_a_loop_that_has_just_been_closed_goes_to_the_next(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = runner.driver
    runner.call(echo(runner, 1))
    closed = driver._loop
    driver.stop(nothing)
    found, real = [closed], driver._running_loop
    monkeypatch.setattr(driver, "_running_loop", lambda: found.pop() if found else real())
    done = threading.Event()
    driver.post(done.set)
    assert done.wait(20)


def test_a_post_that_fails_does_not_keep_the_next_from_waking_the_loop(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError

    runner.call(echo(runner, 1))
    done = [threading.Event(), threading.Event()]
    with monkeypatch.context() as patch:
        patch.setattr(runner.driver._loop, "call_soon_threadsafe", fail)
        with pytest.raises(RuntimeError):
            runner.driver.post(done[0].set)
    runner.driver.post(done[1].set)
    assert all(one.wait(20) for one in done)


# ---------------------------------------------------------------------- the end


def test_those_who_wait_are_told_when_it_is_stopped_and_it_can_be_used_again(runner: Runner) -> None:
    driver = runner.driver
    steps = [Echo(driver, number, None) for number in range(6)]
    ended: list[int] = []
    begun: list[int] = []
    for step in steps:
        step.then = partial(begun.append, step.value)

    def block(step: Echo) -> None:
        with pytest.raises(NotConnected):
            runner.call(wait_for(step))
        ended.append(step.value)

    async def closing() -> None:
        for step in steps:
            step.answer(NotConnected("closed"))

    def stop() -> None:
        eventually(lambda: len(begun) == len(steps))
        driver.stop(closing)

    for _ in range(3):
        ended.clear()
        begun.clear()
        together(stop, *(lambda step=step: block(step) for step in steps))
        assert sorted(ended) == list(range(6))
        eventually(lambda: not threads(driver))
        assert runner.call(echo(runner, "again")) == "again"
        assert len(threads(driver)) == 1


def test_a_call_while_another_thread_stops_it_is_answered(runner: Runner) -> None:
    over = threading.Event()

    def stop() -> None:
        while not over.is_set():
            runner.driver.stop(nothing)

    def call() -> None:
        try:
            for number in range(400):
                assert runner.call(echo(runner, number)) == number
        finally:
            over.set()

    together(stop, call, call)


def test_what_is_stopped_twice_or_was_never_begun_stays_stopped(runner: Runner) -> None:
    runner.driver.stop(nothing)
    runner.call(echo(runner, 1))
    runner.driver.stop(nothing)
    runner.driver.stop(nothing)
    eventually(lambda: threads(runner.driver) == [])
    assert not runner.driver.is_begun


def test_it_can_be_stopped_from_its_own_loop(runner: Runner) -> None:
    runner.call(echo(runner, 1))
    runner.driver.post(lambda: runner.driver.stop(nothing))
    eventually(lambda: not threads(runner.driver))
    assert runner.call(echo(runner, 2)) == 2


def test_tasks_of_the_loop_are_cancelled_with_it(runner: Runner) -> None:
    cancelled = threading.Event()

    async def endless() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        cancelled.set()

    tasks: list[Any] = []
    runner.driver.post(lambda: tasks.append(asyncio.get_running_loop().create_task(endless())))
    eventually(lambda: tasks)
    runner.driver.stop(nothing)
    assert cancelled.wait(20)


def test_so_are_those_that_are_begun_while_it_ends(runner: Runner) -> None:
    """Not left to be collected, of which asyncio would warn."""
    ended: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def endless(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
            if number < 3:
                begin(number + 1)
                await asyncio.sleep(0)  # the new one is let begin

    def begin(number: int) -> None:
        tasks.append(asyncio.get_running_loop().create_task(endless(number)))

    runner.driver.post(partial(begin, 1))
    eventually(lambda: tasks)
    runner.driver.stop(nothing)
    eventually(lambda: not threads(runner.driver))
    assert (ended, [task.cancelled() for task in tasks]) == ([1, 2, 3], [True] * 3)
