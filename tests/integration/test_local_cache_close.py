"""A read of a mirror that ``close()`` overtakes: it is never answered with a miss that is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_natskv.kv import Connection, LocalCacheSettings
from tests.fix_facade import ConnectKV
from tests.fix_local import feed, held, live, stored
from tests.fix_proxy import Proxy
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

READS: dict[str, Callable[[Any], object]] = {
    "get": lambda cache: cache.get("a").value,
    "aget": lambda cache: asyncio.run(cache.aget("a")).value,
    "value": lambda cache: cache.value("a"),
    "avalue": lambda cache: asyncio.run(cache.avalue("a")),
    "keys": lambda cache: cache.keys() == ["a"] and [1],
    "items": lambda cache: cache.items()["a"].value,
}


@pytest.fixture
def connection(connect_kv: ConnectKV) -> Connection:
    return connect_kv(local_cache=LocalCacheSettings(wait=30), connect_timeout=30, request_timeout=30)


@pytest.fixture
def bucket(connection: Connection, bucket_name: str) -> Any:
    context = connection.kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", [1])  # a list takes the way on which a read may wait
    yield bucket
    context.delete_bucket(bucket_name)


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("forgotten", [False, True])
def test_of_a_full_copy_it_finds_what_is_there(
    connection: Connection,
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
    read: Callable[[Any], object],
    *,
    forgotten: bool,
) -> None:
    cache = live(connection.local_cache(bucket.name))
    before = feed(cache)

    def closed_meanwhile() -> Any:
        monkeypatch.undo()
        if not forgotten:
            monkeypatch.setattr(before, "_dropped", lambda: None)  # the loop has not come to it yet
        cache.close()
        eventually(lambda: before.mirror.filled is not forgotten)
        return before

    monkeypatch.setattr(cache, "_running", closed_meanwhile)
    assert read(cache) == [1]
    assert cache.status().state == ("live" if forgotten else "stopped")


@pytest.mark.parametrize("read", [READS["get"], READS["aget"]], ids=["get", "aget"])
def test_while_it_waits_for_the_first_replay_it_waits_for_that_of_the_next_copy(
    connect_kv: ConnectKV,
    make_proxy: Callable[[str], Proxy],
    nats_server: NatsServer,
    bucket: Any,
    read: Callable[[Any], object],
) -> None:
    proxy = make_proxy(nats_server.url)
    proxy.blackhole()
    # An attempt to connect that failed meanwhile would end the wait.
    patient = {"local_cache": LocalCacheSettings(wait=30), "connect_timeout": 30, "request_timeout": 30}
    cache = connect_kv(proxy.url, **patient).local_cache(bucket.name)
    found: list[object] = []
    reader = threading.Thread(target=lambda: found.append(read(cache)))
    reader.start()
    first = eventually(lambda: feed(cache))
    cache.close()
    eventually(lambda: feed(cache) not in (None, first))
    assert found == []
    proxy.heal()
    reader.join(30)
    assert found == [[1]]


def test_among_reads_of_many_threads_none_misses_what_is_there(connection: Connection, bucket: Any) -> None:
    cache = connection.local_cache(bucket.name)
    over = threading.Event()
    wrong: list[object] = []

    def work(read: Callable[[Any], object]) -> None:
        while not over.is_set():
            try:
                found = read(cache)
            except Exception as error:
                found = error
            if found != [1]:
                wrong.append(found)
                return

    crew = [threading.Thread(target=work, args=(READS[name],)) for name in ("get", "items")]
    for one in crew:
        one.start()
    for _ in range(40):
        eventually(lambda: cache.status().state == "live" or wrong)
        cache.close()
    over.set()
    for one in crew:
        one.join(30)
    assert wrong == []
    assert held(live(cache)) == stored(bucket)


def test_a_signals_handler_that_reads_while_its_thread_begins_the_copy_begins_no_second_one(
    connection: Connection, bucket: Any, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache: Any = connection.local_cache(bucket.name)
    new_feed = cache._new_feed
    made: list[Any] = []

    def broken_into() -> Any:
        monkeypatch.undo()
        cache.start()
        made.append(feed(cache))
        return new_feed()

    monkeypatch.setattr(cache, "_new_feed", broken_into)
    assert cache.value("a") == [1]
    assert [feed(cache)] == made
    cache.close()
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])
