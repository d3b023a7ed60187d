"""get_or_set: one callable a process and key at a time, and one in all processes where that is asked for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, once, steps
from django_natskv.cache.once import Flight, Flights
from django_natskv.cache.steps import Pause, arun, run
from tests.fix_cache import PROGRAM
from tests.fix_interrupts import interrupted_at
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


class Counting:
    """A callable that counts its calls and is let go by the test."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.calls = 0
        self.may_go = threading.Event()

    def __call__(self) -> Any:
        self.calls += 1
        assert self.may_go.wait(30)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def waiting(cache: NatsKVCache, count: int) -> None:
    """Wait until ``count`` callers wait for the value of "k"."""
    [flights] = [store.flights for store in cache._place.stores.values()]
    eventually(lambda: flights._waiting >= count, 30)


def test_a_value_is_made_when_it_is_missing_and_then_kept(cache):
    assert cache.get_or_set("k", lambda: [1], 100) == [1]
    assert cache.get_or_set("k", lambda: [2], 100) == [1]
    assert cache.get_or_set("plain", 5) == 5
    assert cache.get_or_set("none", lambda: None) is None
    assert cache.get_or_set("none", lambda: 7) is None


def test_threads_wait_for_the_one_that_makes_it_and_get_copies(plain):
    make = Counting([1])
    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(plain.get_or_set, "k", make) for _ in range(8)]
        waiting(plain, 7)
        make.may_go.set()
        values = [result.result(40) for result in results]
    assert values == [[1]] * 8
    assert make.calls == 1
    values[0].append(2)
    assert values[1:] == [[1]] * 7


async def test_tasks_wait_for_the_one_that_makes_it(plain):
    calls = 0
    may_go = asyncio.Event()

    async def make() -> Any:
        nonlocal calls
        calls += 1
        await may_go.wait()
        return {"made": True}

    tasks = [asyncio.create_task(plain.aget_or_set("k", make)) for _ in range(5)]
    await aeventually(lambda: plain._store.flights._waiting == 4)
    may_go.set()
    assert await asyncio.gather(*tasks) == [{"made": True}] * 5
    assert calls == 1


def test_a_callable_that_fails_hands_over_to_the_next(plain):
    make = Counting(ZeroDivisionError(), 7)
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(plain.get_or_set, "k", make) for _ in range(3)]
        waiting(plain, 2)
        make.may_go.set()
        errors = [result.exception(40) for result in results]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "NoneType", "ZeroDivisionError"]
    assert [result.result() for result, error in zip(results, errors, strict=True) if error is None] == [7, 7]
    assert make.calls == 2


def test_who_would_take_over_too_late_finds_what_was_made_meanwhile(plain, monkeypatch):
    make = Counting(ZeroDivisionError(), 7)
    made = threading.Event()
    again: list[int] = []
    whole = Flights._join

    def join(self: Flights, name: str, own: Flight) -> Any:
        me = threading.get_ident()
        if me in joined:
            again.append(me)
            if me != again[0]:
                assert made.wait(30)
        joined.add(me)
        return whole(self, name, own)

    joined: set[int] = set()
    monkeypatch.setattr(Flights, "_join", join)
    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(plain.get_or_set, "k", make) for _ in range(3)]
        waiting(plain, 2)
        make.may_go.set()
        eventually(lambda: plain.get("k") == 7)
        made.set()
        assert sorted(str(result.exception(40)) for result in results) == ["", "None", "None"]
    assert make.calls == 2


def test_a_caller_that_is_interrupted_at_any_point_keeps_nobody_waiting(plain, monkeypatch):
    flights = plain._store.flights
    join = flights._join

    def interrupted(*args: Any) -> Any:
        join(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(flights, "_join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plain.get_or_set("k", lambda: 1)
    monkeypatch.undo()
    assert flights._flights == {}
    assert plain.get_or_set("k", lambda: 2) == 2


def test_wherever_who_makes_a_value_is_interrupted_nobody_is_left_waiting():
    flights = Flights()
    waiters: list[threading.Thread] = []

    def make_too(_: Flight) -> Generator[Pause, Any, int]:
        yield Pause(0)
        return 2

    def make(_: Flight) -> Generator[Pause, Any, int]:
        waiters.append(threading.Thread(target=lambda: run(flights.once("k", make_too, lambda _: 0)), daemon=True))
        waiters[-1].start()
        eventually(lambda: flights._waiting == 1)
        yield Pause(0)
        return 1

    moments = 0
    while interrupted_at(moments + 1, lambda: run(flights.once("k", make, lambda _: 0)), once, steps):
        moments += 1
        for waiter in waiters:
            waiter.join(30)
        assert not any(waiter.is_alive() for waiter in waiters)
        assert flights._flights == {}
        assert once._chain.get() == ()
    assert moments > len(waiters) > 10


@pytest.mark.parametrize("carry_out", [run, lambda operation: asyncio.run(arun(operation))])
def test_an_operation_that_is_interrupted_between_two_steps_is_over_at_once(carry_out):
    over: list[bool] = []

    def waiting() -> Generator[Pause, Any, None]:
        try:
            yield Pause(0)
        finally:
            over.append(True)

    class Interrupted:
        """An operation, as what carries it out sees it when a signal's handler raises there."""

        def __init__(self) -> None:
            self.operation: Any = waiting()
            self.close = self.operation.close

        def __next__(self) -> Any:
            return next(self.operation)

        def send(self, result: Any) -> Any:
            raise ZeroDivisionError

    operation = Interrupted()  # still known: it is not over by being collected
    with pytest.raises(ZeroDivisionError):
        carry_out(operation)
    assert over


def test_a_waiter_that_is_cancelled_leaves_the_others_waiting(plain):
    async def main() -> None:
        may_go = asyncio.Event()

        async def make() -> int:
            await may_go.wait()
            return 1

        first = asyncio.create_task(plain.aget_or_set("k", make))
        second = asyncio.create_task(plain.aget_or_set("k", make))
        third = asyncio.create_task(plain.aget_or_set("k", make))
        await aeventually(lambda: plain._store.flights._waiting == 2)
        second.cancel()
        await asyncio.wait([second])
        may_go.set()
        assert await first == await third == 1

    asyncio.run(main())


def test_the_callable_may_ask_for_the_same_key(plain):
    assert plain.get_or_set("k", lambda: plain.get_or_set("k", lambda: 1) + 1) in (1, 2)
    assert asyncio.run(plain.aget_or_set("l", lambda: plain.aget_or_set("l", lambda: 1))) == 1


def test_callables_that_ask_for_each_others_key_do_not_wait_for_ever(plain):
    both = threading.Barrier(2, timeout=30)

    def make(other: str) -> Any:
        both.wait()
        return plain.get_or_set(other, lambda: "inner")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(plain.get_or_set, "a", lambda: make("b"))
        two = pool.submit(plain.get_or_set, "b", lambda: make("a"))
        assert {one.result(40), two.result(40)} == {"inner"}


def test_a_blocking_call_on_the_loop_that_makes_the_value_does_not_wait_for_itself(plain):
    async def main() -> None:
        begun, may_go = asyncio.Event(), asyncio.Event()

        async def make() -> int:
            begun.set()
            await may_go.wait()
            return 1

        task = asyncio.create_task(plain.aget_or_set("k", make))
        await begun.wait()
        assert plain.get_or_set("k", lambda: 2) == 2
        may_go.set()
        assert await task == 2  # everybody gets what is stored

    asyncio.run(main())


def test_with_lock_one_process_makes_it(natskv, program, bucket_name):
    code = (
        PROGRAM
        + """
sys.stdin.readline()
def make():
    cache.incr("calls")
    time.sleep(0.3)
    return "made"
print(json.dumps(cache.get_or_set("k", make, lock=True)), flush=True)
"""
    )
    cache = NatsKVCache(bucket_name, {})
    cache.set("calls", 0)
    programs = [program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name) for _ in range(3)]
    for each in programs:
        each.tell()
    assert [each.read() for each in programs] == ["made"] * 3
    assert cache.get("calls") == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_is_forked_while_a_value_is_made_does_not_wait_for_it(natskv, program, bucket_name):
    code = (
        PROGRAM
        + """
begun, may_go = threading.Event(), threading.Event()
def make():
    begun.set()
    may_go.wait()
    return "parent"
thread = threading.Thread(target=cache.get_or_set, args=("k", make))
thread.start()
begun.wait()
child = os.fork()
if not child:
    os._exit(0 if cache.get_or_set("k", lambda: "child") == "child" else 1)
status = os.waitpid(child, 0)[1]
may_go.set()
thread.join()
print(json.dumps([status, cache.get("k")]), flush=True)
"""
    )
    assert program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name).read() == [0, "child"]
