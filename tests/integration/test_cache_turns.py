"""Callers of one process who change the same key: one after the other, with few requests, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, counters, turns
from django_natskv.cache.place import Place
from tests.fix_cache import PROGRAM
from tests.fix_waiting import aeventually


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


@pytest.fixture
def other(plain: NatsKVCache) -> NatsKVCache:
    """The same bucket, as another process sees it."""
    other = NatsKVCache(plain._location, {"OPTIONS": {"COMPRESS_MIN": 7}})
    assert other._place is not plain._place
    return other


@pytest.fixture
def asked(plain: NatsKVCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bucket is asked for."""
    names: list[str] = []
    ask = Place.ask

    def spied(self: Place, name: str, *given: Any, **options: Any) -> Any:
        names.append(name)
        return ask(self, name, *given, **options)

    plain.get("opened")
    monkeypatch.setattr(Place, "ask", spied)
    return names


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that holds a caller up for a while makes nobody go on without a turn, nor a sum too old to build on."""
    monkeypatch.setattr(counters, "RECENT", 60)
    monkeypatch.setattr(turns, "LONGEST_WAIT", 50)


def at_once(number: int, do: Any) -> None:
    together = threading.Barrier(number)

    def work() -> None:
        together.wait()
        do()

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---------------------------------------------------------------------- counting on


@pytest.mark.usefixtures("patient")
def test_who_counts_alone_asks_once_a_count(plain, asked):
    plain.set("k", 0, 100)
    ends = plain.get_entry("k").expires
    asked.clear()
    assert [plain.incr("k") for _ in range(6)] == [1, 2, 3, 4, 5, 6]
    assert asked == ["get", "update", "get", "update", *["update"] * 4]
    assert plain.get_entry("k").expires == ends


@pytest.mark.usefixtures("patient")
def test_threads_that_count_on_one_key_do_not_get_in_each_others_way(plain, asked):
    plain.set("k", 0, None)
    asked.clear()
    at_once(8, lambda: [plain.incr("k") for _ in range(20)])
    assert plain.get("k") == 160
    assert asked.count("update") == 160
    assert asked.count("get") <= 3


@pytest.mark.usefixtures("patient")
async def test_tasks_that_count_on_one_key_do_not_get_in_each_others_way(plain, asked):
    await plain.aset("k", 0, None)
    asked.clear()
    counts = await asyncio.gather(*(plain.aincr("k") for _ in range(32)))
    assert sorted(counts) == list(range(1, 33))
    assert asked.count("update") == 32


def test_what_others_wrote_meanwhile_is_counted_on(plain, other, asked, monkeypatch):
    monkeypatch.setattr(counters, "RECENT", 60)
    plain.set("k", 0, 100)
    for number in range(0, 50, 10):
        assert [plain.incr("k") for _ in range(4)] == [number + 1, number + 2, number + 3, number + 4]
        other.set("k", number + 10, 100)
    assert plain.incr("k") == 51
    other.delete("k")
    with pytest.raises(ValueError, match="not found"):
        plain.incr("k")


def test_who_does_not_count_alone_reads_first(plain, other, asked, monkeypatch):
    monkeypatch.setattr(counters, "RECENT", 60)
    plain.set("k", 0, 100)
    for _ in range(5):
        plain.incr("k")
        other.incr("k")
    asked.clear()
    assert plain.incr("k") == 11
    assert asked == ["get", "update"]


def test_nothing_is_counted_on_for_long(plain, asked, monkeypatch):
    plain.set("k", 0, 100)
    for _ in range(3):
        plain.incr("k")
    monkeypatch.setattr(counters, "RECENT", 0)
    asked.clear()
    plain.incr("k")
    assert asked == ["get", "update"]


def test_what_has_expired_is_not_counted_on(plain, monkeypatch):
    monkeypatch.setattr(counters, "RECENT", 60)
    plain.set("k", 0, 100)
    for _ in range(3):
        plain.incr("k")
    plain._place.clock._ahead += 1_000  # by the server's time it has, and the server has yet to notice
    with pytest.raises(ValueError, match="not found"):
        plain.incr("k")


def test_what_was_cleared_is_not_counted_on(plain, monkeypatch):
    monkeypatch.setattr(counters, "RECENT", 60)
    plain.set("k", 0, 100)
    for _ in range(3):
        plain.incr("k")
    plain.clear()
    with pytest.raises(ValueError, match="not found"):
        plain.incr("k")


def test_what_comes_back_after_a_crash_is_read_each_time(natskv, bucket_name, asked, monkeypatch):
    monkeypatch.setattr(counters, "RECENT", 60)
    file = NatsKVCache(f"{bucket_name}-file", {"OPTIONS": {"BUCKET": {"storage": "file"}}})
    file.set("k", 0, 100)
    for _ in range(4):
        file.incr("k")
    asked.clear()
    assert file.incr("k") == 5
    assert "update" in asked
    assert {"get", "get_many"} & set(asked)


def test_what_is_no_whole_number_is_read_each_time(plain, asked):
    plain.set("k", 0.5, 100)
    assert [plain.incr("k") for _ in range(4)] == [1.5, 2.5, 3.5, 4.5]
    assert asked.count("get") == 4


def test_what_may_be_added_is_told_by_what_is_there_and_not_by_the_last_sum(plain):
    plain.set("k", 0)
    for _ in range(3):
        plain.incr("k")
    plain.set("k", "a")
    assert plain.incr("k", "b") == "ab"


# ---------------------------------------------------------------------- turns


@pytest.mark.usefixtures("patient")
def test_threads_that_touch_one_key_each_need_one_try(plain, asked):
    plain.set("k", "value", 100)
    asked.clear()
    at_once(8, lambda: [plain.touch("k", 200) for _ in range(10)])
    assert asked.count("update") == 80


def test_a_turn_that_never_comes_is_not_waited_for(plain, monkeypatch):
    monkeypatch.setattr(turns, "LONGEST_WAIT", 0.05)
    plain.set("k", 1, 100)
    line = plain._store.turns
    assert line._enter(plain._name("k", None)) is None  # somebody who never leaves
    assert plain.incr("k") == 2
    assert line._lines == {}  # and no second time
    assert line._enter(plain._name("k", None)) is None
    assert asyncio.run(plain.aincr("k")) == 3
    assert line._lines == {}


async def test_a_thread_does_not_wait_for_a_task_of_its_own_loop(plain):
    await plain.aset("k", 1, 100)
    line = plain._store.turns
    name = plain._name("k", None)
    assert line._enter(name) is None
    assert plain.incr("k") == 2
    line._leave(name)
    assert line._lines == {}


@pytest.mark.usefixtures("patient")
async def test_a_task_that_is_cancelled_leaves_the_line(plain):
    await plain.aset("k", 1, 100)
    line = plain._store.turns
    name = plain._name("k", None)
    assert line._enter(name) is None
    tasks = [asyncio.create_task(plain.aincr("k")) for _ in range(3)]
    await aeventually(lambda: len(line._lines[name]) == 3)
    tasks[0].cancel()
    line._leave(name)  # to the first or, if that is gone already, to the second
    counts = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(counts[0], asyncio.CancelledError)
    assert set(counts[1:]) == {2, 3}
    assert line._lines == {}


CODE = (
    PROGRAM
    + """
cache.set("k", 1)
name = cache._name("k", None)
cache._store.turns._enter(name)
if not (child := os.fork()):
    cache.incr("k")
    os._exit(0 if cache._store.turns._lines == {} else 1)
status = os.waitpid(child, 0)[1]
print(json.dumps([status, name in cache._store.turns._lines]), flush=True)
"""
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_waits_for_nobody_who_stayed_in_the_parent(natskv, bucket_name, program):
    started = program(CODE, {"default": dict(natskv)}, TEST_BUCKET=bucket_name, TEST_PARAMS=json.dumps({}))
    assert started.read() == [0, True]
