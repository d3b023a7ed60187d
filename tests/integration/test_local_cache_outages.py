"""After any outage a mirror equals the bucket again, and says what it is worth meanwhile."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from django_natskv import exceptions
from django_natskv.kv import Change, LocalCacheSettings
from django_natskv.kv._feed import Gate
from tests.fix_local import equal, feed, held, insist, live
from tests.fix_waiting import eventually


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def setting(server, make_proxy, connect_kv):
    """A bucket written past a proxy, and a live mirror of it behind."""

    def make(**config):
        proxy = make_proxy(server.url)
        context = connect_kv(server).kv()
        bucket = context.create_bucket({"bucket": "b", **config})
        for number in range(50):
            bucket.put(f"k.{number}", number)
        cache = live(connect_kv(proxy.url).local_cache("b"))
        return proxy, context, bucket, cache

    return make


def stale(cache, timeout=30.0):
    eventually(lambda: cache.status().state == "stale", timeout, "stale")


def test_a_cut_line(setting):
    proxy, _, bucket, cache = setting()
    proxy.refuse(cut=True)
    stale(cache)
    first = cache.status()
    assert first.reason
    bucket.put("k.1", "changed")
    bucket.delete("k.2")
    assert (cache.value("k.1"), cache.value("k.2")) == (1, 2)
    eventually(lambda: cache.status().age > first.age)
    proxy.accept()
    equal(cache, bucket)
    assert cache.status().age == 0.0


def test_a_half_open_line(setting):
    proxy, _, bucket, cache = setting()
    proxy.blackhole()
    stale(cache, 5)
    bucket.put("k.1", "changed")
    bucket.purge("k.2")
    assert cache.value("k.1") == 1
    proxy.heal()
    equal(cache, bucket)


@pytest.mark.parametrize("hard", [False, True], ids=["stop", "kill"])
def test_a_restart(setting, server, hard):
    _, _, bucket, cache = setting()
    server.restart(hard=hard)
    insist(bucket.put, "k.1", "changed")
    equal(cache, bucket)
    assert cache.value("k.1") == "changed"


def test_a_server_that_went_back(setting, server):
    """F1: an older value comes back after a kill; F2: revisions are given out again."""
    _, _, bucket, cache = setting(history=5)
    bucket.put("k.1", "older")
    bucket.purge("k.1", marker_ttl_ms=1_000)
    eventually(lambda: held(cache).get("k.1") is None)
    eventually(lambda: "$KV.b.k.1" not in feed(cache).mirror.subjects())
    server.restart(hard=True)
    insist(bucket.put, "k.9", "after")
    equal(cache, bucket)


def test_the_bucket_deleted_and_made_anew(setting):
    _, context, _, cache = setting()
    context.delete_bucket("b")
    stale(cache)
    eventually(lambda: "no bucket" in cache.status().reason.lower())
    assert cache.items() == {}
    bucket = context.create_bucket({"bucket": "b"})
    for number in range(60):  # beyond the revisions of the old one
        bucket.put(f"n.{number % 7}", number)
    equal(cache, bucket)


def test_the_bucket_made_anew_while_the_line_is_cut(setting):
    proxy, context, _, cache = setting()
    proxy.refuse(cut=True)
    context.delete_bucket("b")
    bucket = context.create_bucket({"bucket": "b"})
    bucket.put("k.1", 1)
    proxy.accept()
    equal(cache, bucket)
    assert len(cache.keys()) == 1


def test_a_memory_bucket_lost_with_its_server(setting, server):
    _, context, _, cache = setting(storage="memory")
    server.restart()
    eventually(lambda: "no bucket" in cache.status().reason.lower())
    insist(context.create_bucket, {"bucket": "b", "storage": "memory"})  # on a connection that comes back by itself too
    bucket = context.open_bucket("b")
    bucket.put("a", 1)
    equal(cache, bucket)


def test_what_leaves_no_marker(setting):
    """A filtered purge and an expiry without one: F15."""
    _, context, bucket, cache = setting()
    bucket.create("short", 1, ttl_ms=1_000)
    wire, runner = context._wire, context._runner
    runner.call(wire.purge_up_to("b", [(f"$KV.b.k.{number}", 10_000) for number in range(10)]))
    eventually(lambda: len(cache.keys()) == 40)
    equal(cache, bucket)


def test_a_new_time_to_live_of_the_bucket(setting):
    _, context, bucket, cache = setting()
    context.update_bucket({"bucket": "b", "ttl_ms": 4_000})
    eventually(lambda: feed(cache)._keeper._ttl is not None)
    equal(cache, bucket)
    eventually(lambda: cache.items() == {})


def test_a_part_of_the_keys_follows_too(server, make_proxy, connect_kv):
    proxy = make_proxy(server.url)
    bucket = connect_kv(server).kv().create_bucket({"bucket": "b"})
    for key in ("a.x", "a.y", "b.x"):
        bucket.put(key, 1)
    cache = live(connect_kv(proxy.url).local_cache("b", keys="a.*"))
    proxy.refuse(cut=True)
    bucket.delete("a.x")
    bucket.put("a.z", 2)
    bucket.put("b.y", 2)
    proxy.accept()
    eventually(lambda: {key: value for key, (value, _) in held(cache).items()} == {"a.y": 1, "a.z": 2})


def test_a_copy_that_lost_something_is_never_live(server, make_proxy, connect_kv):
    """F23: the line is lost again and again in the middle of a large replay."""
    proxy = make_proxy(server.url)
    bucket = connect_kv(server).kv().create_bucket({"bucket": "b", "storage": "memory"}, codec="bytes")
    count = 4_000
    for start in range(0, count, 1_000):
        bucket.write_many([Change.put(f"k.{number}", bytes(500)) for number in range(start, start + 1_000)])
    assert len(bucket.keys()) == count
    cache = connect_kv(proxy.url).local_cache("b", codec="bytes")
    cache.start()
    seen = set()
    cuts = 0
    deadline = time.monotonic() + 30
    while cuts < 8 and time.monotonic() < deadline:
        arrived = feed(cache).mirror._next
        if arrived is not None and 0 < len(arrived.entries) < count - 500:
            proxy.cut()
            cuts += 1
        status = cache.status()
        if status.state == "live":
            seen.add(status.entries)
            if cuts:
                break
            proxy.cut()
    live(cache)
    seen.add(len(cache.keys()))
    assert seen == {count}


def test_what_a_start_during_an_outage_serves_is_nothing_and_soon(server, connect_kv):
    context = connect_kv(server).kv()
    context.create_bucket({"bucket": "b"}).put("a", 1)
    server.stop()
    cache = connect_kv(server, local_cache=LocalCacheSettings(wait=1_000)).local_cache("b")
    assert cache.get("a") is None  # as soon as the first attempt has failed
    status = cache.status()
    assert (status.state, status.age, status.entries) == ("stale", None, 0)
    assert not cache.wait_ready(0.05)
    server.start()
    live(cache)
    assert cache.value("a") == 1
    assert cache.wait_ready(0)


def test_a_start_on_a_dead_line_waits_no_longer_than_it_may(server, make_proxy, connect_kv, monkeypatch):
    waits = []
    wait_open = Gate.wait_open

    def wait(gate, timeout):
        waits.append(timeout)
        return wait_open(gate, timeout)

    monkeypatch.setattr(Gate, "wait_open", wait)
    proxy = make_proxy(server.url)
    proxy.blackhole()
    # An attempt to connect that failed meanwhile would end the wait too.
    cache = connect_kv(proxy.url, connect_timeout=30, local_cache=LocalCacheSettings(wait=0.3)).local_cache("b")
    began = time.monotonic()
    assert cache.get("a") is None
    assert time.monotonic() - began >= 0.3
    assert cache.get("a") is None
    assert cache.status().state == "warming"
    first, second = waits
    assert second <= 0 < first <= 0.3


def test_the_copy_is_equal_after_writers_went_through_everything(setting, server):
    proxy, _, bucket, cache = setting()
    stop = threading.Event()

    def write():
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                key = f"k.{number * 7919 % 60}"
                if number % 5 == 0:
                    bucket.delete(key)
                elif number % 11 == 0:
                    bucket.purge(key)
                else:
                    bucket.put(key, number)
            except exceptions.OperationalError:
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for fault in (proxy.cut, lambda: server.restart(hard=True), proxy.cut, server.restart):
            fault()
            live(cache)
    finally:
        stop.set()
        writer.join()
    equal(cache, bucket)
