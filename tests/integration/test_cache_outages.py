"""A cache while the server is away: errors at once, or, with ON_ERROR "miss", a site that goes on without it."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, backoff, outages
from django_natskv.cache.place import Place
from django_natskv.connections import connections
from django_natskv.exceptions import BucketNotFound, OperationalError, OperationTimedOut
from django_natskv.kv import Bucket
from tests.fix_waiting import eventually

MISS = {"OPTIONS": {"ON_ERROR": "miss"}}
OUT = "does without the server"


@pytest.fixture
def server(make_server: Any, settings: Any) -> Any:
    made = make_server()
    settings.NATSKV = {"default": {"SERVERS": [made.url]}}
    return made


@pytest.fixture
def opened(monkeypatch: Any) -> list[int]:
    """Note each time that an operation goes to the server."""
    times: list[int] = []
    find = Place.opened

    def noting(place: Place) -> Any:
        times.append(1)
        return find(place)

    monkeypatch.setattr(Place, "opened", noting)
    return times


def has(cache: NatsKVCache, value: Any = 1) -> None:
    """Have ``value`` under "k", however often the server is too slow for the test's timeout meanwhile."""
    eventually(lambda: cache.set_many({"k": value}) == [] and cache.get("k") == value, 30)


def everything(cache: Any) -> dict[str, Any]:
    """Do each operation and return what it gave, a ``ValueError`` as its text."""
    results: dict[str, Any] = {
        "get": cache.get("k", "default"),
        "set": cache.set("k", 1),
        "add": cache.add("k", 1),
        "touch": cache.touch("k"),
        "delete": cache.delete("k"),
        "has": "k" in cache,
        "get_many": cache.get_many(["k", "l"]),
        "set_many": cache.set_many({"k": 1, "l": 2}),
        "delete_many": cache.delete_many(["k"]),
        "get_or_set": cache.get_or_set("k", lambda: 7),
        "clear": cache.clear(),
        "ttl": cache.ttl("k"),
        "keys": cache.keys(),
        "delete_pattern": cache.delete_pattern("*"),
        "get_entry": cache.get_entry("k"),
        "compare_and_set": cache.compare_and_set("k", 1, 1),
    }
    for name in ("incr", "decr", "incr_version", "decr_version"):
        with pytest.raises(ValueError, match="Key 'k' not found"):
            getattr(cache, name)("k")
    return results


MISSED: dict[str, Any] = {
    "get": "default",
    "set": None,
    "add": False,
    "touch": False,
    "delete": False,
    "has": False,
    "get_many": {},
    "set_many": ["k", "l"],
    "delete_many": None,
    "get_or_set": 7,
    "clear": None,
    "ttl": 0.0,
    "keys": [],
    "delete_pattern": 0,
    "get_entry": None,
    "compare_and_set": None,
}


def test_by_default_an_error_is_raised(server):
    cache = NatsKVCache("cache", {})
    server.kill()
    with pytest.raises(OperationalError):
        cache.get("k")
    with pytest.raises(OperationalError):
        cache.set("k", 1)


def test_with_miss_reads_miss_and_writes_are_dropped_with_one_log_line(server, caplog):
    cache = NatsKVCache("cache", MISS)
    cache.set("k", 1)
    server.kill()
    with caplog.at_level(logging.INFO, "django_natskv.cache"):
        for _ in range(3):
            assert everything(cache) == MISSED
        assert sum(OUT in record.message for record in caplog.records) == 1
        server.start()
        has(cache, 2)
        assert [record.message for record in caplog.records if "is back" in record.message]


def test_with_miss_a_server_that_was_never_there_is_tried_once_and_not_by_every_caller(settings, opened):
    settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"], "CONNECT_TIMEOUT": 0.5}}
    cache = NatsKVCache("cache", MISS)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(cache.get, ["k"] * 100)) == [None] * 100
    tried = len(opened)
    assert 1 <= tried <= 8  # those that came before the first had failed
    assert everything(cache) == MISSED
    assert len(opened) == tried


@pytest.fixture(params=["frozen", "half-open"])
def silent(request: Any, server: Any, make_proxy: Any, settings: Any) -> Any:
    """A server that stops answering and goes on again, without closing a connection: where it is, and how."""
    if request.param == "frozen":
        return server.url, server.freeze, server.thaw
    proxy = make_proxy(server.url)
    return proxy.url, proxy.blackhole, proxy.heal


@pytest.mark.parametrize("mode", [None, "mirror", "invalidate"])
def test_with_miss_one_caller_alone_waits_for_a_server_that_does_not_answer(silent, settings, opened, mode):
    url, stop, go_on = silent
    settings.NATSKV = {"default": {"SERVERS": [url], "REQUEST_TIMEOUT": 0.5, "CONNECT_TIMEOUT": 0.5}}
    cache = NatsKVCache("cache", {"OPTIONS": {"ON_ERROR": "miss", "LOCAL_CACHE": mode}})
    other = NatsKVCache("other", MISS)  # over the same connection
    has(cache)
    has(other)
    stop()
    cache.set("l", 1)
    opened.clear()
    eventually(lambda: cache.get("k") is None, 30)  # a copy that is live may serve for a while
    opened.clear()
    for _ in range(300):
        assert everything(cache) == MISSED
    assert other.get("k") is None
    assert opened == []
    go_on()
    eventually(lambda: cache.get("k") == 1, 30)
    eventually(lambda: other.get("k") == 1, 30)


@pytest.mark.parametrize("value", [1, b"x" * 600_000])
def test_with_miss_an_outage_that_keys_tell_of_is_one(server, settings, opened, value):
    settings.NATSKV = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.2}}
    cache = NatsKVCache("cache", MISS)
    has(cache, value)
    server.freeze()
    assert cache.set_many({"k": value, "l": value, "m": 1}) == ["k", "l", "m"]
    opened.clear()
    assert cache.set_many({"k": value, "l": value, "m": 1}) == ["k", "l", "m"]
    assert cache.get("k") is None
    assert opened == []
    server.thaw()
    has(cache, 2)


@pytest.mark.parametrize("options", [{}, {"MAX_ENTRIES": 2}])
def test_a_server_that_does_not_answer_is_waited_for_once_however_many_are_written(
    server, settings, monkeypatch, options
):
    settings.NATSKV = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.2}}
    cache = NatsKVCache("cache", {"OPTIONS": options})
    large = {f"k{number}": b"x" * 600_000 for number in range(6)}
    eventually(lambda: cache.set_many({"k0": 1, "k1": large["k1"]}) == [], 30)
    asked: list[int] = []
    ask = Bucket.write_many

    def noting(*args: Any, **options: Any) -> Any:
        asked.append(1)
        return ask(*args, **options)

    monkeypatch.setattr(Bucket, "write_many", noting)
    server.freeze()
    try:
        assert cache.set_many({**large, "n": 1}) == [*large, "n"]
    finally:
        server.thaw()
    assert asked == [1]


def test_with_miss_those_who_come_together_wait_together_once(server, settings, opened):
    settings.NATSKV = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.5}}
    cache = NatsKVCache("cache", MISS)
    has(cache)
    server.freeze()
    opened.clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(cache.get, ["k"] * 400)) == [None] * 400
    assert 1 <= len(opened) <= 8
    server.thaw()
    eventually(lambda: cache.get("k") == 1, 30)


def test_with_miss_nobody_but_the_probe_asks_a_server_that_stays_away(server, settings, opened):
    settings.NATSKV = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.1}}
    cache = NatsKVCache("cache", MISS)
    has(cache)
    ours = cache._place.connection  # a probe of the test before may still be there, and ends by itself
    server.freeze()
    assert cache.get("k") is None
    opened.clear()
    probes: list[threading.Thread] = []
    wells = outages.Outages._is_well

    def noting(of: Any, connection: Any) -> bool:
        if connection is ours:
            probes.append(threading.current_thread())
        return wells(of, connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outages.Outages, "_is_well", noting)
        eventually(lambda: cache.get("k") is None and len(probes) > 3, 30)
        assert {thread.name for thread in probes} == {"natskv-cache-probe"}
        assert len(set(probes)) == 1
        assert opened == []
    server.thaw()
    eventually(lambda: cache.get("k") == 1, 30)
    eventually(lambda: not probes[0].is_alive(), 30)


def test_with_miss_a_bucket_that_takes_no_writes_does_not_take_the_others_with_it(server, settings, monkeypatch):
    cache, other = NatsKVCache("cache", MISS), NatsKVCache("other", MISS)
    cache.set("k", 1)
    other.set("k", 1)

    def refused(bucket: Any, key: str, *args: Any, **options: Any) -> int:
        if bucket.name == "cache":
            raise OperationTimedOut("no leader")
        return put(bucket, key, *args, **options)

    put = Bucket.put
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "put", refused)
        cache.set("k", 2)
        assert cache.get("k") is None
        eventually(lambda: other.get("k") == 1, 30)
        assert cache.get("k") is None  # what was written lately could not be told from what is old
    eventually(lambda: cache.get("k") == 1, 30)


def test_with_miss_a_key_that_others_keep_changing_is_no_outage(server, monkeypatch):
    cache = NatsKVCache("cache", MISS)
    cache.set("k", 1)
    monkeypatch.setattr(backoff, "TRIES", 0)
    with pytest.raises(ValueError, match="not found"):
        cache.incr("k")
    assert cache.get("k") == 1


def test_with_miss_settings_that_change_end_the_probe_of_what_they_were(server, settings):
    settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"], "CONNECT_TIMEOUT": 0.5}}
    cache = NatsKVCache("cache", MISS)
    assert cache.get("k", "default") == "default"
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    cache.set("k", 1)
    assert cache.get("k") == 1
    eventually(lambda: "natskv-cache-probe" not in [thread.name for thread in threading.enumerate()], 30)


async def test_with_miss_awaited_too(server):
    cache = NatsKVCache("cache", MISS)
    await cache.aset("k", 1)
    server.kill()
    assert await cache.aget("k", "default") == "default"
    assert await cache.aadd("k", 1) is False
    assert await cache.aget_or_set("k", lambda: asyncio.sleep(0, 5)) == 5


def test_with_miss_a_lock_is_not_pretended(server):
    cache = NatsKVCache("cache", MISS)
    cache.set("k", 1)
    server.kill()
    with pytest.raises(OperationalError):
        cache.lock("l").acquire()
    assert cache.get_or_set("k", lambda: 3, lock=True) == 3


def test_without_create_a_missing_bucket_is_an_error_that_tells_how_to_make_it(natskv, bucket_name):
    cache = NatsKVCache(bucket_name, {"OPTIONS": {"CREATE": False}})
    with pytest.raises(BucketNotFound, match=f"natskv_bucket create {bucket_name}"):
        cache.get("k")
    connections["default"].kv().create_bucket({"bucket": bucket_name})
    cache.set("k", 1)
    assert cache.get("k") == 1


def test_a_full_bucket_makes_room(natskv, bucket_name):
    cache = NatsKVCache(bucket_name, {"OPTIONS": {"BUCKET": {"max_bucket_size": 100_000}}})
    for number in range(100):
        cache.set(f"k{number}", "x" * 5_000)
    assert cache.get("k99") == "x" * 5_000
    assert cache.get("k0") is None


def test_a_bucket_that_may_not_make_room_tells_which_keys_failed(natskv, bucket_name):
    options = {"BUCKET": {"max_bucket_size": 20_000, "discard": "new"}}
    cache = NatsKVCache(bucket_name, {"OPTIONS": options})
    values = {f"k{number}": "x" * 5_000 for number in range(10)}
    failed = cache.set_many(values)
    assert failed
    assert set(cache.get_many(values)) == set(values) - set(failed)


def test_a_url_needs_no_settings(nats_server, settings, bucket_name):
    settings.NATSKV = {}
    cache = NatsKVCache(f"{nats_server.url}/{bucket_name}", {})
    cache.set("k", 1)
    assert NatsKVCache(f"{nats_server.url}/{bucket_name}", {}).get("k") == 1
    assert cache._place.connection.status == "connected"


def test_other_settings_take_effect_at_once(nats_server, make_server, settings, bucket_name):
    settings.NATSKV = {"default": {"SERVERS": [nats_server.url]}}
    cache = NatsKVCache(bucket_name, {})
    cache.set("k", 1)
    settings.NATSKV = {"default": {"SERVERS": [make_server().url]}}
    assert cache.get("k") is None
    cache.set("k", 2)
    settings.NATSKV = {"default": {"SERVERS": [nats_server.url]}}
    assert cache.get("k") == 1
