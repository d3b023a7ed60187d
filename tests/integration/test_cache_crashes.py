"""Nothing that was overwritten, removed or cleared comes back, whatever the server brings back after a crash (F1)."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.connections import connections
from django_natskv.exceptions import OperationalError
from tests.fix_waiting import eventually

FILE = {"OPTIONS": {"BUCKET": {"storage": "file"}}}


@pytest.fixture
def server(make_server: Any, settings: Any) -> Any:
    made = make_server()
    settings.NATSKV = {"default": {"SERVERS": [made.url]}}
    return made


def back(cache: NatsKVCache) -> None:
    """Wait until the server answers again."""

    def answers() -> bool:
        try:
            cache.get("keep")
        except OperationalError:
            return False
        return True

    eventually(answers, 30)


def stored_keys() -> set[str]:
    return set(connections["default"].kv().open_bucket("cache", codec="bytes").keys())


def passed(cache: NatsKVCache, seconds: float) -> None:
    """Wait until the server has let go of what was to live so long."""
    cache.set("clock", 1, seconds)

    def is_over() -> bool:
        with contextlib.suppress(OperationalError):  # a cluster may take its time to tell
            return "_.1.clock" not in stored_keys()
        return False

    eventually(is_over, 30)


@pytest.fixture
def cache(server: Any) -> NatsKVCache:
    cache = NatsKVCache("cache", {"TIMEOUT": None, **FILE})
    cache.set("keep", 1)
    return cache


def test_a_shorter_timeout_over_a_longer_one(server, cache):
    keys = []
    for number, timeout in enumerate([None, 3600]):
        for repetition in range(5):
            one, many = f"k{number}.{repetition}", f"m{number}.{repetition}"
            cache.set(one, "old", timeout)
            cache.set_many({many: "old"}, timeout)
            assert cache.get_many([one, many]) == {one: "old", many: "old"}
            cache.set(one, "new", 1)
            cache.set_many({many: "new"}, 1)
            keys += [one, many]
    eventually(lambda: cache.get_many(keys) == {}, 30)
    passed(cache, 2.0)
    server.restart(hard=True)
    back(cache)
    assert cache.get_many(keys) == {}


@pytest.mark.parametrize("timeout", [None, 3600])
def test_what_was_deleted(server, cache, timeout):
    keys = [f"k{number}" for number in range(10)]
    cache.set_many(dict.fromkeys(keys, "old"), timeout)
    for key in keys[:5]:
        assert cache.delete(key)
    cache.delete_many(keys[5:])
    passed(cache, 2.0)  # a tombstone that had expired by now would be in the way of nothing
    server.restart(hard=True)
    back(cache)
    assert cache.get_many(keys) == {}
    assert not any(cache.has_key(key) for key in keys)


def test_what_was_cleared(server, cache):
    keys = [f"k{number}" for number in range(50)]
    cache.set_many(dict.fromkeys(keys, "old"))
    cache.clear()
    cache.set("keep", 1)
    server.restart(hard=True)
    back(cache)
    newcomer = NatsKVCache("cache", FILE)
    for each in (cache, newcomer):
        assert each.get_many(keys) == {}
        assert [each.get(key) for key in keys] == [None] * 50
    assert newcomer.add("k1", 2)
    assert cache.get("k1") == 2
    assert sorted(cache.keys()) == ["k1", "keep"]


def test_an_older_value_under_the_clear_marker_counts_as_gone_though_it_is_there(server, cache, monkeypatch):
    """As a crash may leave it: the marker, and beside it what was removed."""
    cache.set("k", "old")
    monkeypatch.setattr("django_natskv.kv.bucket.Bucket.erase", lambda *_args, **_options: 0)
    cache.clear()
    assert "_.1.k" in stored_keys()
    newcomer = NatsKVCache("cache", FILE)
    for each in (cache, newcomer):
        assert each.get("k") is None
        assert each.get_many(["k"]) == {}
        assert not each.has_key("k")
        assert not each.delete("k")
        assert not each.touch("k")
        assert each.ttl("k") == 0.0
        assert each.keys() == []
        assert each.get_entry("k") is None
        with pytest.raises(ValueError, match="not found"):
            each.incr("k")
    assert newcomer.add("k", 1)
    assert cache.incr("k") == 2


def test_a_memory_bucket_is_made_anew_when_its_server_restarts(server):
    cache = NatsKVCache("memory", {})
    cache.set("k", 1)
    server.restart(hard=True)
    back(cache)
    assert cache.get("k") is None
    cache.set("k", 2)
    assert cache.get("k") == 2


def test_several_writes_make_the_bucket_anew_too(server):
    cache = NatsKVCache("memory", {})
    cache.set("k", 1)
    connections["default"].kv().delete_bucket("memory")
    assert cache.set_many({"a": 1, "b": [2]}) == []
    assert cache.get_many(["k", "a", "b"]) == {"a": 1, "b": [2]}


@pytest.mark.cluster
@pytest.mark.slow
def test_three_copies_that_crash_together_bring_nothing_back(make_cluster, settings):
    """As when the power fails: each server comes back with older values, and they agree on them."""
    cluster = make_cluster()
    settings.NATSKV = {"default": {"SERVERS": cluster.urls, "REQUEST_TIMEOUT": 10.0}}
    cache = NatsKVCache("cache", {"TIMEOUT": None, "OPTIONS": {"BUCKET": {"storage": "file", "replicas": 3}}})
    cache.set("keep", 1)
    keys = [f"k{number}" for number in range(30)]
    cache.set_many(dict.fromkeys(keys, "old"))
    cache.delete_many(keys[:10])
    for key in keys[10:20]:
        cache.set(key, "new", 1)
    for key in keys[20:]:
        cache.delete(key)
    passed(cache, 2.0)
    for server in cluster.servers:
        server.kill()
    with ThreadPoolExecutor(3) as pool:  # none of them is ready without another
        list(pool.map(lambda server: server.start(), cluster.servers))

    def is_back() -> bool:
        with contextlib.suppress(OperationalError):
            return cache.get("keep") == 1
        return False

    eventually(is_back, 30)
    assert cache.get_many(keys) == {}
