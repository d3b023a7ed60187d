"""A bucket's configuration: every option comes back in the status, and an update changes what it is given."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

import nats
import pytest

from django_natskv.exceptions import WrongRevision
from django_natskv.kv import BucketConfig, BucketStatus
from tests.fix_waiting import eventually

DEFAULTS: dict[str, object] = {
    "description": None,
    "history": 1,
    "ttl_ms": 0,
    "max_value_size": -1,
    "max_bucket_size": -1,
    "storage": "file",
    "discard": "new",
    "replicas": 1,
    "compression": False,
    "limit_marker_ttl_ms": 0,
    "metadata": {},
    "placement": None,
    "republish": None,
    "mirror": None,
    "sources": (),
    "values": 0,
    "bytes": 0,
}
GIVEN: dict[str, object] = {
    "description": 'Zoë\'s bucket: 100 %\n"quoted"',
    "history": 64,
    "ttl_ms": 90_000,
    "max_value_size": 12_345,
    "max_bucket_size": 1_234_567,
    "storage": "memory",
    "discard": "old",
    "replicas": 1,
    "compression": True,
    "limit_marker_ttl_ms": 5_000,
    "metadata": {"team": "payments", "Zoë": "é"},
    "republish": {"source": ">", "destination": "copy.>", "headers_only": True},
}


def test_the_status_has_the_options_and_two_counters():
    assert set(BucketStatus.__slots__) == {*BucketConfig.keys(), "values", "bytes"}


def test_the_status_of_a_bucket_made_with_nothing_but_a_name(context, bucket_name):
    context.create_bucket({"bucket": bucket_name})
    assert asdict(context.bucket_status(bucket_name)) == {"bucket": bucket_name, **DEFAULTS}
    context.delete_bucket(bucket_name)


def test_none_means_not_given(context, bucket_name):
    context.create_bucket({"bucket": bucket_name, **dict.fromkeys(BucketConfig.keys()[1:])})
    assert asdict(context.bucket_status(bucket_name)) == {"bucket": bucket_name, **DEFAULTS}
    context.delete_bucket(bucket_name)


@pytest.mark.parametrize("option", GIVEN)
def test_every_option_comes_back_in_the_status(context, bucket_name, option):
    context.create_bucket({"bucket": bucket_name, option: GIVEN[option]})
    assert asdict(context.bucket_status(bucket_name)) == {
        "bucket": bucket_name,
        **DEFAULTS,
        option: GIVEN[option],
    }
    context.delete_bucket(bucket_name)


def test_all_options_together(context, bucket_name):
    context.create_bucket({"bucket": bucket_name, **GIVEN})
    expected = {"bucket": bucket_name, **DEFAULTS, **GIVEN}
    assert asdict(context.bucket_status(bucket_name)) == expected
    assert [asdict(one) for one in context.list_buckets() if one.bucket == bucket_name] == [expected]
    context.delete_bucket(bucket_name)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("description", "new"),
        ("history", 9),
        ("ttl_ms", 1_000),
        ("ttl_ms", 3_600_000),
        ("ttl_ms", 0),
        ("max_value_size", 999),
        ("max_value_size", -1),
        ("max_bucket_size", 99_999),
        ("max_bucket_size", -1),
        ("compression", False),
        ("discard", "new"),
        ("limit_marker_ttl_ms", 7_000),
        ("metadata", {"other": "x"}),
        ("metadata", {}),
        ("republish", {"source": ">", "destination": "elsewhere.>", "headers_only": False}),
        ("republish", {}),
    ],
    ids=str,
)
def test_an_update_changes_what_it_is_given_and_nothing_else(context, bucket_name, option, value):
    context.create_bucket({"bucket": bucket_name, **GIVEN})
    before = asdict(context.bucket_status(bucket_name))
    status = context.update_bucket({"bucket": bucket_name, option: value})
    assert asdict(status) == {**before, option: value or DEFAULTS[option]}
    assert context.bucket_status(bucket_name) == status
    context.delete_bucket(bucket_name)


@pytest.mark.parametrize("nothing", ["", None])
def test_a_description_can_be_taken_away(context, bucket_name, nothing):
    context.create_bucket({"bucket": bucket_name, "description": "something"})
    assert context.update_bucket({"bucket": bucket_name, "description": nothing}).description is None
    context.delete_bucket(bucket_name)


def test_an_update_of_nothing_changes_nothing(context, bucket_name):
    context.create_bucket({"bucket": bucket_name, **GIVEN})
    before = context.bucket_status(bucket_name)
    assert context.update_bucket({"bucket": bucket_name}) == before
    context.delete_bucket(bucket_name)


def test_an_update_keeps_the_entries(make_bucket, context):
    bucket = make_bucket(history=3)
    bucket.put("a", 1)
    bucket.put("a", 2)
    status = context.update_bucket({"bucket": bucket.name, "history": 5})
    assert (status.values, status.history) == (1, 5)
    assert [entry.value for entry in bucket.history("a")] == [1, 2]


def test_the_storage_is_on_disk_or_in_memory(make_server, connect_kv, face):
    server = make_server()
    context = face.wrap(connect_kv(server)).kv()
    context.create_bucket({"bucket": "kept"}).put("a", 1)
    context.create_bucket({"bucket": "lost", "storage": "memory"}).put("a", 1)
    server.restart()
    eventually(lambda: reachable(context), 30)
    assert context.bucket_names() == ["kept"]
    assert context.open_bucket("kept").get("a").value == 1


def reachable(context):
    try:
        context.bucket_names()
    except Exception:
        return False
    return True


def test_republish_copies_what_is_written_under_a_pattern(context, bucket_name, nats_server, face):
    republish = {"source": "shop.>", "destination": f"copy.{bucket_name}.>", "headers_only": False}
    context.create_bucket({"bucket": bucket_name, "republish": republish})
    assert context.bucket_status(bucket_name).republish == republish

    async def listen():
        client = await nats.connect(nats_server.url)
        subscription = await client.subscribe(f"copy.{bucket_name}.>")
        await client.flush()
        bucket = (await listener_context(face)).open_bucket(bucket_name)
        await asyncio.to_thread(bucket.put, "elsewhere", "no")
        await asyncio.to_thread(bucket.put, "shop.a", "hello")
        message = await subscription.next_msg(30)
        await client.close()
        return message

    async def listener_context(_):
        return context.plain

    message = asyncio.run(listen())
    assert message.subject == f"copy.{bucket_name}.a"
    assert message.data == b'"hello"'
    context.delete_bucket(bucket_name)


def test_placement_chooses_a_server_by_its_tags(make_cluster, connect_kv, face):
    # One server is enough of a cluster to have tags.
    cluster = make_cluster(config='server_tags: ["eu", "ssd"]', size=2)
    context = face.wrap(connect_kv(cluster.urls, request_timeout=20.0)).kv()
    placement = {"cluster": "test", "tags": ("eu", "ssd")}
    context.create_bucket({"bucket": "b", "placement": {"cluster": "test", "tags": ["eu", "ssd"]}})
    assert context.bucket_status("b").placement == placement
    assert context.update_bucket({"bucket": "b", "history": 3}).placement == placement
    assert context.update_bucket({"bucket": "b", "placement": {"tags": ["eu"]}}).placement == {"tags": ("eu",)}


# ---------------------------------------------------------------------- mirror and sources


@pytest.fixture
def mirrored(make_bucket):
    """A bucket with a history and a mirror of it."""
    origin = make_bucket(history=4)
    origin.put("before", 1)
    return origin, make_bucket(history=4, mirror=origin.name)


def test_a_mirror_is_read_like_its_origin(mirrored, context):
    origin, mirror = mirrored
    origin.put("user.1", {"a": 1})
    origin.put("user.1", {"a": 2})
    origin.put("gone", 1)
    origin.delete("gone")
    eventually(lambda: mirror.history("gone")[1:])
    assert context.bucket_status(mirror.name).mirror == {"bucket": origin.name}
    assert mirror.get("before").value == 1
    assert mirror.get("user.1").value == {"a": 2}
    assert mirror.get("user.1").bucket == mirror.name
    assert mirror.get("user.1").revision == origin.get("user.1").revision
    assert mirror.get("gone") is None
    assert sorted(mirror.keys()) == ["before", "user.1"]
    assert mirror.keys("user.*") == ["user.1"]
    assert [entry.value for entry in mirror.history("user.1")] == [{"a": 1}, {"a": 2}]
    assert [entry.value for entry in mirror.get_many(["user.1", "gone", "before"]).values()] == [{"a": 2}, 1]
    assert context.bucket_status(mirror.name).values == 2
    first = origin.history("user.1")[0].revision
    assert mirror.get("user.1", revision=first).value == {"a": 1}


def test_what_is_written_through_a_mirror_goes_to_its_origin(mirrored):
    origin, mirror = mirrored
    revision = mirror.put("a", 1)
    assert origin.get("a").revision == revision
    eventually(lambda: mirror.get("a"))
    with pytest.raises(WrongRevision):
        mirror.create("a", 2)
    second = mirror.update("a", 2, revision)
    mirror.delete("a", revision=second)
    assert origin.get("a") is None
    assert mirror.create("a", 3)
    assert origin.get("a").value == 3
    mirror.purge("a")
    assert [entry.operation for entry in origin.history("a")] == ["purge"]


def test_a_mirror_is_listed(mirrored, context):
    origin, mirror = mirrored
    assert {origin.name, mirror.name} <= set(context.bucket_names())
    assert {origin.name, mirror.name} <= {status.bucket for status in context.list_buckets()}


def test_a_mirror_can_be_updated_and_keeps_its_origin(mirrored, context):
    origin, mirror = mirrored
    status = context.update_bucket({"bucket": mirror.name, "description": "copy"})
    assert status.description == "copy"
    assert status.mirror == {"bucket": origin.name}


def test_a_mirror_may_be_given_as_a_mapping(make_bucket, context):
    origin = make_bucket()
    mirror = make_bucket(mirror={"bucket": origin.name})
    assert context.bucket_status(mirror.name).mirror == {"bucket": origin.name}
    origin.put("a", 1)
    eventually(lambda: mirror.get("a"))


def test_sources_are_gathered_under_the_buckets_own_name(make_bucket, context):
    one, two = make_bucket(), make_bucket()
    one.put("user.1", "one")
    two.put("user.2", "two")
    two.put("gone", 1)
    two.delete("gone")
    gathered = make_bucket(history=3, sources=[one.name, {"bucket": two.name}])
    eventually(lambda: sorted(gathered.keys()) == ["user.1", "user.2"])
    assert context.bucket_status(gathered.name).sources == ({"bucket": one.name}, {"bucket": two.name})
    entry = gathered.get("user.1")
    assert (entry.bucket, entry.key, entry.value) == (gathered.name, "user.1", "one")
    eventually(lambda: gathered.history("gone"))
    assert gathered.get("gone") is None
    own = gathered.put("own", 1)
    assert gathered.get("own").revision == own
    gathered.update("user.1", "changed here", gathered.get("user.1").revision)
    assert one.get("user.1").value == "one"
    assert sorted(gathered.keys("user.*")) == ["user.1", "user.2"]
    assert list(gathered.get_many(["user.2", "own"])) == ["user.2", "own"]
    assert context.bucket_status(gathered.name).values == 3
    gathered.purge_deletes()
    assert gathered.history("gone") == []


def test_sources_can_be_changed(make_bucket, context):
    one, two = make_bucket(), make_bucket()
    gathered = make_bucket(sources=[one.name])
    status = context.update_bucket({"bucket": gathered.name, "sources": [one.name, two.name]})
    assert [source["bucket"] for source in status.sources] == [one.name, two.name]
    two.put("a", 1)
    eventually(lambda: gathered.get("a"))
    assert context.update_bucket({"bucket": gathered.name, "description": "x"}).sources == status.sources
    assert context.update_bucket({"bucket": gathered.name, "sources": []}).sources == ()


def test_purge_deletes_through_a_mirror_purges_origin_and_copy(mirrored):
    origin, mirror = mirrored
    origin.put("a", 1)
    origin.delete("a")
    origin.put("live", 1)
    eventually(lambda: mirror.get("live"))
    mirror.purge_deletes()
    assert origin.history("a") == []
    assert mirror.history("a") == []
    assert mirror.get("live").value == 1
    assert sorted(origin.keys()) == ["before", "live"]


@pytest.mark.parametrize("knowing", [True, False])
def test_what_was_written_is_read_at_once_beside_a_mirror(mirrored, connect_kv, face, knowing):
    # The server lets a mirror answer for its origin, which it lags behind; whoever knows of it asks the leader.
    origin, mirror = mirrored
    if not knowing:
        origin = face.wrap(connect_kv().kv().open_bucket(origin.name))
    for number in range(500):
        revision = origin.put("before", number)
        assert origin.get("before").revision == revision
        assert origin.get_many(["before"])["before"].revision == revision
        assert origin.history("before")[-1].revision == revision
    assert eventually(lambda: mirror.get("before").value == 499)
