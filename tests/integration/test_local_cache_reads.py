"""Reading a mirror: what is there, when, and at what price."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time

import pytest

from django_natskv import exceptions, kv
from tests.fix_facade import fill
from tests.fix_local import equal, feed, held, live, stored
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def connection(connect_kv):
    return connect_kv()


@pytest.fixture
def make(connection, bucket_name):
    """Make the bucket on the shared server, in memory; the connection deletes nothing, so the test does."""
    context = connection.kv()
    made: list[str] = []

    def create(**config):
        codec = config.pop("codec", None)
        made.append(f"{bucket_name}_{len(made)}")
        return context.create_bucket({"bucket": made[-1], "storage": "memory", **config}, codec=codec)

    yield create
    for name in made:
        if name in context.bucket_names():
            context.delete_bucket(name)


def test_the_first_read_finds_everything(connection, make):
    bucket = make()
    for number in range(200):
        bucket.put(f"k.{number}", number)
    cache = connection.local_cache(bucket.name)
    assert cache.status().state == "warming"
    assert cache.get("k.7") == bucket.get("k.7")
    assert cache.value("k.199") == 199
    assert len(cache.keys()) == 200
    assert held(cache) == stored(bucket)
    status = cache.status()
    assert (status.state, status.age, status.revision, status.entries, status.lag) == ("live", 0.0, 200, 200, 0)
    assert status.bytes > 200 * 300
    assert status.reason == ""


def test_nothing_is_sent_before_the_first_use(connect_kv, nats_server):
    connection = connect_kv(name="silent-cache")
    cache = connection.local_cache("nothing")
    assert cache.status().state == "warming"
    assert "warming" in repr(cache)
    assert nats_server.connections("silent-cache") == []


def test_an_empty_bucket_is_ready_at_once(connection, make):
    cache = connection.local_cache(make().name)
    assert cache.wait_ready(30)
    assert cache.items() == {}
    assert cache.status().state == "live"


def test_the_same_arguments_give_the_same_copy(connection):
    first = connection.local_cache("b", keys=["a.*", "b"])
    assert connection.local_cache("b", keys=["b", "a.*", "b"], codec="json") is first
    assert connection.local_cache("b") is not first
    assert connection.local_cache("b", mode="invalidate") is not connection.local_cache("b")
    bounded = connection.local_cache("c", max_bytes=10_000)
    assert connection.local_cache("c") is bounded
    with pytest.raises(exceptions.UsageError, match="another max_bytes"):
        connection.local_cache("c", max_bytes=20_000)
    with pytest.raises(exceptions.UsageError, match="snapshot"):
        connection.local_cache("c", mode="invalidate", snapshot="file")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bucket": "a b"}, exceptions.InvalidName),
        ({"bucket": "b", "keys": []}, exceptions.InvalidKeys),
        ({"bucket": "b", "mode": "replica"}, exceptions.UsageError),
        ({"bucket": "b", "max_bytes": 0}, exceptions.UsageError),
        ({"bucket": "b", "codec": "none"}, exceptions.UsageError),
    ],
)
def test_mistakes_are_refused_before_anything_is_sent(connection, arguments, error):
    with pytest.raises(error):
        connection.local_cache(**arguments)
    assert connection.status == "idle"


def test_a_key_that_cannot_be_one_is_refused(connection, make):
    cache = live(connection.local_cache(make().name))
    with pytest.raises(exceptions.InvalidKey):
        cache.get("a b")


def test_everything_that_was_there_throughout_is_there_when_it_is_ready(connection, make, connect_kv):
    """Also what is overwritten while the replay goes on."""
    bucket = make(history=1)
    keys = [f"k.{number}" for number in range(50)]
    for key in keys:
        bucket.put(key, 0)
    stop = threading.Event()

    def overwrite():
        for number in itertools.count(1):
            if stop.is_set():
                return
            bucket.put(keys[number % len(keys)], number)

    writers = [threading.Thread(target=overwrite) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(40):
            cache = connection.local_cache(bucket.name)
            assert cache.wait_ready(30)
            assert set(cache.keys()) == set(keys)
            cache.close()
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_a_miss_is_answered_without_the_network(connection, make, nats_server):
    bucket = make()
    bucket.put("a", 1)
    cache = live(connection.local_cache(bucket.name))
    before = nats_server.ask("varz")["in_msgs"]
    for number in range(2_000):
        assert cache.get(f"missing.{number}") is None
        assert cache.value("a") == 1
    assert nats_server.ask("varz")["in_msgs"] - before < 100


def test_what_was_read_once_is_read_again_without_a_lock_or_another_thread(connection, make, monkeypatch):
    bucket = make()
    bucket.put("a", 1)
    cache = live(connection.local_cache(bucket.name))
    assert cache.value("a") == 1
    monkeypatch.setattr(cache, "_settled", None)  # the way on which a read may wait
    with cache._starting, feed(cache).mirror._writing, feed(cache).source.watching.driver._guard:
        assert cache.value("a") == 1
        assert cache.get("a")


def test_a_part_of_the_keys(connection, make):
    bucket = make()
    for key in ("a.x", "a.y.z", "b.x", "b.y", "c"):
        bucket.put(key, key)
    part = live(connection.local_cache(bucket.name, keys=["a.*", "*.x", "c"]))
    assert set(part.keys()) == {"a.x", "b.x", "c"}
    assert part.get("b.y") is None
    bucket.put("a.new", 1)
    bucket.put("b.new", 1)
    eventually(lambda: part.value("a.new") == 1)
    assert part.get("b.new") is None


def test_another_process_is_seen_within_milliseconds(connection, make, program, nats_server):
    bucket = make()
    bucket.put("a", 0)
    reader = program(
        """
from django_natskv.kv import _session
_session.AUDIT = 600.0  # nothing is found out by looking
cache = connections["default"].local_cache(os.environ["BUCKET"])
assert cache.wait_ready(30)
print(json.dumps("ready"), flush=True)
for wanted in range(1, 21):
    while cache.value("a")["n"] if isinstance(cache.value("a"), dict) else True:
        value = cache.value("a")
        if isinstance(value, dict) and value["n"] == wanted:
            break
        time.sleep(0.0002)
    print(json.dumps(time.time() - cache.value("a")["at"]), flush=True)
""",
        {"default": {"SERVERS": nats_server.url}},
        BUCKET=bucket.name,
    )
    assert reader.read() == "ready"
    delays = []
    for number in range(1, 21):
        bucket.put("a", {"n": number, "at": time.time()})
        delays.append(reader.read())
    assert min(delays) < 0.1  # milliseconds on a machine that has nothing else to do


def test_items_are_of_one_moment(connection, make):
    """A writer moves both keys on, one after the other: never is the second ahead of the first."""
    bucket = make()
    bucket.put("a", 0)
    bucket.put("b", 0)
    cache = live(connection.local_cache(bucket.name, codec="json"))
    stop = threading.Event()

    def write():
        for number in itertools.count(1):
            if stop.is_set():
                return
            bucket.put("a", number)
            bucket.put("b", number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            items = cache.items()
            assert 0 <= items["a"].value - items["b"].value <= 1
    finally:
        stop.set()
        writer.join()


def test_a_mutable_value_is_not_shared(connection, make):
    bucket = make()
    bucket.put("a", {"list": [1]})
    cache = live(connection.local_cache(bucket.name))
    cache.value("a")["list"].append(2)
    cache.items()["a"].value["list"].append(3)
    assert cache.value("a") == {"list": [1]}
    assert type(cache.get("a")) is kv.Entry


def test_expiry_goes_by_the_servers_clock(connection, make, monkeypatch):
    bucket = make(limit_marker_ttl_ms=1_000)
    cache = live(connection.local_cache(bucket.name))
    feed(cache).clock.local = lambda: pytest.fail("the reader's own clock was asked")
    began = 0.0

    def read_in_time() -> bool:
        nonlocal began
        bucket.purge("a")
        began = time.monotonic()
        bucket.create("a", 1, ttl_ms=2_000)
        return cache.value("a") == 1  # unless something held this thread up for as long

    eventually(read_in_time)
    eventually(lambda: cache.get("a") is None, 3.5)
    assert time.monotonic() - began > 1.5
    equal(cache, bucket)


def test_a_value_that_does_not_decode_is_told_and_counted(connection, make, caplog):
    bucket = make()
    raw = connection.kv().open_bucket(bucket.name, codec="bytes")
    bucket.put("a", "good")
    cache = live(connection.local_cache(bucket.name))
    raw.put("a", b"\xff{")
    eventually(lambda: cache.status().undecodable == 1)
    assert cache.value("a") == "good"
    assert "cannot be decoded" in caplog.text
    bucket.put("a", "better")
    eventually(lambda: cache.status().undecodable == 0)
    assert cache.value("a") == "better"


def test_a_bucket_beyond_the_bound_is_refused_and_the_memory_stays_small(connection, make):
    bucket = make(codec="bytes")
    for number in range(200):
        bucket.put(f"k.{number}", bytes(10_000))
    cache = connection.local_cache(bucket.name, codec="bytes", max_bytes=200_000)
    with pytest.raises(exceptions.OperationalError, match="MAX_BYTES"):
        cache.get("k.0")
    with pytest.raises(exceptions.OperationalError, match="MAX_BYTES"):
        cache.wait_ready(30)
    status = cache.status()
    assert status.state == "stopped"
    assert "MAX_BYTES" in status.reason
    assert (status.entries, status.bytes) == (0, 0)


def test_a_copy_that_grows_beyond_the_bound_is_stopped(connection, make, nats_server):
    bucket = make(codec="bytes")
    bucket.put("a", b"1")
    cache = live(connection.local_cache(bucket.name, codec="bytes", max_bytes=5_000))
    bucket.put("b", bytes(6_000))
    eventually(lambda: cache.status().state == "stopped")
    with pytest.raises(exceptions.OperationalError, match="MAX_BYTES"):
        cache.get("a")
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])
    bucket.purge("b")
    cache.close()
    assert cache.value("a") == b"1"  # closed and used again, it begins anew


def test_a_bucket_that_is_not_there_yet(connect_kv, bucket_name):
    connection = connect_kv(local_cache=kv.LocalCacheSettings(wait=1_000))
    cache = connection.local_cache(bucket_name)
    assert cache.get("a") is None  # at once: it may wait for longer than a test may take
    assert cache.status().state == "stale"
    assert "no bucket" in cache.status().reason.lower()
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", 1)
    live(cache)
    assert cache.value("a") == 1
    connection.kv().delete_bucket(bucket_name)


def test_close_leaves_nothing_and_a_later_use_begins_anew(connect_kv, make, nats_server):
    bucket = make()
    bucket.put("a", 1)
    connection = connect_kv()
    cache = live(connection.local_cache(bucket.name))
    eventually(lambda: len(nats_server.consumers(f"KV_{bucket.name}")) == 1)
    cache.close()
    cache.close()
    assert cache.status().state == "stopped"
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])
    assert cache.value("a") == 1
    connection.close()
    assert cache.status().state == "stopped"
    eventually(lambda: nats_server.connections(connection.settings.name) == [])
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])


def test_the_end_of_the_connection_leaves_no_thread(connect_kv, make):
    bucket = make()
    before = set(threading.enumerate())
    connection = connect_kv()
    live(connection.local_cache(bucket.name))
    assert set(threading.enumerate()) - before
    connection.close()
    eventually(lambda: not {one for one in set(threading.enumerate()) - before if one.name.startswith("natskv")})


async def test_several_event_loops_read_at_once(connection, make):
    bucket = make()
    bucket.put("a", 1)
    cache = connection.local_cache(bucket.name)
    seen = []

    async def read():
        assert await cache.await_ready(30)
        seen.append((await cache.aget("a")).value)
        seen.append(await cache.avalue("missing", 7))

    threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    await read()
    await aeventually(lambda: len(seen) == 10)
    for thread in threads:
        thread.join()
    assert set(seen) == {1, 7}


async def test_a_plain_read_inside_a_running_loop(connection, make):
    bucket = make()
    bucket.put("a", [1])
    cache = connection.local_cache(bucket.name)
    assert cache.value("a") == [1]
    assert await cache.avalue("a") == [1]


def test_a_thread_never_sees_half_of_a_resync(connection, make, nats_server):
    bucket = make()
    fill_plain(bucket, 500)
    cache = live(connection.local_cache(bucket.name))
    stop = threading.Event()
    sizes = set()

    def read():
        while not stop.is_set():
            sizes.add(len(cache.items()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            delete_consumers(connection, bucket.name, nats_server)
            eventually(lambda: cache.status().state == "live" and nats_server.consumers(f"KV_{bucket.name}"))
    finally:
        stop.set()
        reader.join()
    assert sizes == {500}


def fill_plain(bucket, count):
    class Plain:
        plain = bucket

    fill(Plain, [f"k.{number}" for number in range(count)])


def delete_consumers(connection, bucket, server):
    wire = connection.kv()._wire
    for name in server.consumers(f"KV_{bucket}"):
        connection._runner.call(wire.delete_consumer(bucket, name, "a test"))


def test_the_status_is_plain_data(connection, make):
    status = live(connection.local_cache(make().name)).status()
    assert json.dumps(status.state) == '"live"'
    with pytest.raises(AttributeError):
        setattr(status, "state", "stale")  # noqa: B010 - mypy would not have it otherwise
