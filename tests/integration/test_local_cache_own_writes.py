"""A process reads its own writes from its local caches, on both faces, at once and for good."""

from __future__ import annotations

import threading

import pytest

from django_natskv import exceptions
from tests.fix_local import equal, feed, live
from tests.fix_waiting import eventually


@pytest.fixture
def cache(bucket):
    """A live mirror of ``bucket``, on the connection through which it is written."""
    bucket.put("there", 0)
    return live(bucket.connection.local_cache(bucket.name))


@pytest.fixture
def bucket(face, connect_kv, bucket_name):
    connection = connect_kv()
    context = face.wrap(connection).kv()
    made = context.create_bucket({"bucket": bucket_name, "storage": "memory", "history": 5})
    made.connection = connection
    yield made
    context.delete_bucket(bucket_name)


def test_every_write_is_read_as_soon_as_it_returns(bucket, cache):
    for number in range(300):
        revision = bucket.put("a", number)
        entry = cache.get("a")
        assert (entry.value, entry.revision) == (number, revision)
        assert cache.value("a") == number
    bucket.delete("a")
    assert cache.get("a") is None
    assert "a" not in cache.keys()  # noqa: SIM118 - not a dict
    revision = bucket.create("a", "made")
    assert cache.items()["a"].revision == revision
    revision = bucket.update("a", "updated", revision)
    assert cache.get("a").revision == revision
    bucket.purge("a")
    assert (
        cache.get(
            "a",
        )
        is None
    )
    with pytest.raises(exceptions.WrongRevision):
        bucket.update("a", "lost", revision)
    assert cache.get("a") is None
    equal(cache, bucket.plain)


def test_a_write_of_this_process_does_not_bring_back_what_another_one_deleted(bucket, cache, connect_kv):
    other = connect_kv().kv().open_bucket(bucket.name)
    for number in range(200):
        bucket.put("a", number)
        other.delete("a")
        eventually(lambda: cache.get("a") is None)
        assert cache.get("a") is None
    eventually(lambda: cache._own == {})


def test_a_write_while_the_copy_is_cut_off_is_read_until_the_copy_is_back(
    face, connect_kv, make_proxy, nats_server, bucket_name
):
    """The connection of watches is cut; the one of requests goes on."""
    proxy = make_proxy(nats_server.url)
    connection = connect_kv(proxy.url)
    connection._requests.settings = connect_kv().settings  # past the proxy
    bucket = face.wrap(connection).kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", 0)
    cache = live(connection.local_cache(bucket_name))
    proxy.refuse(cut=True)
    eventually(lambda: cache.status().state == "stale")
    bucket.put("a", 1)
    bucket.put("b", 2)
    assert (cache.value("a"), cache.value("b")) == (1, 2)
    proxy.accept()
    for _ in iter(lambda: cache.status().state == "live", True):
        assert (cache.value("a"), cache.value("b")) == (1, 2)
    assert (cache.value("a"), cache.value("b")) == (1, 2)
    equal(cache, bucket.plain)
    eventually(lambda: feed(cache).mirror.own == {})


def test_a_process_that_writes_more_than_fits_while_the_copy_is_cut_off_is_told_and_holds_none_of_it(
    connect_kv, make_proxy, nats_server, bucket_name
):
    """As without the permission to watch, for ever."""
    proxy = make_proxy(nats_server.url)
    connection = connect_kv(proxy.url)
    connection._requests.settings = connect_kv().settings  # past the proxy
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"})
    cache = live(connection.local_cache(bucket_name, max_bytes=20_000))
    proxy.refuse(cut=True)
    eventually(lambda: cache.status().state == "stale")
    for number in range(60):
        bucket.put(f"k.{number}", number)
    eventually(lambda: cache.status().state == "stopped")
    bucket.put("another", 1)

    def holds_nothing():
        status = cache.status()
        assert "MAX_BYTES" in status.reason
        return (status.entries, status.bytes) == (0, 0)

    eventually(holds_nothing)  # whose end is first told, and then made
    bucket.put("another", 2)
    assert holds_nothing()
    with pytest.raises(exceptions.OperationalError, match="MAX_BYTES"):
        cache.get("k.1")
    proxy.accept()
    assert bucket.get("k.59").value == 59


def test_a_write_during_the_first_replay_is_read(bucket, connect_kv):
    for number in range(300):
        bucket.put(f"k.{number}", 0)
    cache = bucket.connection.local_cache(bucket.name)
    for number in range(1, 30):
        cache.start()
        bucket.put("k.7", number)
        assert cache.value("k.7") == number
        assert len(cache.keys()) == 300
        cache.close()


def test_many_threads_each_read_what_they_wrote(bucket, cache):
    failures = []

    def work(name):
        for number in range(150):
            bucket.plain.put(name, number)
            if cache.value(name) != number:
                failures.append((name, number, cache.get(name)))

    threads = [threading.Thread(target=work, args=(f"t.{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    eventually(lambda: cache._own == {})
    equal(cache, bucket.plain)


def test_a_confirmation_in_the_middle_of_a_read_does_not_show_what_was_before(bucket, cache):
    """On the way that most reads take."""
    bucket.put("a", "before")
    eventually(lambda: cache._own == {})
    for number in range(2_000):
        bucket.plain.put("a", number)
        for _ in range(3):
            assert cache.get("a").value == number
