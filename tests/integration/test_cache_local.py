"""LOCAL_CACHE: reads from a copy in the process, which hears of the writes of others within milliseconds."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.cache.near import ABSENT, UNKNOWN
from django_natskv.connections import connections
from django_natskv.exceptions import UsageError
from django_natskv.kv import _session
from django_natskv.kv._nats.client import Client
from django_natskv.kv._nats.exchange import Exchange
from tests.fix_waiting import eventually


def live(cache: NatsKVCache) -> NatsKVCache:
    """Wait until the copy of ``cache`` is live, and return it."""
    cache.get("warm-up")
    near = cache._store.near
    assert near is not None

    def is_live() -> bool:
        cache.get("warm-up")
        return near._copy is not None and near._copy.is_live

    eventually(is_live, 30)
    return cache


@pytest.fixture
def unaudited(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy that is made from here on looks at the bucket's counters now and then: it hears of changes, or not."""
    monkeypatch.setattr(_session, "AUDIT", 600.0)


@pytest.fixture(params=["mirror", "invalidate"])
def cache(request: pytest.FixtureRequest, natskv: Any, bucket_name: str) -> NatsKVCache:
    return live(NatsKVCache(bucket_name, {"KEY_PREFIX": "shop", "OPTIONS": {"LOCAL_CACHE": request.param}}))


@pytest.fixture
def other(natskv: Any, bucket_name: str) -> NatsKVCache:
    """The same cache in a process without a copy."""
    return NatsKVCache(bucket_name, {"KEY_PREFIX": "shop"})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is asked on the connection that requests go by, whoever asks: watches have another one."""
    subjects: list[str] = []
    submit = Client.submit

    def noting(client: Client, exchange: Exchange) -> None:
        if client is connections["default"]._requests:
            subjects.append(exchange.subject)
        submit(client, exchange)

    monkeypatch.setattr(Client, "submit", noting)
    return subjects


def test_caches_that_share_a_copy_cannot_bound_it_differently(cache, bucket_name):
    """What check ``natskv.E111`` tells beforehand."""
    options = {"LOCAL_CACHE": cache._place.options.local_cache, "LOCAL_CACHE_MAX_BYTES": 1_000_000}
    bounded = NatsKVCache(bucket_name, {"KEY_PREFIX": "shop", "OPTIONS": options})
    bounded.set("k", 1)
    with pytest.raises(UsageError, match="max_bytes"):
        bounded.get("k")
    assert NatsKVCache(bucket_name, {"KEY_PREFIX": "other", "OPTIONS": options}).get("k") is None


@pytest.mark.parametrize("value", [[1], "text", 5])
def test_what_is_held_is_not_read_again(cache, other, asked, value):
    other.set_many({"k": value, "l": value})
    eventually(lambda: cache.get("k") == cache.get("l") == value)
    cache.get("absent")
    # `other` is of this process: until its writes have come by, several keys at once are asked for.
    eventually(lambda: cache._store.near.look_up("shop.1.l") is not UNKNOWN)

    def read_often() -> bool:
        asked.clear()
        for _ in range(20):
            assert cache.get("k") == value
            assert asyncio.run(cache.aget("k")) == value
            assert cache.get_many(["k", "l"]) == {"k": value, "l": value}
            assert "k" in cache
            assert cache.get("absent") is None
            assert cache.get_or_set("k", 9) == value
        return asked == []

    eventually(read_often, 30)  # not at once where the machine has held the server up, and the copy was not believed
    other.set("k", "changed")
    eventually(lambda: cache.get("k") == "changed")
    read = [subject for subject in asked if ".GET." in subject]
    assert bool(read) == (not cache._store.near.holds_all)


def test_each_get_is_a_copy_of_the_readers_own(cache):
    cache.set("k", {"a": [1]})
    first = cache.get("k")
    first["a"].append(2)
    assert cache.get("k") == {"a": [1]}
    eventually(lambda: cache.get("k") and "shop.1.k" in cache._store.near._seen)
    cache.get("k")["a"].clear()
    assert cache.get("k") == {"a": [1]}
    assert asyncio.run(cache.aget("k")) == {"a": [1]}


class Named(str):  # noqa: SLOT000 - attributes are the point
    """A string to which readers may give attributes."""


def test_each_get_is_a_copy_of_its_own_of_what_is_derived_from_a_string_too(cache):
    cache.set("k", Named("x"))
    eventually(lambda: cache.get("k") and "shop.1.k" in cache._store.near._seen)
    first = cache.get("k")
    first.label = "read"
    assert cache.get("k") == "x"
    assert type(cache.get("k")) is Named
    assert vars(cache.get("k")) == {}


def test_a_write_of_this_process_is_read_at_once(cache):
    for number in range(200):
        cache.set("k", number)
        assert cache.get("k") == number
    cache.delete("k")
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}


def test_writes_of_others_are_heard_of(cache, other):
    other.set("k", 1)
    eventually(lambda: cache.get("k") == 1)
    other.incr("k")
    eventually(lambda: cache.get("k") == 2)
    other.delete("k")
    eventually(lambda: cache.get("k") is None)


def test_a_clear_is_heard_of_though_an_erase_says_nothing(unaudited, cache, other):
    other.set("k", 1)
    eventually(lambda: cache.get("k") == 1)
    other.clear()
    eventually(lambda: cache.get("k") is None)
    cache.set("k", 2)
    assert cache.get("k") == 2
    NatsKVCache(cache._location, {}).clear()  # of the whole bucket
    eventually(lambda: cache.get("k") is None)


def test_its_own_clear_counts_at_once(cache):
    cache.set("k", 1)
    assert cache.get("k") == 1
    cache.clear()
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}


def test_what_expires_is_gone_in_time(cache, other):
    eventually(lambda: other.set("k", "text", 0.5) or cache.get("k") == "text", 30)  # heard of in time
    eventually(lambda: not other.has_key("k"))
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}


@pytest.mark.parametrize("mode", ["mirror", "invalidate"])
def test_what_the_bucket_keeps_for_a_while_is_not_held_for_longer(natskv, bucket_name, mode):
    cache = live(NatsKVCache(bucket_name, {"OPTIONS": {"LOCAL_CACHE": mode, "BUCKET": {"ttl_ms": 60_000}}}))
    cache.set("k", 1, None)
    eventually(lambda: cache.get("k") == 1 and cache._held(cache._name("k", None)) == 1)
    cache._place.clock._ahead += 61
    eventually(lambda: cache._held(cache._name("k", None)) is ABSENT)  # UNKNOWN for as long as the copy is cut off
    cache._place.clock._ahead -= 61
    eventually(lambda: cache._held(cache._name("k", None)) == 1)


def test_large_values_are_read_too(cache, other):
    value = os.urandom(2 * 2**20)
    other.set("k", value)
    eventually(lambda: cache.get("k") == value)
    assert cache.get_many(["k"]) == {"k": value}


def test_chunks_are_neither_held_nor_sent(cache, other):
    other.set("k", os.urandom(2 * 2**20))
    other.set("last", 1)
    eventually(lambda: cache.get("last") == 1)
    status = cache._store.near._copy.status()
    assert status.bytes < 10_000
    assert status.entries < 10


def test_a_planted_value_is_a_miss(cache, other):
    other.set("k", [1])
    bucket = connections["default"].kv().open_bucket(cache._place.name, codec="bytes")
    form = dict(bucket.get_many(["shop.1.k"])["shop.1.k"].headers)
    bucket.put("shop.1.k", b"\0" * 40, headers=form)
    eventually(lambda: cache.get("k", "default") == "default")
    assert cache.unreadable


def test_a_copy_that_is_cut_off_is_not_believed(make_server, make_proxy, settings):
    server = make_server()
    proxy = make_proxy(server.url)
    settings.NATSKV = {"default": {"SERVERS": [proxy.url], "REQUEST_TIMEOUT": 0.5}}
    options = {"LOCAL_CACHE": "mirror", "ON_ERROR": "miss"}
    cache = live(NatsKVCache("cache", {"OPTIONS": options}))
    eventually(lambda: cache.set_many({"k": 1}) == [] and cache.get("k") == 1, 30)  # what takes too long is dropped
    proxy.refuse()
    proxy.cut()
    eventually(lambda: cache.get("k", "default") == "default", 30)
    proxy.accept()
    eventually(lambda: cache.get("k") == 1, 30)


def test_a_copy_that_would_be_too_large_is_done_without(natskv, bucket_name):
    options = {"LOCAL_CACHE": "mirror", "LOCAL_CACHE_MAX_BYTES": 1_000}
    cache = NatsKVCache(bucket_name, {"OPTIONS": options})
    cache.set_many({f"k{number}": "x" * 100 for number in range(50)})
    for _ in range(3):
        assert cache.get("k7") == "x" * 100
    near = cache._store.near
    assert near is not None
    eventually(lambda: near._copy.status().state == "stopped")
    assert cache.get("k7") == "x" * 100
