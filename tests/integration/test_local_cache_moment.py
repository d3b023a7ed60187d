"""A moment of a local cache: the same object exactly as long as reads give the same."""

from __future__ import annotations

import pytest

from tests.fix_local import live
from tests.fix_waiting import eventually


@pytest.fixture
def bucket(connect_kv, bucket_name):
    connection = connect_kv()
    yield connection.kv().create_bucket({"bucket": bucket_name, "history": 8}, codec="bytes")
    connection.kv().delete_bucket(bucket_name)


@pytest.fixture
def cache(connect_kv, bucket):
    return connect_kv().local_cache(bucket.name, codec="bytes")


def test_it_stays_while_nothing_changes(cache, bucket):
    bucket.put("a", b"1")
    live(cache)
    moment = cache.moment
    assert (cache.get("a").value, cache.get("b"), cache.keys()) == (b"1", None, ["a"])
    assert cache.moment is moment


@pytest.mark.parametrize("key", ["a", "new"])
def test_a_write_elsewhere_ends_it_once_it_can_be_read(cache, bucket, key):
    bucket.put("a", b"1")
    live(cache)
    moment = cache.moment
    bucket.put(key, b"2")
    eventually(lambda: cache.moment is not moment)
    assert cache.get(key).value == b"2"


def test_a_delete_ends_it_once_it_can_be_read(cache, bucket):
    bucket.put("a", b"1")
    live(cache)
    moment = cache.moment
    bucket.delete("a")
    eventually(lambda: cache.moment is not moment)
    assert cache.get("a") is None


def test_what_vanishes_without_a_marker_ends_it(cache, bucket):
    bucket.put("a", b"1")
    live(cache)
    moment = cache.moment
    bucket.erase("a")
    eventually(lambda: cache.moment is not moment and cache.get("a") is None, 15)


def test_a_write_of_the_same_connection_ends_it_at_once(bucket, connect_kv):
    connection = connect_kv()
    own = connection.kv().open_bucket(bucket.name, codec="bytes")
    cache = live(connection.local_cache(bucket.name, codec="bytes"))
    moment = cache.moment
    own.put("a", b"1")
    assert cache.moment is not moment


def test_the_first_replay_ends_it(connect_kv, bucket_name):
    connection = connect_kv()
    cache = connection.local_cache(bucket_name, codec="bytes")
    assert cache.get("a") is None  # no such bucket yet
    moment = cache.moment
    bucket = connect_kv().kv().create_bucket({"bucket": bucket_name}, codec="bytes")
    bucket.put("a", b"1")
    eventually(lambda: cache.moment is not moment and cache.get("a") is not None)
    connection.kv().delete_bucket(bucket_name)


def test_a_cache_that_does_not_run_has_no_moment_to_rely_on(cache, bucket, connect_kv):
    assert cache.moment is not cache.moment
    live(cache)
    cache.close()
    assert cache.moment is not cache.moment
    invalidating = connect_kv().local_cache(bucket.name, mode="invalidate")
    live(invalidating)
    assert invalidating.moment is not invalidating.moment
