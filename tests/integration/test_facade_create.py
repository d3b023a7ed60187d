"""Create: only where the key is absent, over every kind of marker; and entries that expire by themselves."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import nats
import pytest

from django_natskv.exceptions import InvalidTTL, JetStreamApiError, WrongRevision
from tests.fix_waiting import eventually


def gone(bucket, key):
    """Wait until ``key`` is absent, as long as the server may take to let go of it (F14)."""
    eventually(lambda: bucket.get(key) is None, 30)


def lives_for_a_second(bucket, key, value, since):
    """Assert that ``key`` holds ``value`` if that was written less than a second ago, at ``since`` or later."""
    entry = bucket.get(key)
    assert entry.value == value if entry else time.monotonic() - since >= 1


def test_create_makes_what_is_absent_and_refuses_what_is_live(bucket):
    revision = bucket.create("a", 1)
    assert bucket.get("a").revision == revision
    with pytest.raises(WrongRevision) as caught:
        bucket.create("a", 2)
    assert (caught.value.key, caught.value.bucket) == ("a", bucket.name)
    assert bucket.get("a").value == 1


def test_a_stored_null_is_live(bucket):
    bucket.put("a", None)
    with pytest.raises(WrongRevision):
        bucket.create("a", 1)


@pytest.mark.parametrize("history", [1, 8])
@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_create_works_over_a_marker(make_bucket, remove, history):
    bucket = make_bucket(history=history)
    bucket.put("a", 1)
    getattr(bucket, remove)("a")
    revision = bucket.create("a", 2)
    entry = bucket.get("a")
    assert (entry.value, entry.revision) == (2, revision)
    with pytest.raises(WrongRevision):
        bucket.create("a", 3)


def test_create_works_over_a_marker_that_expires(bucket):
    bucket.put("a", 1)
    bucket.purge("a", marker_ttl_ms=1000)
    assert bucket.create("a", 2)
    assert bucket.get("a").value == 2


def test_create_works_where_a_marker_has_expired(bucket):
    bucket.put("a", 1)
    bucket.purge("a", marker_ttl_ms=1000)
    eventually(lambda: bucket.history("a") == [], 30)
    assert bucket.create("a", 2)


@pytest.mark.parametrize("history", [1, 8])
def test_an_entry_expires_without_a_trace(make_bucket, history):
    bucket = make_bucket(history=history)
    since = time.monotonic()
    bucket.create("a", 1, ttl_ms=1000)
    lives_for_a_second(bucket, "a", 1, since)
    gone(bucket, "a")
    assert bucket.history("a") == []
    assert bucket.keys() == []
    assert bucket.get_many(["a"]) == {}
    assert bucket.create("a", 2)
    assert bucket.get("a").value == 2


@pytest.mark.parametrize("history", [1, 8])
def test_the_servers_marker_of_an_expiry_reads_as_a_purge(make_bucket, context, history):
    bucket = make_bucket(history=history, limit_marker_ttl_ms=60_000)
    revision = bucket.create("a", {"x": 1}, ttl_ms=1000) if history == 1 else None
    if revision is None:
        # With a history the server raises a shorter time to live to that of its markers (F15).
        context.update_bucket({"bucket": bucket.name, "ttl_ms": 1000})
        revision = bucket.create("a", {"x": 1})
    gone(bucket, "a")
    marker = bucket.history("a")[-1]
    assert (marker.operation, marker.value, marker.delta) == ("purge", None, 0)
    pinned = bucket.get("a", revision=marker.revision)
    assert (pinned.operation, pinned.value) == ("purge", None)
    assert marker.revision > revision
    assert bucket.keys() == []
    assert bucket.get_many(["a"]) == {}
    assert context.bucket_status(bucket.name).values == 0
    again = bucket.create("a", {"x": 2})
    assert bucket.get("a").revision == again
    assert bucket.get("a").value == {"x": 2}


def test_purge_deletes_removes_expiry_markers_too(make_bucket):
    bucket = make_bucket(limit_marker_ttl_ms=60_000)
    bucket.create("a", 1, ttl_ms=1000)
    gone(bucket, "a")
    assert bucket.history("a")
    bucket.purge_deletes()
    assert bucket.history("a") == []


def test_a_bucket_wide_ttl_expires_every_entry(make_bucket):
    bucket = make_bucket(ttl_ms=1000)
    since = time.monotonic()
    bucket.put("a", 1)
    lives_for_a_second(bucket, "a", 1, since)
    gone(bucket, "a")
    assert bucket.create("a", 2)


def test_a_ttl_is_rounded_up_to_whole_seconds(bucket):
    bucket.create("a", 1, ttl_ms=60_001)
    assert bucket.plain._core.wire is not None
    stored = headers_of(bucket, "a")
    assert stored["Nats-TTL"] == "61s"


def headers_of(bucket, key):
    core = bucket.plain._core
    what = "reading it as it is"
    return bucket.plain._runner.call(core.wire.last_of_leader(core.info.bucket, core.prefix + key, what)).headers


@pytest.mark.parametrize("ttl_ms", [0, -1, 1, 999, 1000.0, "1000", True, 2**63, 10**30])
def test_what_is_no_time_to_live_is_refused(bucket, ttl_ms):
    with pytest.raises(InvalidTTL) as caught:
        bucket.create("a", 1, ttl_ms=ttl_ms)
    assert caught.value.ttl_ms == ttl_ms
    bucket.put("b", 1)
    with pytest.raises(InvalidTTL):
        bucket.purge("b", marker_ttl_ms=ttl_ms)
    assert bucket.keys() == ["b"]


def test_the_longest_ttl_of_all_is_accepted(bucket):
    century = 100 * 365 * 86_400 * 1000
    bucket.create("a", 1, ttl_ms=century)
    assert bucket.get("a").value == 1


def test_of_many_creators_one_wins(bucket):
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda number: attempt(bucket.plain, number), range(64)))
    won = [outcome for outcome in outcomes if outcome is not None]
    assert len(won) == 1
    assert bucket.get("a").revision == won[0]
    assert len(bucket.history("a")) == 1


def test_of_many_creators_over_a_marker_one_wins(bucket):
    for round_ in range(5):
        bucket.delete("a")
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda number: attempt(bucket.plain, number), range(16)))
        assert len([outcome for outcome in outcomes if outcome is not None]) == 1, round_


def attempt(bucket, number):
    try:
        return bucket.create("a", number)
    except WrongRevision:
        return None


def test_a_ttl_in_a_bucket_that_was_made_without_is_the_servers_refusal(bucket_name, context, nats_server):
    # Such as older clients make: ours always allow it.
    async def make():
        client = await nats.connect(nats_server.url)
        await client.jetstream().add_stream(
            name=f"KV_{bucket_name}", subjects=[f"$KV.{bucket_name}.>"], max_msgs_per_subject=1
        )
        await client.close()

    asyncio.run(make())
    bucket = context.open_bucket(bucket_name)
    with pytest.raises(JetStreamApiError) as caught:
        bucket.create("a", 1, ttl_ms=1000)
    assert caught.value.code == 10166
    assert bucket.get("a") is None
    context.delete_bucket(bucket_name)
