"""The life of buckets: made, opened, listed, changed, deleted; what the server refuses."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_natskv.exceptions import BucketExists, BucketNotFound, JetStreamApiError, JetStreamNotEnabled
from django_natskv.kv import BucketConfig, BucketStatus


def test_a_bucket_is_made_opened_and_deleted(context, bucket_name):
    made = context.create_bucket({"bucket": bucket_name})
    assert made.name == bucket_name
    revision = made.put("a", 1)
    opened = context.open_bucket(bucket_name)
    assert opened.name == bucket_name
    assert opened.get("a").revision == revision
    assert context.delete_bucket(bucket_name) is None
    with pytest.raises(BucketNotFound):
        context.open_bucket(bucket_name)


@pytest.mark.parametrize("operation", ["open_bucket", "bucket_status", "delete_bucket", "update_bucket"])
def test_what_is_not_there_is_not_found(context, bucket_name, operation):
    argument = {"bucket": bucket_name, "history": 2} if operation == "update_bucket" else bucket_name
    with pytest.raises(BucketNotFound) as caught:
        getattr(context, operation)(argument)
    assert caught.value.bucket == bucket_name
    assert bucket_name in str(caught.value)


OPERATIONS = {
    "putting 'a'": lambda bucket: bucket.put("a", 1),
    "creating 'a'": lambda bucket: bucket.create("a", 1),
    "updating 'a'": lambda bucket: bucket.update("a", 1, 1),
    "deleting 'a'": lambda bucket: bucket.delete("a"),
    "purging 'a'": lambda bucket: bucket.purge("a"),
    "reading 'a'": lambda bucket: bucket.get("a"),
    "reading the history of 'a'": lambda bucket: bucket.history("a"),
    "reading 2 keys": lambda bucket: bucket.get_many(["a", "b"]),
    "listing the keys": lambda bucket: bucket.keys(),
}


@pytest.mark.parametrize("tried", OPERATIONS)
def test_what_was_tried_is_told_when_the_bucket_is_gone(make_bucket, context, tried):
    bucket = make_bucket()
    context.delete_bucket(bucket.name)
    with pytest.raises(BucketNotFound, match=tried) as caught:
        OPERATIONS[tried](bucket)
    assert "opening" not in str(caught.value)


@pytest.mark.parametrize(
    ("operation", "tried"),
    [
        ("open_bucket", "opening"),
        ("bucket_status", "reading the status"),
        ("delete_bucket", "deleting"),
        ("update_bucket", "updating"),
    ],
)
def test_what_was_tried_on_a_bucket_is_told(context, bucket_name, operation, tried):
    argument = {"bucket": bucket_name, "history": 2} if operation == "update_bucket" else bucket_name
    with pytest.raises(BucketNotFound, match=tried):
        getattr(context, operation)(argument)


def test_the_same_configuration_twice_is_the_same_bucket(make_bucket, context):
    bucket = make_bucket(history=3)
    bucket.put("a", 1)
    again = context.create_bucket({"bucket": bucket.name, "storage": "memory", "history": 3})
    assert again.get("a").value == 1


def test_another_configuration_is_refused_and_changes_nothing(make_bucket, context):
    bucket = make_bucket(history=3)
    with pytest.raises(BucketExists) as caught:
        context.create_bucket({"bucket": bucket.name, "storage": "memory", "history": 4})
    assert caught.value.bucket == bucket.name
    assert bucket.name in str(caught.value)
    assert context.bucket_status(bucket.name).history == 3


def test_a_configuration_may_be_an_object(context, bucket_name):
    context.create_bucket(BucketConfig(bucket=bucket_name, storage="memory", history=5))
    assert context.update_bucket(BucketConfig(bucket=bucket_name, history=6)).history == 6
    context.delete_bucket(bucket_name)


def test_a_status_is_frozen(make_bucket, context):
    status = context.bucket_status(make_bucket().name)
    assert isinstance(status, BucketStatus)
    with pytest.raises(dataclasses.FrozenInstanceError):
        status.history = 2  # type: ignore[misc]


def test_values_counts_live_entries_only(make_bucket, context):
    bucket = make_bucket(history=5)
    assert context.bucket_status(bucket.name).values == 0
    for key in ("a", "b", "c", "d"):
        bucket.put(key, 1)
        bucket.put(key, None)
    bucket.delete("a")
    bucket.purge("b")
    status = context.bucket_status(bucket.name)
    assert status.values == 2
    assert status.bytes > 0
    bucket.purge_deletes()
    assert context.bucket_status(bucket.name).values == 2
    assert context.bucket_status(bucket.name).bytes < status.bytes


def test_lists_are_sorted_and_agree(make_bucket, context):
    names = sorted(make_bucket().name for _ in range(3))
    assert [name for name in context.bucket_names() if name in names] == names
    statuses = [status for status in context.list_buckets() if status.bucket in names]
    assert statuses == [context.bucket_status(name) for name in names]


def test_what_is_no_bucket_is_not_listed(make_server, connect_kv, face):
    server = make_server()
    connection = face.wrap(connect_kv(server))
    context = connection.kv()
    assert context.bucket_names() == []
    assert context.list_buckets() == []
    asyncio.run(add_stream(server.url, "ORDERS"))
    context.create_bucket({"bucket": "mine"})
    assert context.bucket_names() == ["mine"]
    assert [status.bucket for status in context.list_buckets()] == ["mine"]


def test_what_is_no_bucket_in_spite_of_its_name_hinders_no_listing(make_server, connect_kv, face):
    server = make_server()
    context = face.wrap(connect_kv(server)).kv()
    context.create_bucket({"bucket": "a"}).put("k", 1)

    asyncio.run(add_stream(server.url, "KV_odd"))
    assert [(status.bucket, status.values) for status in context.list_buckets()] == [("a", 1), ("odd", 0)]
    assert context.open_bucket("odd").keys() == []


async def add_stream(url, name):
    import nats  # noqa: PLC0415 - what another program does

    client = await nats.connect(url)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await client.jetstream().publish(f"{name}.one", b"1")
    await client.close()


async def make_all(context, names):
    for start in range(0, len(names), 100):
        await asyncio.gather(
            *(context.acreate_bucket({"bucket": name, "storage": "memory"}) for name in names[start : start + 100])
        )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_lists_go_beyond_a_page(make_server, connect_kv):
    # The server gives 1,024 names and 256 statuses at once.
    context = connect_kv(make_server(), request_timeout=20.0).kv()
    names = [f"b{number:04}" for number in range(1_100)]
    asyncio.run(make_all(context, names))
    context.open_bucket("b1099").put("a", 1)
    assert context.bucket_names() == names
    statuses = context.list_buckets()
    assert [status.bucket for status in statuses] == names
    assert [status.values for status in statuses] == [0] * 1_099 + [1]
    assert asyncio.run(context.abucket_names()) == names
    assert asyncio.run(context.alist_buckets()) == statuses


def test_a_list_made_while_buckets_come_and_go(make_server, connect_kv, face):
    server = make_server()
    context = face.wrap(connect_kv(server, request_timeout=20.0)).kv()
    staying = [f"stay{number}" for number in range(5)]
    for name in staying:
        context.create_bucket({"bucket": name, "storage": "memory"}).put("a", 1)
    other = connect_kv(server, request_timeout=20.0).kv()
    stopping = threading.Event()

    def churn():
        while not stopping.is_set():
            for name in ("go", "stay2b", "z"):
                other.create_bucket({"bucket": name, "storage": "memory"})
            for name in ("go", "stay2b", "z"):
                other.delete_bucket(name)

    with ThreadPoolExecutor(1) as pool:
        churning = pool.submit(churn)
        try:
            for _ in range(40):
                assert set(context.bucket_names()) >= set(staying)
                listed = [status.bucket for status in context.list_buckets()]
                assert set(listed) >= set(staying)
                assert len(set(listed)) == len(listed)
        finally:
            stopping.set()
        churning.result()


def test_a_bucket_deleted_between_listing_and_counting_is_left_out(make_server, connect_kv, face, monkeypatch):
    context = face.wrap(connect_kv(make_server())).kv()
    for name in ("a", "b", "c"):
        context.create_bucket({"bucket": name, "storage": "memory"}).put("a", 1)
    wire = context.plain._wire
    listed = wire.infos

    def infos():
        found = yield from listed()
        yield from wire.delete_bucket("b")
        return found

    monkeypatch.setattr(wire, "infos", infos)
    assert [status.bucket for status in context.list_buckets()] == ["a", "c"]


@pytest.fixture
def without_a_store(context, monkeypatch):
    """Let the server fail to make a store, as it does while it removes that of the last bucket."""
    wire = context.plain._wire
    change = wire.change
    failures: list[str] = []

    def fail(times):
        def failing(verb, *arguments):
            if "CREATE" in verb and len(failures) < times:
                failures.append(verb)
                raise JetStreamApiError(code=10049, description="error creating store for stream")
            return change(verb, *arguments)

        monkeypatch.setattr(wire, "change", failing)
        return failures

    return fail


def test_a_bucket_is_made_although_the_last_one_is_just_being_removed(context, bucket_name, without_a_store):
    failures = without_a_store(2)
    context.create_bucket({"bucket": bucket_name}).put("a", 1)
    assert len(failures) == 2
    context.delete_bucket(bucket_name)


def test_a_server_that_cannot_make_a_store_at_all_is_told(context, bucket_name, without_a_store):
    without_a_store(1_000)
    with pytest.raises(JetStreamApiError) as caught:
        context.create_bucket({"bucket": bucket_name})
    assert caught.value.code == 10049


# ---------------------------------------------------------------------- what the server refuses


def test_storage_cannot_be_changed(make_bucket, context):
    bucket = make_bucket()
    with pytest.raises(JetStreamApiError) as caught:
        context.update_bucket({"bucket": bucket.name, "storage": "file"})
    assert caught.value.code == 10052
    assert "storage" in caught.value.description
    assert caught.value.description in str(caught.value)
    assert bucket.name in str(caught.value)


def test_replicas_need_a_cluster(context, bucket_name):
    with pytest.raises(JetStreamApiError) as caught:
        context.create_bucket({"bucket": bucket_name, "replicas": 3})
    assert caught.value.code == 10074
    assert bucket_name not in context.bucket_names()


@pytest.mark.parametrize("option", [{"ttl_ms": 1}, {"description": "x" * 5_000}], ids=["ttl", "text"])
def test_what_only_the_server_knows_to_refuse_it_refuses(context, bucket_name, option):
    with pytest.raises(JetStreamApiError) as caught:
        context.create_bucket({"bucket": bucket_name, "storage": "memory", **option})
    assert caught.value.code > 10_000
    assert caught.value.description


def test_a_bucket_that_does_not_fit_the_store_is_refused(make_server, connect_kv, face):
    server = make_server(jetstream="max_memory_store: 1MB, max_file_store: 1MB")
    context = face.wrap(connect_kv(server)).kv()
    with pytest.raises(JetStreamApiError) as caught:
        context.create_bucket({"bucket": "b", "max_bucket_size": 2**24})
    assert caught.value.code in (10047, 10028)


def test_jetstream_that_is_switched_off_shows_at_the_handle(make_server, connect_kv, face):
    connection = face.wrap(connect_kv(make_server(jetstream=None)))
    with pytest.raises(JetStreamNotEnabled):
        connection.kv()


def test_an_account_without_jetstream_shows_at_the_handle(make_server, connect_kv, face):
    server = make_server(
        config="""
        accounts {
          WITH: {jetstream: enabled, users: [{user: with, password: x}]}
          WITHOUT: {users: [{user: without, password: x}]}
        }
        """
    )
    assert face.wrap(connect_kv(server, user="with", password="x")).kv().bucket_names() == []
    with pytest.raises(JetStreamNotEnabled):
        face.wrap(connect_kv(server, user="without", password="x")).kv()
