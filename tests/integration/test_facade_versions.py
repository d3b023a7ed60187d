"""Every operation on every supported server; an older one is refused; the buckets of other clients, both ways."""

from __future__ import annotations

import asyncio
import contextlib

import nats
import pytest
from nats.js.api import KeyValueConfig
from nats.js.errors import KeyWrongLastSequenceError, NoKeysError

from django_natskv import kv
from django_natskv.exceptions import (
    BucketExists,
    BucketNotFound,
    ConnectFailed,
    JetStreamApiError,
    MissingRequiredKey,
    WrongRevision,
)
from tests.fix_facade import fill
from tests.fix_servers import REFUSED_VERSION
from tests.fix_waiting import eventually


@pytest.fixture
def on_any(any_server, connect_kv, face):
    return face.wrap(connect_kv(any_server, request_timeout=10.0)).kv()


def test_every_operation_on_every_server(on_any, bucket_name):  # noqa: PLR0915 - every operation is a statement
    context = on_any
    config = {"bucket": bucket_name, "history": 5, "limit_marker_ttl_ms": 60_000, "metadata": {"a": "b"}}
    bucket = context.create_bucket(config)
    with pytest.raises(BucketExists):
        context.create_bucket({"bucket": bucket_name, "history": 6})
    first = bucket.create("user.1", {"n": 1})
    with pytest.raises(WrongRevision):
        bucket.create("user.1", 2)
    second = bucket.update("user.1", {"n": 2}, first)
    with pytest.raises(WrongRevision):
        bucket.update("user.1", 3, first)
    with pytest.raises(WrongRevision):
        bucket.update("user.1", 3, 2**64 + first)
    bucket.put("user.2", None)
    bucket.put("order.1", "x")
    assert bucket.get("user.2").value is None
    assert bucket.get("user.1", revision=first).value == {"n": 1}
    assert bucket.get("user.1", revision=10_000) is None
    assert bucket.get("absent") is None
    assert sorted(bucket.keys(["user.*", "*.1"])) == ["order.1", "user.1", "user.2"]
    assert list(bucket.get_many(["order.1", "absent", "user.1"])) == ["order.1", "user.1"]
    with pytest.raises(WrongRevision):
        bucket.delete("user.1", revision=first)
    bucket.delete("user.1", revision=second)
    assert [(entry.operation, entry.delta) for entry in bucket.history("user.1")] == [
        ("put", 2),
        ("put", 1),
        ("delete", 0),
    ]
    assert bucket.create("user.1", {"n": 3})
    bucket.purge("user.1")
    assert [entry.operation for entry in bucket.history("user.1")] == ["purge"]
    assert bucket.create("user.1", {"n": 4})
    bucket.delete("order.1")
    status = context.bucket_status(bucket_name)
    assert (status.values, status.history, status.limit_marker_ttl_ms, status.metadata) == (2, 5, 60_000, {"a": "b"})
    bucket.purge_deletes()
    assert bucket.history("order.1") == []
    assert sorted(bucket.keys()) == ["user.1", "user.2"]
    assert bucket_name in context.bucket_names()
    assert bucket_name in [one.bucket for one in context.list_buckets()]
    assert context.update_bucket({"bucket": bucket_name, "history": 7, "ttl_ms": 60_000}).history == 7
    with pytest.raises(JetStreamApiError):
        context.update_bucket({"bucket": bucket_name, "storage": "memory"})
    context.delete_bucket(bucket_name)
    with pytest.raises(BucketNotFound):
        bucket.get("user.1")


def test_the_operations_on_many_on_every_server(on_any, any_server, bucket_name):
    bucket = on_any.create_bucket({"bucket": bucket_name, "history": 3})
    changes = [kv.Change.put("a.1", 1, headers={"By": "me"}), kv.Change.create("a.2", 2), kv.Change.delete("a.3")]
    written = bucket.write_many(changes)
    assert [entry.revision for entry in bucket.entries()] == sorted(written[:2])
    assert [entry.revision for entry in bucket.entries(history=True)] == sorted(written)
    assert bucket.get("a.1").headers == {"By": "me"}
    several = [kv.Change.update("a.1", 3, written[0]), kv.Change.purge("a.2")]
    if any_server.version < (2, 12):
        with pytest.raises(JetStreamApiError, match=r"2\.12"):
            bucket.write_many(several, atomic=True)
        bucket.write_many(several)
    else:
        bucket.write_many(several, atomic=True)
    seen: list[kv.Entry] = []
    watch = bucket.watch(seen.append, keys=["a.1", "a.2"], deliver="history")
    watch.initialized.result(30)
    watch.stop()
    assert sorted((entry.key, entry.value, entry.operation) for entry in seen) == [
        ("a.1", 1, "put"),
        ("a.1", 3, "put"),
        ("a.2", None, "purge"),
    ]
    health = on_any.bucket_health(bucket_name)
    assert (health.keys, health.revisions) == (3, 4)
    assert bucket.erase("a.1", before=bucket.get("a.1").revision) == 1
    assert bucket.erase() == 3
    assert bucket.server_time() >= health.created
    on_any.delete_bucket(bucket_name)


def test_many_keys_on_every_server(on_any, bucket_name):
    bucket = on_any.create_bucket({"bucket": bucket_name, "storage": "memory"})
    keys = [f"k.{number}" for number in range(2_100)]
    fill(bucket, keys)
    assert set(bucket.keys()) == set(keys)
    assert list(bucket.get_many(keys)) == keys
    on_any.delete_bucket(bucket_name)


def test_expiry_on_every_server(on_any, bucket_name):
    bucket = on_any.create_bucket({"bucket": bucket_name, "storage": "memory", "limit_marker_ttl_ms": 60_000})
    bucket.create("a", 1, ttl_ms=1000)
    eventually(lambda: bucket.get("a") is None, 30)
    assert [(entry.operation, entry.value) for entry in bucket.history("a")] == [("purge", None)]
    assert bucket.create("a", 2)
    bucket.purge("a", marker_ttl_ms=1000)
    eventually(lambda: bucket.history("a") == [], 30)
    on_any.delete_bucket(bucket_name)


@pytest.mark.versions
def test_what_was_given_is_taken_back_on_every_server(any_server, connect_kv, bucket_name):
    context = connect_kv(any_server).kv()
    origin = context.create_bucket({"bucket": "origin"})
    bare = {
        "description": "",
        "ttl_ms": 0,
        "limit_marker_ttl_ms": 0,
        "max_value_size": -1,
        "max_bucket_size": -1,
        "compression": False,
        "metadata": {},
        "placement": {},
        "republish": {},
        "sources": [],
    }
    context.create_bucket({"bucket": bucket_name})
    before = context.bucket_status(bucket_name)
    given = {
        "description": "x",
        "ttl_ms": 60_000,
        "limit_marker_ttl_ms": 5_000,
        "max_value_size": 1_000,
        "max_bucket_size": 100_000,
        "compression": True,
        "metadata": {"a": "b"},
        "placement": {"tags": ["ssd"]},
        "republish": {"destination": "copies.>"},
        "sources": ["origin"],
    }
    assert given.keys() == bare.keys()
    context.update_bucket({"bucket": bucket_name, **given})
    assert context.bucket_status(bucket_name).republish["destination"] == "copies.>"
    assert context.update_bucket({"bucket": bucket_name, **bare}) == before
    # A mirror cannot be turned into anything else: what the server would make of it has no keys of its own.
    context.create_bucket({"bucket": f"{bucket_name}-copy", "mirror": origin.name})
    with pytest.raises(MissingRequiredKey, match="A mirror stays one"):
        context.update_bucket({"bucket": f"{bucket_name}-copy", "mirror": {}})
    with pytest.raises(JetStreamApiError, match="mirror configuration can not be updated"):
        context.update_bucket({"bucket": f"{bucket_name}-copy", "mirror": bucket_name})


def test_an_older_server_is_refused_and_told_by_its_version(make_server, connect_kv, face):
    server = make_server(version=REFUSED_VERSION)
    with pytest.raises(ConnectFailed) as caught:
        face.wrap(connect_kv(server)).kv()
    assert "2.10" in str(caught.value)
    assert "2.11" in str(caught.value)
    assert str(server.port) in str(caught.value)


# ---------------------------------------------------------------------- other clients


def by_nats_py(server, work):
    """Run ``work(jetstream)`` on a client of nats-py."""

    async def main():
        client = await nats.connect(server.url)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(main())


async def insisted(read, *key):
    """Return what nats-py reads: again where its end came before its beginning, as happens now and then (F4)."""
    for _ in range(20):
        with contextlib.suppress(NoKeysError, TimeoutError):
            return await asyncio.wait_for(read(*key), 10)
    return []


def test_what_nats_py_wrote_is_read_here(nats_server, context, bucket_name):
    async def write(jetstream):
        store = await jetstream.create_key_value(KeyValueConfig(bucket=bucket_name, history=5))
        first = await store.put("user.1", b'{"n": 1}')
        await store.update("user.1", b'{"n": 2}', first)
        await store.create("user.2", b"null")
        await store.put("gone", b"1")
        await store.delete("gone")
        await store.put("purged", b"1")
        await store.purge("purged")
        return first

    first = by_nats_py(nats_server, write)
    bucket = context.open_bucket(bucket_name)
    assert bucket.get("user.1").value == {"n": 2}
    assert bucket.get("user.1", revision=first).value == {"n": 1}
    assert bucket.get("user.2").value is None
    assert bucket.get("gone") is None
    assert bucket.get("purged") is None
    assert sorted(bucket.keys()) == ["user.1", "user.2"]
    assert [entry.value for entry in bucket.history("user.1")] == [{"n": 1}, {"n": 2}]
    assert [entry.operation for entry in bucket.history("gone")] == ["put", "delete"]
    assert [entry.operation for entry in bucket.history("purged")] == ["purge"]
    assert list(bucket.get_many(["user.2", "gone", "user.1"])) == ["user.2", "user.1"]
    assert bucket.create("gone", 1)
    assert bucket.create("purged", 1)
    bucket.delete("user.2")
    bucket.purge_deletes()
    assert bucket.history("user.2") == []
    status = context.bucket_status(bucket_name)
    assert (status.history, status.values) == (5, 3)
    assert context.update_bucket({"bucket": bucket_name, "history": 6}).history == 6
    context.delete_bucket(bucket_name)


def test_what_is_written_here_nats_py_reads(nats_server, make_bucket):
    bucket = make_bucket(history=5)
    first = bucket.put("a", {"n": 1})
    second = bucket.update("a", {"n": 2}, first)
    bucket.put("gone", 1)
    bucket.delete("gone")
    bucket.put("purged", 1)
    bucket.purge("purged")

    async def read(jetstream):
        store = await jetstream.key_value(bucket.name)
        entry = await store.get("a")
        assert (entry.value, entry.revision) == (b'{"n":2}', second)
        assert (await store.get("a", revision=first)).value == b'{"n":1}'
        assert await insisted(store.keys) == ["a"]
        assert [one.value for one in await insisted(store.history, "a")] == [b'{"n":1}', b'{"n":2}']
        assert [one.operation for one in await insisted(store.history, "gone")] == [None, "DEL"]
        assert [one.operation for one in await insisted(store.history, "purged")] == ["PURGE"]
        with pytest.raises(KeyWrongLastSequenceError):
            await store.update("a", b"3", first)
        await store.create("gone", b"2")
        return await store.update("a", b"3", second)

    third = by_nats_py(nats_server, read)
    assert bucket.get("a").revision == third
    assert bucket.get("gone").value == 2
    with pytest.raises(WrongRevision):
        bucket.update("a", 4, second)


def test_a_header_of_another_program_is_not_taken_for_the_servers_word(make_bucket, nats_server):
    bucket = make_bucket(history=3, codec="text")

    async def write() -> None:
        client = await nats.connect(nats_server.url)
        for number in range(3):
            headers = {"Status": "404", "Description": "made up"}
            await client.jetstream().publish(f"$KV.{bucket.name}.k", str(number).encode(), headers=headers)
        await client.close()

    asyncio.run(write())
    bucket.put("other", "x")
    assert bucket.get("k").value == "2"
    assert bucket.get("k", revision=1).value == "0"
    assert {key: entry.value for key, entry in bucket.get_many(["k", "other"]).items()} == {"k": "2", "other": "x"}
    assert [entry.value for entry in bucket.history("k")] == ["0", "1", "2"]
    assert sorted(bucket.keys()) == ["k", "other"]
    seen = []
    watch = bucket.watch(lambda entry: seen.append((entry.key, entry.value)))
    watch.initialized.result(30)
    watch.stop()
    assert sorted(seen) == [("k", "2"), ("other", "x")]
