"""What a watch delivers, to whom, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.exceptions import BucketNotFound, CodecError, InvalidDeliver, InvalidKeys, UsageError
from tests.fix_facade import ConnectKV
from tests.fix_servers import NatsServer
from tests.fix_waiting import aeventually, eventually
from tests.integration.watching import Told, complaints, patient, ready, threads


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def filled(bucket: Any) -> Any:
    """A bucket with two revisions of "a", a live "b.c" and a deleted "b.d"."""
    bucket.put("a", 1)
    bucket.put("a", 2)
    bucket.put("b.c", 3)
    bucket.put("b.d", 4)
    bucket.delete("b.d")
    return bucket


# --- deliver modes, patterns, markers ---


def test_latest_begins_with_the_newest_entry_of_each_key(filled, told):
    ready(filled.watch(told))
    assert told.brief == [("a", 2), ("b.c", 3), ("b.d", "delete")]
    filled.put("a", 5)
    filled.purge("b.c")
    eventually(lambda: told.brief[3:] == [("a", 5), ("b.c", "purge")])


def test_history_begins_with_all_that_is_kept(filled, told):
    ready(filled.watch(told, deliver="history"))
    assert told.brief == [("a", 1), ("a", 2), ("b.c", 3), ("b.d", 4), ("b.d", "delete")]
    assert [entry.delta for entry in told.entries] == [1, 0, 0, 1, 0]


def test_updates_begin_with_nothing(filled, told):
    watch = filled.watch(told, deliver="updates")
    assert watch.initialized.done()
    revision = filled.put("a", 6)
    eventually(lambda: told.brief == [("a", 6)])
    assert told.entries[0].revision == revision
    assert told.entries[0].delta == 0


def test_no_update_is_missed_between_the_call_and_the_replay(make_bucket, told):
    bucket = make_bucket()
    for number in range(50):
        bucket.put(f"old.{number}", number)
    watches = []
    for round_ in range(20):
        one = Told()
        watches.append(one)
        bucket.watch(one, deliver="updates")
        bucket.put("new", round_)
    for round_, one in enumerate(watches):
        eventually(lambda: ("new", 19) in one.brief)  # noqa: B023
        # Of a key that moves on before the replay its newest revision is told.
        assert {key for key, _ in one.brief} == {"new"}
        numbers = [number for _, number in one.brief]
        assert numbers == sorted(set(numbers))
        assert numbers[0] >= round_


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("a", ["a"]),
        ("b.*", ["b.c", "b.d"]),
        (["a", "b.c"], ["a", "b.c"]),
        (["b.>", "b.c", "*.c"], ["b.c", "b.d", "x.c"]),
        (["b.*", "*.c"], ["b.c", "b.d", "x.c"]),
        ([">", "a"], ["a", "b.c", "b.d", "x.c", "x.y"]),
    ],
)
def test_patterns_are_united_and_each_entry_told_once(bucket, told, keys, expected):
    everything = ["a", "b.c", "b.d", "x.c", "x.y"]
    for key in everything:
        bucket.put(key, 1)
    ready(bucket.watch(told, keys=keys))
    assert [key for key, _ in told.brief] == expected
    for key in everything:
        bucket.put(key, 2)
    eventually(lambda: len(told.entries) == 2 * len(expected))
    assert told.brief[len(expected) :] == [(key, 2) for key in expected]


def test_ignored_markers_are_not_told_and_do_not_delay(filled, told):
    filled.put("z", 1)
    filled.delete("z")
    ready(filled.watch(told, ignore_deletes=True))
    assert told.brief == [("a", 2), ("b.c", 3)]
    filled.delete("a")
    filled.put("a", 7)
    eventually(lambda: told.brief[2:] == [("a", 7)])


def test_mistakes_are_raised_before_anything_is_sent(bucket, told, nats_server):
    with pytest.raises(InvalidDeliver):
        bucket.watch(told, deliver="all")
    with pytest.raises(InvalidKeys):
        bucket.watch(told, keys=[])
    with pytest.raises(UsageError, match="handler"):
        bucket.watch(None)
    with pytest.raises(UsageError, match="on_error"):
        bucket.watch(told, on_error=5)
    assert not threads(bucket)


def test_a_bucket_that_is_gone_is_said_to_be(bucket, context, told):
    context.delete_bucket(bucket.name)
    with pytest.raises(BucketNotFound):
        bucket.watch(told)
    assert not threads(bucket)


# --- handlers ---


def test_delivery_is_serial_and_a_plain_handler_runs_off_the_loop(bucket):
    running, most, names = 0, 0, set()

    def handler(_entry: kv.Entry) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        names.add(threading.current_thread().name)
        time.sleep(0.001)  # to be interrupted in
        running -= 1

    for number in range(50):
        bucket.put(f"k{number}", number)
    ready(bucket.watch(handler))
    assert most == 1
    assert names == {f"natskv-watch-{bucket.name}"}


def test_a_plain_handler_may_call_the_bucket_and_begin_and_stop_watches(bucket, told):
    inner: list[kv.Watch] = []

    def handler(entry: kv.Entry) -> None:
        bucket.plain.put("from-handler", entry.value + 1)
        inner.append(bucket.plain.watch(told, keys="from-handler"))
        ready(inner[0])
        outer[0].stop()
        outer[0].stop()

    outer: list[kv.Watch] = []
    gate = threading.Event()

    def first(entry: kv.Entry) -> None:
        assert gate.wait(30)
        handler(entry)

    bucket.put("a", 1)
    outer.append(bucket.watch(first))
    gate.set()
    eventually(lambda: told.brief == [("from-handler", 2)])
    eventually(lambda: len(threads(bucket)) == 1, 30, "the outer watch's thread ends")
    inner[0].stop()


def test_what_a_handler_returns_is_awaited_before_the_next_entry(bucket):
    log: list[tuple[str, str]] = []

    async def handler(entry: kv.Entry) -> None:
        log.append(("begin", entry.key))
        await asyncio.sleep(0.01)
        log.append(("end", entry.key))

    for key in "abc":
        bucket.put(key, 1)
    ready(bucket.plain.watch(handler))
    assert log == [(what, key) for key in "abc" for what in ("begin", "end")]


async def test_awaitables_are_awaited_on_the_loop_where_the_watch_was_begun(connect_kv: ConnectKV, bucket_name):
    context = await connect_kv().akv()
    bucket = await context.acreate_bucket({"bucket": bucket_name, "storage": "memory"})
    await bucket.aput("a", 1)
    loops = []

    async def handler(entry: kv.Entry) -> None:
        loops.append(asyncio.get_running_loop())
        if entry.key == "a":
            await bucket.aput("b", entry.value + 1)

    watch = await bucket.awatch(handler)
    await asyncio.wrap_future(watch.initialized)
    await aeventually(lambda: len(loops) == 2)
    assert set(loops) == {asyncio.get_running_loop()}
    watch.stop()
    await context.adelete_bucket(bucket_name)


def test_a_watch_whose_loop_is_closed_ends(connect_kv: ConnectKV, bucket_name, caplog):
    bucket = connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory"})

    async def handler(_entry: kv.Entry) -> None:
        """Not awaited by anybody any more."""

    async def begin() -> kv.Watch:
        return await bucket.awatch(handler)

    asyncio.run(begin())
    bucket.put("a", 1)
    eventually(lambda: not threads(bucket), 30, "nobody is left to be told")
    [complaint] = complaints(caplog, bucket)
    assert "ends: the event loop" in complaint


def test_a_watch_whose_loop_is_closed_before_it_comes_to_the_handler_ends(connect_kv: ConnectKV, bucket_name, caplog):
    """Without a warning of Python's about a coroutine that was never awaited, which fails a test."""
    bucket = connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    called = threading.Event()

    async def later() -> None:
        """Not awaited by anybody any more."""

    def handler(_entry: kv.Entry) -> Coroutine[Any, Any, None]:
        called.set()
        return later()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(bucket.awatch(handler))
    scheduled = len(loop._ready)  # type: ignore[attr-defined]
    bucket.put("a", 1)
    assert called.wait(30)
    eventually(lambda: len(loop._ready) > scheduled)  # type: ignore[attr-defined]
    loop.close()
    eventually(lambda: not threads(bucket), 30, "nobody is left to be told")
    gc.collect()
    assert any("ends: the event loop" in complaint for complaint in complaints(caplog, bucket))


def test_a_watch_whose_loop_is_closed_under_its_handler_ends(connect_kv: ConnectKV, bucket_name, caplog):
    bucket = connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", 1)
    loop = asyncio.new_event_loop()
    begun = asyncio.Event()
    never: asyncio.Future[None] = loop.create_future()

    def handler(_entry: kv.Entry) -> asyncio.Future[None]:
        loop.call_soon_threadsafe(begun.set)
        return never

    async def begin() -> None:
        await bucket.awatch(handler)
        await begun.wait()

    loop.run_until_complete(begin())
    loop.close()
    eventually(lambda: not threads(bucket), 30, "nobody is left to be told")
    assert any("ends: the event loop" in complaint for complaint in complaints(caplog, bucket))


# --- errors ---


def test_a_handlers_error_goes_to_on_error_and_not_to_the_log(bucket, caplog):
    errors: list[Exception] = []

    def handler(entry: kv.Entry) -> None:
        raise ValueError(entry.key)

    bucket.put("a", 1)
    bucket.put("b", 1)
    ready(bucket.watch(handler, on_error=errors.append))
    assert [str(error) for error in errors] == ["a", "b"]
    assert not complaints(caplog, bucket)


def test_without_on_error_it_is_reported_once(nats_server, bucket, caplog):
    reported: list[Exception] = []
    settings = kv.ConnectionSettings(servers=(nats_server.url,))
    connection = kv.Connection(settings, report=reported.append)
    bucket.put("a", 1)

    def handler(_entry: kv.Entry) -> None:
        raise KeyError

    ready(connection.kv().open_bucket(bucket.name).watch(handler))
    connection.close()
    assert [type(error) for error in reported] == [KeyError]
    assert not complaints(caplog, bucket)
    ready(bucket.watch(handler))
    assert len(complaints(caplog, bucket)) == 1


def test_an_entry_that_does_not_decode_is_an_error_and_the_watch_goes_on(bucket, context, told, caplog):
    raw = context.open_bucket(bucket.name, codec="bytes")
    raw.put("bad", b"\xff{")
    raw.put("good", b"1")
    errors: list[Any] = []
    ready(bucket.watch(told, on_error=errors.append))
    assert told.brief == [("good", 1)]
    assert [type(error) for error in errors] == [CodecError]
    assert errors[0].key == "bad"
    raw.put("bad", b"2")
    eventually(lambda: told.brief[1:] == [("bad", 2)])


def test_an_on_error_that_fails_itself_is_logged(bucket, told, caplog):
    def on_error(_error: Exception) -> None:
        raise ValueError

    def handler(entry: kv.Entry) -> None:
        told(entry)
        raise KeyError

    bucket.put("a", 1)
    bucket.put("b", 1)
    ready(bucket.watch(handler, on_error=on_error))
    assert len(told.entries) == 2
    assert len(complaints(caplog, bucket)) == 2


@pytest.mark.parametrize("error", [SystemExit(), asyncio.CancelledError()])
@pytest.mark.parametrize("awaited", [False, True])
def test_not_even_a_handler_that_exits_ends_the_watch(bucket, error, awaited):
    errors: list[Exception] = []

    def plain(_entry: kv.Entry) -> None:
        raise error

    async def awaitable(_entry: kv.Entry) -> None:
        raise error

    bucket.put("a", 1)
    bucket.put("b", 1)
    ready(bucket.plain.watch(awaitable if awaited else plain, on_error=errors.append))
    assert len(errors) == 2
    assert type(errors[0].__cause__) is type(error)


def test_a_timeout_that_a_handler_raises_is_its_error(bucket):
    errors: list[Exception] = []

    async def handler(_entry: kv.Entry) -> None:
        raise TimeoutError

    async def follow() -> None:
        watch = await bucket.plain.awatch(handler, on_error=errors.append)
        await asyncio.wrap_future(watch.initialized)

    bucket.put("a", 1)
    asyncio.run(follow())
    assert [type(error) for error in errors] == [TimeoutError]


# --- the end ---


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads take turns as often as they can: between looking and calling, too.

    ``stop`` leaves a thread that has looked and not yet called so much time as a busy machine takes from it.
    """
    monkeypatch.setattr("django_natskv.kv.watch._ENTERED", 30)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_nothing_is_told_after_stop_returned(bucket, restless):
    for number in range(200):
        bucket.put(f"k{number}", number)
    for _ in range(60):
        stopped = threading.Event()
        late: list[str] = []
        seen = threading.Event()

        def handler(entry: kv.Entry) -> None:
            if stopped.is_set():  # noqa: B023
                late.append(entry.key)  # noqa: B023
            seen.set()  # noqa: B023

        watch = bucket.watch(handler)
        assert seen.wait(30)
        watch.stop()
        stopped.set()
        watch.stop()
        eventually(lambda: not threads(bucket))
        assert not late


async def test_nothing_is_told_on_the_loop_after_stop_returned(connect_kv: ConnectKV, bucket_name):
    context = await connect_kv().akv()
    bucket = await context.acreate_bucket({"bucket": bucket_name, "storage": "memory"})
    for number in range(20):
        await bucket.aput(f"k{number}", number)
    for _ in range(30):
        stopped = False
        late: list[str] = []
        begun = asyncio.Event()

        async def handler(entry: kv.Entry) -> None:
            begun.set()  # noqa: B023
            if stopped:  # noqa: B023
                late.append(entry.key)  # noqa: B023

        watch = await bucket.awatch(handler)
        await begun.wait()
        for _ in range(5):
            await asyncio.sleep(0)  # the first entry is done with
        time.sleep(0.01)  # noqa: ASYNC251 - the loop is busy meanwhile, and the next entry is made ready for it
        watch.stop()
        stopped = True
        await aeventually(lambda: not threads(bucket))
        assert not late


async def test_a_handler_that_stops_its_watch_may_finish(connect_kv: ConnectKV, bucket_name):
    context = await connect_kv().akv()
    bucket = await context.acreate_bucket({"bucket": bucket_name, "storage": "memory"})
    await bucket.aput("a", 1)
    await bucket.aput("b", 1)
    log: list[str] = []
    watches: list[kv.Watch] = []
    there = asyncio.Event()

    async def handler(entry: kv.Entry) -> None:
        await there.wait()
        watches[0].stop()
        await asyncio.sleep(0.7)  # longer than it takes to notice the stop
        log.append(entry.key)

    watches.append(await bucket.awatch(handler))
    there.set()
    await aeventually(lambda: not threads(bucket))
    assert log == ["a"]


def test_a_watch_that_is_stopped_first_is_never_initialized(bucket):
    gate = threading.Event()
    bucket.put("a", 1)
    watch = bucket.watch(lambda _entry: gate.wait(30) and None)
    watch.stop()
    gate.set()
    assert watch.initialized.cancelled()


def test_many_watches_leave_nothing_behind(connect_kv: ConnectKV, nats_server: NatsServer, bucket_name, caplog):
    caplog.set_level(logging.DEBUG, "django_natskv")
    connection = connect_kv()
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", 1)
    before = len(nats_server.subscriptions(connection.settings.name))
    for number in range(200):
        told = Told()
        watch = bucket.watch(told)
        if number % 2:  # the others are stopped before they could begin
            ready(watch)
            assert told.brief == [("a", 1)]
        watch.stop()
    eventually(lambda: not threads(bucket))
    eventually(lambda: not nats_server.consumers(f"KV_{bucket_name}"))
    # One more than before: the connection of the watches hears its replies on one subject.
    eventually(lambda: len(nats_server.subscriptions(connection.settings.name)) <= before + 1)
    eventually(lambda: not connection._watches._spawned)
    assert not complaints(caplog, bucket)


def test_closing_the_connection_ends_its_watches(connect_kv: ConnectKV, nats_server: NatsServer, bucket_name):
    connection = connect_kv()
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    watch = bucket.watch(Told())
    ready(watch)
    connection.close()
    eventually(lambda: not threads(bucket))
    eventually(lambda: not nats_server.consumers(f"KV_{bucket_name}"), 20)
    watch.stop()
    eventually(lambda: not nats_server.connections(connection.settings.name), 20)
