"""Mode "invalidate": what was read is kept until somebody changes it, and never longer."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time

import pytest

from django_natskv import exceptions
from django_natskv.kv._feed import STALLED
from tests.fix_local import feed, live
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def connection(connect_kv):
    return connect_kv()


@pytest.fixture
def bucket(connect_kv, bucket_name):
    """The bucket, through another connection: what it writes is another process's."""
    context = connect_kv().kv()
    yield context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    if bucket_name in context.bucket_names():
        context.delete_bucket(bucket_name)


@pytest.fixture
def cache(connection, bucket):
    return live(connection.local_cache(bucket.name, mode="invalidate"))


def asked(server):
    return server.ask("varz")["in_msgs"]


def test_a_value_is_read_once(cache, bucket, nats_server):
    bucket.put("a", 1)
    assert cache.value("a") == 1
    assert cache.value("absent", 7) == 7
    before = asked(nats_server)
    for _ in range(1_000):
        assert cache.value("a") == 1
        assert cache.get("absent") is None
    assert asked(nats_server) - before < 100
    assert cache.keys() == ["a"]
    assert cache.items()["a"] == bucket.get("a")
    status = cache.status()
    assert (status.state, status.entries) == ("live", 2)
    assert 0 < status.bytes < 1_000


def test_a_change_elsewhere_is_seen(cache, bucket):
    bucket.put("a", 1)
    assert cache.value("a") == 1
    bucket.put("a", 2)
    eventually(lambda: cache.value("a") == 2)
    bucket.delete("a")
    eventually(lambda: cache.get("a") is None)
    bucket.create("a", 3)
    eventually(lambda: cache.value("a") == 3)
    bucket.purge("a")
    eventually(lambda: cache.get("a") is None)


def test_only_headers_travel(cache, bucket, nats_server):
    [consumer] = nats_server.streams()[f"KV_{bucket.name}"]["consumer_detail"]
    assert consumer["config"]["headers_only"]


def test_own_writes_are_read_at_once(connection, cache, bucket):
    own = connection.kv().open_bucket(bucket.name)
    for number in range(300):
        own.put("a", number)
        assert cache.value("a") == number
    own.delete("a")
    assert cache.get("a") is None


def test_mutable_values_are_not_shared(cache, bucket):
    bucket.put("a", [1])
    cache.value("a").append(2)
    cache.value("a").append(3)
    assert cache.value("a") == [1]


def test_a_read_that_a_change_overtook_is_not_kept(connect_kv, make_proxy, nats_server, bucket):
    """The answer to the read is held back on its way while the change goes by."""
    proxy = make_proxy(nats_server.url)
    connection = connect_kv(proxy.url, request_timeout=30)  # longer than the answer is held back
    connection._watches.settings = connect_kv().settings  # past the proxy
    cache = live(connection.local_cache(bucket.name, mode="invalidate"))
    bucket.put("a", "old")
    bucket.put("warm", 1)
    assert cache.value("warm") == 1
    found = []
    with proxy.paused("replies"):
        before = asked(nats_server)
        reader = threading.Thread(target=lambda: found.append(cache.value("a")))
        reader.start()
        eventually(lambda: asked(nats_server) > before)
        eventually(lambda: feed(cache).lru._readings)
        revision = bucket.put("a", "new")
        eventually(lambda: feed(cache).lru.revision >= revision)
    reader.join()
    assert found[0] in ("old", "new")
    assert cache.value("a") == "new"
    assert cache.value("a") == "new"


def test_while_cut_off_nothing_is_kept_and_reads_say_so(connect_kv, make_proxy, nats_server, bucket):
    proxy = make_proxy(nats_server.url)
    cache = live(connect_kv(proxy.url).local_cache(bucket.name, mode="invalidate"))
    bucket.put("a", 1)
    assert cache.value("a") == 1
    proxy.refuse(cut=True)
    eventually(lambda: cache.status().state == "stale")
    assert cache.items() == {}
    with pytest.raises(exceptions.NotConnected):
        cache.get("a")
    bucket.put("a", 2)
    proxy.accept()
    live(cache)
    eventually(lambda: readable(cache))
    assert cache.value("a") == 2


def readable(cache):
    try:
        cache.get("a")
    except exceptions.OperationalError:
        return False
    return True


def test_a_half_open_line_is_noticed(connect_kv, make_proxy, nats_server, bucket):
    proxy = make_proxy(nats_server.url)
    connection = connect_kv(proxy.url)
    connection._requests.settings = connect_kv().settings  # reads go past the proxy
    cache = live(connection.local_cache(bucket.name, mode="invalidate"))
    bucket.put("a", 1)
    assert cache.value("a") == 1
    proxy.blackhole()
    bucket.put("a", 2)
    eventually(lambda: cache.value("a") == 2, 4.5)
    proxy.heal()
    live(cache)


def test_the_bucket_made_anew(connection, connect_kv, cache, bucket):
    bucket.put("a", 1)
    assert cache.value("a") == 1
    context = connect_kv().kv()
    context.delete_bucket(bucket.name)
    eventually(lambda: cache.status().state == "stale")
    with pytest.raises(exceptions.BucketNotFound):
        cache.get("a")
    context.create_bucket({"bucket": bucket.name, "storage": "memory"}).put("a", 2)
    live(cache)
    assert cache.value("a") == 2


def test_a_bucket_that_gets_replicas_is_read_at_its_leader_from_then_on(cache, bucket, monkeypatch):
    bucket.put("a", 1)
    assert cache.value("a") == 1
    seen = feed(cache)._core.info
    assert seen.direct
    replicated = dataclasses.replace(seen, config={**seen.config, "num_replicas": 3})
    feed(cache)._looked(replicated, time.monotonic())
    assert cache.status().entries == 0
    monkeypatch.setattr("django_natskv.kv._nats.config.BucketInfo.parse", lambda _: replicated)
    assert cache.value("a") == 1
    assert not feed(cache)._core.info.direct
    assert cache.status().entries == 1


def test_what_vanishes_without_a_marker_is_not_believed_for_long(connect_kv, cache, bucket):
    bucket.put("a", 1)
    bucket.put("b", 1)
    assert cache.value("a") == 1
    context = connect_kv().kv()
    context._runner.call(context._wire.purge_up_to(bucket.name, [(f"$KV.{bucket.name}.a", 10)]))
    eventually(lambda: cache.get("a") is None, 9)
    assert cache.value("b") == 1


def test_expired_values_are_not_served(cache, bucket):
    def read_in_time() -> bool:
        bucket.purge("a")
        bucket.create("a", 1, ttl_ms=1_000)
        return cache.value("a") == 1  # unless something held this thread up for as long

    eventually(read_in_time)
    eventually(lambda: cache.get("a") is None, 4)


def test_no_stale_value_survives_a_change_under_load(connection, cache, bucket, program, nats_server):
    """Once the watch has come by a write, and a bounded time after it in any case, nobody finds what was before."""
    writer = program(
        """
bucket = connections["default"].kv().open_bucket(os.environ["BUCKET"])
deadline = time.monotonic() + 4
number = 0
while time.monotonic() < deadline or number < 200:
    number += 1
    for key in "abcd":
        bucket.put(key, number)
    print(json.dumps(number), flush=True)
    time.sleep(0.001)
""",
        {"default": {"SERVERS": nats_server.url}},
        BUCKET=bucket.name,
    )
    assert writer.process.stdout is not None
    acknowledged = []
    failures = []
    stop = threading.Event()
    acknowledged.append((time.monotonic(), int(writer.process.stdout.readline())))

    def read(key):
        while not stop.wait(0.0005):  # or six threads that never wait would have the interpreter to themselves
            began = time.monotonic()
            # A watch that hears nothing is not believed any longer than this.
            least = max((number for at, number in acknowledged[-2_000:] if at < began - STALLED), default=0)
            heard = feed(cache).lru.revision
            entry = cache.get(key)
            # Nobody else writes, and these keys one after the other.
            if entry is None or entry.value < least or entry.revision <= heard - 4:
                failures.append((key, least, heard, entry))

    readers = [threading.Thread(target=read, args=(key,)) for key in "abcdab"]
    for reader in readers:
        reader.start()
    acknowledged.extend((time.monotonic(), int(line)) for line in writer.process.stdout)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    eventually(lambda: {cache.value(key) for key in "abcd"} == {acknowledged[-1][1]})


def test_a_value_that_does_not_decode_raises_as_a_read_of_the_bucket_does(connection, cache, bucket):
    connection.kv().open_bucket(bucket.name, codec="bytes").put("a", b"\xff")
    with pytest.raises(exceptions.CodecError):
        cache.get("a")
    assert feed(cache).lru._readings == {}


async def test_reads_are_awaited_on_several_loops(cache, bucket):
    bucket.put("a", 1)
    seen = []

    async def read():
        assert await cache.await_ready(30)
        seen.append(await cache.avalue("a"))
        seen.append((await cache.aget("a")).value)

    threads = [threading.Thread(target=lambda: asyncio.run(read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    await read()
    await aeventually(lambda: not any(thread.is_alive() for thread in threads))
    assert seen == [1] * 10


def test_a_start_while_nats_is_down(make_server, connect_kv):
    server = make_server()
    connect_kv(server).kv().create_bucket({"bucket": "b"}).put("a", 1)
    server.stop()
    cache = connect_kv(server).local_cache("b", mode="invalidate")
    with pytest.raises(exceptions.OperationalError):
        cache.get("a")
    eventually(lambda: cache.status().state == "stale")
    server.start()
    live(cache)
    eventually(lambda: readable(cache))
    assert cache.value("a") == 1


def test_close_leaves_nothing(connection, cache, bucket, nats_server):
    cache.close()
    assert cache.status().state == "stopped"
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])
    bucket.put("a", 1)
    assert cache.value("a") == 1
