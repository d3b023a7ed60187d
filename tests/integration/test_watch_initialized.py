"""``initialized`` is done when everything that was in the bucket at the start has been told, and never before."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.kv import _breath
from django_natskv.kv._nats import flow
from django_natskv.kv.watch import _Teller
from tests.chaos.writers import Filler, Overwriter
from tests.fix_facade import ConnectKV
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually
from tests.integration.watching import Stopwatch, Told, held, patient, purge, ready


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)


@pytest.fixture
def connection(connect_kv: ConnectKV) -> kv.Connection:
    return connect_kv(connect_timeout=30.0, request_timeout=30.0)


@pytest.fixture
def place(connection: kv.Connection, bucket_name: str) -> Iterator[Any]:
    context = connection.kv()
    yield context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    context.delete_bucket(bucket_name)


def test_on_an_empty_bucket_at_once(place, monkeypatch):
    steps: list[str] = []
    wait, replace = flow.Flow.next, _Teller.replace

    async def waiting(self: Any, *arguments: Any) -> Any:
        if self._what.endswith(repr(place.name)):
            steps.append("waits for a delivery")
        return await wait(self, *arguments)

    def complete(self: Any, replay: Any) -> None:
        if self._core.name == place.name:
            steps.append("complete")
        replace(self, replay)

    monkeypatch.setattr(flow.Flow, "next", waiting)
    monkeypatch.setattr(_Teller, "replace", complete)
    told = Told()
    ready(place.watch(told))
    assert steps[0] == "complete"
    assert not told.entries


def test_on_a_bucket_that_ends_in_ignored_markers(place):
    place.put("a", 1)
    for number in range(20):
        place.put(f"k{number}", 1)
        place.delete(f"k{number}")
    told = Told()
    ready(place.watch(told, ignore_deletes=True))
    assert told.brief == [("a", 1)]


def test_on_a_bucket_of_nothing_but_markers(place):
    for number in range(20):
        place.put(f"k{number}", 1)
        place.delete(f"k{number}")
    told = Told()
    ready(place.watch(told, ignore_deletes=True))
    assert not told.entries


def test_where_no_key_matches(place):
    place.put("a", 1)
    told = Told()
    ready(place.watch(told, keys=["b.>", "c"]))
    assert not told.entries


@pytest.mark.slow
@pytest.mark.timeout(180)  # 250 watches, of half a second each at most on any machine
@pytest.mark.parametrize("keys", [None, "k.*"])
def test_never_early_on_a_bucket_that_is_written_to_all_the_time(place, nats_server: NatsServer, keys):
    # The keys move on to newer revisions while they are replayed, which makes "nothing pending" true too early.
    names = [f"k.{number}" for number in range(50)]
    for name in names:
        place.put(name, 0)
    with Overwriter([nats_server.url], place.name, names):
        times = []
        for _ in range(250):
            told = Told()
            clock = Stopwatch()
            watch = place.watch(told, keys=keys)
            ready(watch)
            times.append(clock.seconds)
            assert {entry.key for entry in told.entries} >= set(names)
            watch.stop()
    assert sorted(times)[len(times) // 2] < 0.5


@pytest.mark.slow
@pytest.mark.timeout(180)  # 30 watches of a bucket that grows by a thousand keys a second, all listed before each
def test_in_time_on_a_bucket_that_gets_new_keys_all_the_time(place, nats_server: NatsServer):
    with Overwriter([nats_server.url], place.name, [f"k{number}" for number in range(100_000)]) as writers:
        eventually(lambda: writers.changes > 300, 30)
        for _ in range(30):
            there = set(place.keys())
            told = Told()
            watch = place.watch(told)
            ready(watch)
            assert {entry.key for entry in told.entries} >= there
            watch.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)  # a very busy machine needs a while for so many writes
def test_on_a_bucket_of_100_000_keys_while_other_threads_keep_their_pace(place, nats_server: NatsServer, monkeypatch):
    with Filler([nats_server.url], place.name) as filler:
        filler.fill(f"k.{number}" for number in range(100_000))
    told = Told()
    # Where a thread lets go of the interpreter, and not when another one gets it: that is the machine's to say.
    let_go: list[tuple[str, int]] = []

    def sleep(seconds: float) -> None:
        let_go.append((threading.current_thread().name, len(told.held)))
        time.sleep(seconds)

    clock = SimpleNamespace(thread_time=time.thread_time, monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(_breath, "time", clock)
    ready(place.watch(told))
    assert len(told.held) == 100_000
    handlers = f"natskv-watch-{place.name}"
    turns = [0, *(seen for thread, seen in let_go if thread == handlers), 100_000]
    # Counted in entries and not in seconds, which are the machine's.
    assert max(later - earlier for earlier, later in itertools.pairwise(turns)) < 20_000
    assert sum(thread != handlers for thread, _ in let_go) > 20, "nor does the thread that parses them keep it"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["filter", "deletes"])
def test_on_a_bucket_that_is_purged_during_the_replay(place, connection, nats_server: NatsServer, how):
    with Filler([nats_server.url], place.name) as filler:
        filler.fill(f"k.{number}" for number in range(20_000))
    if how == "deletes":
        for number in range(2_000):
            place.delete(f"k.{number}")
    told = Told()
    watch = place.watch(told)
    if how == "filter":
        for number in range(10_000, 20_000, 100):
            purge(connection, place.name, f"k.{number}")
    else:
        place.purge_deletes()
    ready(watch)
    assert len({entry.key for entry in told.entries}) >= 17_900
    eventually(lambda: told.held == held(place), 30, "it hears of what vanished")


def test_not_before_a_slow_handler_has_been_told(place):
    for number in range(20):
        place.put(f"k{number}", 1)
    told = Told()

    def handler(entry: kv.Entry) -> None:
        time.sleep(0.005)
        told(entry)

    ready(place.watch(handler))
    assert len(told.entries) == 20


def test_updates_at_once(place):
    place.put("a", 1)
    assert place.watch(Told(), deliver="updates").initialized.done()
