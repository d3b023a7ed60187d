"""Several changes as one: all of them or none, on every server that can, and an error on those that cannot."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats
import pytest

from django_natskv.exceptions import (
    BucketNotFound,
    CodecError,
    JetStreamApiError,
    OperationalError,
    OperationTimedOut,
    UsageError,
    ValueTooLarge,
    WrongRevision,
)
from django_natskv.kv import Change
from tests.fix_servers import NatsServer, takes_several_as_one
from tests.fix_waiting import eventually


@pytest.fixture(autouse=True)
def _a_server_that_can(request: pytest.FixtureRequest) -> None:
    if not takes_several_as_one() and "any_server" not in request.fixturenames:
        pytest.skip("nats-server 2.11 cannot; what it says then is tested on any_server")


@pytest.fixture
def bucket(make_bucket: Any) -> Any:
    return make_bucket(history=5)


def stream_of(server: NatsServer, name: str) -> Any:
    return server.streams()[f"KV_{name}"]


def api(server: NatsServer, verb: str, body: dict[str, Any]) -> Any:
    """Ask the server's API as another program."""

    async def ask() -> Any:
        client = await nats.connect(server.url)
        try:
            return json.loads((await client.request(f"$JS.API.{verb}", json.dumps(body).encode())).data)
        finally:
            await client.close()

    return asyncio.run(ask())


def can(server: NatsServer) -> bool:
    """Tell whether this release takes several writes as one."""
    return bool(api(server, "INFO", {})["api"]["level"] >= 2)


def foreign(server: NatsServer, name: str, **config: Any) -> None:
    """Make a bucket as a program does that does not know of several writes as one."""
    stream = {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "max_msgs_per_subject": 3,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "storage": "memory",
        **config,
    }
    assert "error" not in api(server, f"STREAM.CREATE.KV_{name}", stream)


def test_every_kind_of_change_is_carried_out_at_one_moment(any_server, connect_kv, face, bucket_name):
    bucket = face.wrap(connect_kv(any_server)).kv().create_bucket({"bucket": bucket_name, "history": 5})
    first = bucket.put("updated", 1)
    bucket.put("deleted", 1)
    bucket.put("purged", 1)
    bucket.put("gone", 1)
    bucket.delete("gone")
    changes = [
        Change.put("put", 1, headers={"Natskv-Actor": "ann"}),
        Change.create("created", 2, ttl_ms=60_000),
        Change.create("gone", 3),
        Change.update("updated", 4, first),
        Change.delete("deleted"),
        Change.purge("purged"),
        Change.delete("never"),
    ]
    if not can(any_server):
        with pytest.raises(JetStreamApiError) as caught:
            bucket.write_many(changes, atomic=True)
        assert "2.12" in str(caught.value)
        assert bucket.history("put") == []
        assert stream_of(any_server, bucket_name)["state"]["last_seq"] == 5
        return
    revisions = bucket.write_many(changes, atomic=True)
    assert revisions == list(range(6, 13))
    found = bucket.get_many([change.key for change in changes])
    assert {key: (entry.value, entry.revision) for key, entry in found.items()} == {
        "put": (1, 6),
        "created": (2, 7),
        "gone": (3, 8),
        "updated": (4, 9),
    }
    assert found["put"].headers == {"Natskv-Actor": "ann"}
    assert found["created"].headers == {}
    assert found["created"].ttl_ms == 60_000
    assert [entry.operation for entry in bucket.history("deleted")] == ["put", "delete"]
    assert [entry.operation for entry in bucket.history("purged")] == ["purge"]
    assert len({entry.created for entry in found.values()}) <= 4


def test_one_guard_that_fails_stops_all_and_is_named(any_server, connect_kv, face, bucket_name):
    bucket = face.wrap(connect_kv(any_server)).kv().create_bucket({"bucket": bucket_name, "history": 5})
    if not can(any_server):
        foreign(any_server, f"{bucket_name}_2")
        other = face.wrap(connect_kv(any_server)).kv().open_bucket(f"{bucket_name}_2")
        with pytest.raises(JetStreamApiError):
            other.write_many([Change.put("a", 1)], atomic=True)
        assert other.keys() == []
        return
    first = bucket.put("moved", 1)
    bucket.put("moved", 2)
    bucket.put("live", 1)
    still = bucket.put("still", 1)
    before = stream_of(any_server, bucket_name)["state"]["last_seq"]
    for wrong in (
        Change.update("moved", 3, first),
        Change.create("live", 2),
        Change.update("absent", 2, 1),
        Change.delete("moved", revision=first),
        Change.purge("moved", revision=first),
    ):
        changes = [Change.put("a", 1), Change.create("b", 1), wrong, Change.update("still", 5, still)]
        with pytest.raises(WrongRevision) as caught:
            bucket.write_many(changes, atomic=True)
        assert caught.value.key == wrong.key
        assert caught.value.bucket == bucket_name
    assert stream_of(any_server, bucket_name)["state"]["last_seq"] == before
    assert sorted(bucket.keys()) == ["live", "moved", "still"]


def test_a_bucket_of_another_program_is_switched_on_by_the_first_call(any_server, connect_kv, face, bucket_name):
    foreign(any_server, bucket_name, description="theirs")
    bucket = face.wrap(connect_kv(any_server)).kv().open_bucket(bucket_name)
    if not can(any_server):
        with pytest.raises(JetStreamApiError):
            bucket.write_many([Change.put("a", 1), Change.put("b", 1)], atomic=True)
        return
    assert bucket.write_many([Change.put("a", 1), Change.put("b", 1)], atomic=True) == [1, 2]
    config = stream_of(any_server, bucket_name)["config"]
    assert (config["allow_atomic"], config["description"], config["max_msgs_per_subject"]) == (True, "theirs", 3)
    api(any_server, f"STREAM.UPDATE.KV_{bucket_name}", {**config, "allow_atomic": False})
    assert bucket.write_many([Change.put("a", 2), Change.put("b", 2)], atomic=True) == [3, 4]


def test_a_bucket_made_by_an_older_server_is_no_other_configuration(nats_server, context, bucket_name):
    bucket = context.create_bucket({"bucket": bucket_name})
    config = stream_of(nats_server, bucket_name)["config"]
    assert config["allow_atomic"]
    api(nats_server, f"STREAM.UPDATE.KV_{bucket_name}", {**config, "allow_atomic": False})
    assert context.create_bucket({"bucket": bucket_name}).name == bucket_name
    assert bucket.write_many([Change.put("a", 1)], atomic=True) == [1]
    assert context.create_bucket({"bucket": bucket_name}).name == bucket_name


def test_changes_through_a_mirror_go_to_its_origin(nats_server, context, bucket_name):
    foreign(nats_server, bucket_name)
    mirror = context.create_bucket({"bucket": f"{bucket_name}_m", "mirror": {"bucket": bucket_name}})
    assert mirror.write_many([Change.put("a", 1), Change.create("b", 2)], atomic=True) == [1, 2]
    assert sorted(context.open_bucket(bucket_name).keys()) == ["a", "b"]
    context.delete_bucket(f"{bucket_name}_m")


def test_what_is_wrong_is_told_before_anything_is_sent(bucket):
    for wrong in (
        [Change.put(f"k{number}", 1) for number in range(1001)],
        [Change.put("a", 1), Change.put("a", 2)],
        "a",
        [Change.put("a", 1), "b"],
    ):
        with pytest.raises(UsageError):
            bucket.write_many(wrong, atomic=True)
    with pytest.raises(CodecError):
        bucket.write_many([Change.put("a", 1), Change.put("b", object())], atomic=True)
    assert bucket.keys() == []


def test_nothing_and_as_many_as_there_may_be(make_bucket, context):
    bucket = make_bucket(codec="bytes")
    assert bucket.write_many([], atomic=True) == []
    keys = [f"k.{number}" for number in range(1000)]
    assert bucket.write_many([Change.put(key, b"x" * 4000) for key in keys], atomic=True) == list(range(1, 1001))
    assert [entry.revision for entry in bucket.get_many(keys).values()] == list(range(1, 1001))


def test_a_value_that_is_too_large_for_bucket_or_server_stops_all(make_bucket, nats_server):
    bucket = make_bucket(max_value_size=1000)
    for size in (1500, 2_000_000):
        with pytest.raises(ValueTooLarge) as caught:
            bucket.write_many([Change.put("a", 1), Change.put("b", "x" * size), Change.put("c", 1)], atomic=True)
        assert caught.value.key == "b"
    unlimited = make_bucket()
    with pytest.raises(ValueTooLarge) as caught:
        unlimited.write_many([Change.put("a", 1), Change.put("b", "x" * 2_000_000), Change.put("c", 1)], atomic=True)
    assert caught.value.key == "b"
    config = stream_of(nats_server, bucket.name)["config"]
    api(nats_server, f"STREAM.UPDATE.KV_{bucket.name}", {**config, "max_msg_size": 300})  # behind the handle's back
    with pytest.raises(ValueTooLarge) as caught:
        bucket.write_many([Change.put("a", 1), Change.put("b", "x" * 500), Change.put("c", 1)], atomic=True)
    assert caught.value.key == "b"
    assert bucket.keys() == unlimited.keys() == []


def test_a_bucket_that_is_gone_is_told(bucket, context):
    context.delete_bucket(bucket.name)
    with pytest.raises(BucketNotFound):
        bucket.write_many([Change.put("a", 1), Change.put("b", 1)], atomic=True)


def test_own_writes_are_in_the_local_cache_at_once(nats_server, bucket_name, connect):
    connection = connect(nats_server.url)
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "history": 3})
    cache = connection.local_cache(bucket.name)
    cache.wait_ready(30)
    for _ in range(20):
        bucket.write_many([Change.put("a", 1), Change.create("b", 2)], atomic=True)
        assert (cache.value("a"), cache.value("b")) == (1, 2)
        bucket.write_many([Change.delete("a"), Change.purge("b")], atomic=True)
        assert (cache.get("a"), cache.get("b")) == (None, None)


def test_writers_at_the_same_time_never_mix(make_bucket):
    """Two keys that are moved together are always equal, and nothing is lost."""
    bucket = make_bucket(history=1).plain
    bucket.write_many([Change.put("a", 0), Change.put("b", 0)], atomic=True)

    def count(times: int) -> None:
        while times:
            found = bucket.get_many(["a", "b"])
            changes = [Change.update(key, entry.value + 1, entry.revision) for key, entry in found.items()]
            try:
                bucket.write_many(changes, atomic=True)
            except WrongRevision:
                continue
            times -= 1

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(count, 20) for _ in range(3)]:
            done.result(50)
    assert [entry.value for entry in bucket.get_many(["a", "b"]).values()] == [60, 60]


# ---------------------------------------------------------------------- when things break


@pytest.fixture
def reach(make_server, make_proxy, connect_kv, face, bucket_name):
    def reach(request_timeout):
        server = make_server()
        proxy = make_proxy(server.url)
        direct = face.wrap(connect_kv(server, request_timeout=20.0)).kv()
        direct = direct.create_bucket({"bucket": bucket_name, "history": 20})
        connection = connect_kv(proxy.url, request_timeout=request_timeout)
        return face.wrap(connection).kv().open_bucket(bucket_name), direct, proxy, server

    return reach


@pytest.mark.parametrize("guarded", [True, False])
def test_a_lost_answer_is_settled_truly(reach, guarded):
    bucket, direct, proxy, server = reach(20.0)
    first = direct.put("a", "old")
    changes = [Change.put("x", 1), Change.update("a", 2, first) if guarded else Change.put("a", 2), Change.put("y", 3)]

    def cut_when_it_has_arrived() -> None:
        eventually(lambda: stream_of(server, bucket.name)["state"]["last_seq"] > first, 15)
        proxy.cut()
        proxy.heal()

    proxy.pause("replies")
    with ThreadPoolExecutor(1) as pool:
        cutting = pool.submit(cut_when_it_has_arrived)
        try:
            result: Any = bucket.write_many(changes, atomic=True)
        except OperationTimedOut as error:
            assert error.may_have_been_applied  # noqa: PT017
            result = None
        cutting.result()
    entries = direct.get_many(["x", "a", "y"])
    assert [entry.revision for entry in entries.values()] == [2, 3, 4]
    assert stream_of(server, bucket.name)["state"]["last_seq"] == 4
    assert result in ([2, 3, 4], None)


@pytest.mark.parametrize("kind", ["create", "put"])
def test_a_server_killed_in_the_middle_leaves_all_or_nothing(make_server, connect_kv, bucket_name, kind):
    server = make_server()
    bucket = connect_kv(server, request_timeout=20.0).kv().create_bucket({"bucket": bucket_name}, codec="bytes")
    for number in range(5):
        keys = [f"{number}.{key}" for key in range(900)]
        changes = [getattr(Change, kind)(key, b"x" * 1000) for key in keys]
        before = arrived(server)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(bucket.write_many, changes, atomic=True)
            eventually(lambda: arrived(server) > before + number * 200, 15)  # noqa: B023 - called at once
            server.kill()
            server.start()
            error = writing.exception(40)
        there = eventually(lambda: answer(bucket.get_many, keys), 30)[0]  # noqa: B023
        assert len(there) in (0, 900)
        if error is None:
            assert len(there) == 900
        else:
            assert getattr(error, "may_have_been_applied", False) or len(there) == 0


def arrived(server: NatsServer) -> int:
    return sum(one["in_msgs"] for one in server.connections())


def answer(call: Any, *arguments: Any) -> Any:
    """Return what it gives, in a list, or nothing while there is no answer."""
    try:
        return [call(*arguments)]
    except OperationalError:
        return None


def test_no_answer_in_time_is_in_doubt(reach):
    bucket, direct, proxy, _ = reach(2.0)
    with proxy.paused("replies"), pytest.raises(OperationTimedOut) as caught:
        bucket.write_many([Change.put("a", 1), Change.put("b", 1)], atomic=True)
    assert caught.value.may_have_been_applied
    assert sorted(direct.keys()) in ([], ["a", "b"])


def test_several_writes_as_one_in_a_cluster(make_cluster, connect_kv, bucket_name):
    cluster = make_cluster()
    bucket = connect_kv(cluster.urls, request_timeout=5.0).kv().create_bucket({"bucket": bucket_name, "replicas": 3})
    assert len(bucket.write_many([Change.create("a", 1), Change.create("b", 1)], atomic=True)) == 2
    for number in range(4):
        if number == 2:
            eventually(lambda: cluster.leader(f"KV_{bucket_name}"), 30).kill()
        found = eventually(lambda: answer(bucket.get_many, ["a", "b"]), 30)[0]
        assert len({entry.value for entry in found.values()}) == 1
        changes = [Change.update(key, entry.value + 1, entry.revision) for key, entry in found.items()]
        result = answer(lambda: bucket.write_many(changes, atomic=True))  # noqa: B023 - called at once
        assert result is not None or number >= 2
    found = eventually(lambda: answer(bucket.get_many, ["a", "b"]), 30)[0]
    assert len({entry.value for entry in found.values()}) == 1
