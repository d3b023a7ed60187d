"""Many at once: get_many in few requests, and purge_deletes."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from django_natskv.exceptions import InvalidKey, UsageError
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv._nats.verbs import MAX_MATCHES
from tests.fix_facade import fill


def test_get_many_gives_the_entries_by_key_in_the_order_asked(bucket):
    for key in ("a", "b", "c", "null"):
        bucket.put(key, None if key == "null" else key)
    bucket.put("deleted", 1)
    bucket.delete("deleted")
    bucket.put("purged", 1)
    bucket.purge("purged")
    found = bucket.get_many(["c", "absent", "a", "deleted", "c", "null", "purged"])
    assert list(found) == ["c", "a", "null"]
    assert found == {key: bucket.get(key) for key in ("c", "a", "null")}


def test_get_many_takes_any_iterable(bucket):
    bucket.put("a", 1)
    bucket.put("b", 2)
    assert list(bucket.get_many(key for key in "ab")) == ["a", "b"]
    assert set(bucket.get_many({"a", "b"})) == {"a", "b"}
    assert list(bucket.get_many({"b": None})) == ["b"]


def test_get_many_of_nothing_is_nothing(bucket):
    assert bucket.get_many([]) == {}
    assert bucket.get_many(["absent"]) == {}
    assert bucket.get_many(["absent", "too"]) == {}


@pytest.mark.parametrize("keys", ["a", "abc", None, 7, b"bytes", ["a", "b c"], ["a", None], ["a.*"], [">"], [""]])
def test_what_is_no_list_of_keys_is_refused(bucket, keys):
    with pytest.raises(UsageError) as caught:
        bucket.get_many(keys)
    if isinstance(keys, list):
        assert isinstance(caught.value, InvalidKey)


@pytest.mark.parametrize("count", [1023, 1024, 1025, 2500])
def test_get_many_of_more_than_one_request_can_ask_for(make_bucket, count):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(count)]
    fill(bucket, keys)
    found = bucket.get_many([*reversed(keys), "absent"])
    assert list(found) == list(reversed(keys))
    assert [entry.key for entry in found.values()] == list(reversed(keys))


def test_get_many_asks_once_for_a_thousand_keys(make_bucket, nats_server):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(1024)]
    fill(bucket, keys)
    name = bucket.plain._core.wire.client.settings.name
    before = nats_server.connections(name)[0]["in_msgs"]
    assert len(bucket.get_many(keys)) == 1024
    assert nats_server.connections(name)[0]["in_msgs"] - before == 1


def test_get_many_of_the_longest_keys_there_are(make_bucket):
    bucket = make_bucket()
    keys = [f"{number:04}{'k' * 1020}" for number in range(1100)]
    fill(bucket, keys)
    assert list(bucket.get_many(keys)) == keys


def test_get_many_of_values_that_do_not_fit_into_one_answer(make_server, connect_kv, face, bucket_name):
    server = make_server(config="max_pending: 4MB")
    context = face.wrap(connect_kv(server, request_timeout=20.0)).kv()
    bucket = context.create_bucket({"bucket": bucket_name}, codec="bytes")
    keys = [f"k{number}" for number in range(24)]
    for key in keys:
        bucket.put(key, key.encode() * 200_000)
    found = bucket.get_many(keys)
    assert [entry.value[:3] for entry in found.values()] == [(key * 2)[:3].encode() for key in keys]


def test_get_many_and_history_of_values_of_which_one_alone_is_larger_than_an_answer(make_server, connect_kv, face):
    server = make_server(config="max_payload: 8MB")
    context = face.wrap(connect_kv(server, request_timeout=20.0)).kv()
    bucket = context.create_bucket({"bucket": "large", "history": 4}, codec="bytes")
    keys = [f"k{number}" for number in range(6)]
    for key in keys:
        bucket.put(key, key.encode() * 1_500_000)
    assert [entry.value[:2].decode() for entry in bucket.get_many(keys).values()] == keys
    for digit in b"12":
        bucket.put("k0", bytes([digit]) * 3_000_000)
    assert [entry.value[:2] for entry in bucket.history("k0")] == [b"k0", b"11", b"22"]


# ---------------------------------------------------------------------- purge_deletes


def test_purge_deletes_removes_the_rest_of_deleted_keys_at_once(bucket, context):
    for key in ("live", "rewritten", "deleted", "purged"):
        bucket.put(key, 1)
        bucket.put(key, 2)
    for key in ("rewritten", "deleted"):
        bucket.delete(key)
    bucket.purge("purged")
    bucket.put("rewritten", 3)
    kept = bucket.history("live"), bucket.history("rewritten")
    assert bucket.purge_deletes() is None
    assert bucket.history("deleted") == []
    assert bucket.history("purged") == []
    assert (bucket.history("live"), bucket.history("rewritten")) == kept
    assert sorted(bucket.keys()) == ["live", "rewritten"]
    assert context.bucket_status(bucket.name).values == 2


def test_purge_deletes_without_tombstones_changes_nothing(bucket):
    bucket.purge_deletes()
    bucket.put("a", 1)
    before = bucket.history("a")
    bucket.purge_deletes()
    assert bucket.history("a") == before


def test_purge_deletes_of_very_many(make_bucket, context):
    bucket = make_bucket(history=3)
    keys = [f"k.{number}" for number in range(2_500)]
    fill(bucket, keys)

    async def delete_all():
        await asyncio.gather(*(bucket.plain.adelete(key) for key in keys[100:]))

    asyncio.run(delete_all())
    bucket.purge_deletes()
    assert sorted(bucket.keys()) == sorted(keys[:100])
    assert bucket.plain._runner.call(bucket.plain._core.wire.info(bucket.name)).subjects == 100
    assert context.bucket_status(bucket.name).values == 100


def test_a_key_that_is_made_again_during_purge_deletes_lives(make_bucket, connect_kv):
    bucket = make_bucket(history=4)
    other = connect_kv(request_timeout=20.0).kv().open_bucket(bucket.name)
    stopping = threading.Event()

    def make_again():
        number = 0
        while not stopping.is_set():
            other.delete("a")
            revision = other.put("a", number)
            entry = other.get("a")
            assert (entry.value, entry.revision) == (number, revision)
            number += 1

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(make_again)
        try:
            for _ in range(100):
                bucket.purge_deletes()
        finally:
            stopping.set()
        making.result()
    assert bucket.get("a") is not None


def test_a_read_in_several_parts_may_take_its_time_for_each(connect_kv, make_bucket, monkeypatch):
    bucket = make_bucket(storage="memory")
    keys = [f"k.{number}" for number in range(5 * MAX_MATCHES)]
    fill(bucket, keys)
    begin = Exchange.begin

    def late(self, done):
        # Together the parts take longer than there is for one.
        self._client.later(0.5, partial(begin, self, done)) if self.many else begin(self, done)

    monkeypatch.setattr(Exchange, "begin", late)
    impatient = connect_kv(request_timeout=2.0).kv().open_bucket(bucket.name)
    assert list(impatient.get_many(keys)) == keys
