"""What travels with a write, several writes at once, and removing all that a pattern matches."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.exceptions import (
    BucketNotFound,
    CodecError,
    InvalidKey,
    InvalidTTL,
    UsageError,
    ValueTooLarge,
    WrongRevision,
)
from django_natskv.kv import Change
from tests.fix_waiting import eventually

HEADERS = {"Natskv-Actor": "ann%20b", "Empty": "", "X": "a b: c"}


@pytest.fixture
def bucket(make_bucket: Any) -> Any:
    return make_bucket(history=5)


# ---------------------------------------------------------------------- headers


def test_headers_come_back_with_the_entry_and_nothing_of_the_servers_among_them(bucket):
    revisions = [bucket.put("a", 1, headers=HEADERS), bucket.update("a", 2, 1, headers={"B": "2"})]
    revisions.append(bucket.create("b", 1, headers=HEADERS))
    bucket.delete("a", headers={"Why": "gone"})
    assert bucket.get("a", revision=revisions[0]).headers == HEADERS
    assert [dict(entry.headers) for entry in bucket.history("a")] == [HEADERS, {"B": "2"}, {"Why": "gone"}]
    assert bucket.get("b").headers == HEADERS
    assert bucket.get_many(["b"])["b"].headers == HEADERS
    bucket.purge("a", headers={"Why": "purged"})
    assert [dict(entry.headers) for entry in bucket.history("a")] == [{"Why": "purged"}]
    bucket.put("c", 1)
    assert bucket.get("c").headers == {}


def test_headers_reach_watches_and_local_caches(nats_server, bucket_name, connect):
    connection = connect(nats_server.url)
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    seen: list[kv.Entry] = []
    with_watch = bucket.watch(seen.append)
    cache = connection.local_cache(bucket.name)
    cache.wait_ready(30)
    bucket.put("a", 1, headers=HEADERS)
    eventually(lambda: [entry.headers for entry in seen] == [HEADERS])
    assert cache.get("a").headers == HEADERS  # its own write
    bucket.put("list", [1], headers=HEADERS)
    other = connect(nats_server.url).local_cache(bucket.name)
    other.wait_ready(30)
    assert (other.get("a").headers, other.get("list").headers) == (HEADERS, HEADERS)
    assert copy.deepcopy(other.get("list")) == other.get("list")
    with_watch.stop()


def test_headers_are_read_only_and_survive_pickle_and_copy(bucket):
    bucket.put("a", [1], headers=HEADERS)
    entry = bucket.get("a")
    with pytest.raises(TypeError):
        entry.headers["X"] = "y"
    for other in (pickle.loads(pickle.dumps(entry)), copy.deepcopy(entry), copy.copy(entry)):
        assert other == entry
        with pytest.raises(TypeError):
            other.headers["X"] = "y"
    bucket.put("b", 1)
    assert hash(bucket.get("b")) == hash(bucket.get("b"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-TTL": "1s"},
        {"nats-msg-id": "x"},
        {"KV-Operation": "DEL"},
        {"Status": "100"},
        {"Description": "x"},
        {"": "x"},
        {"a b": "x"},
        {"a:": "x"},
        {"a\r\nb": "x"},
        {1: "x"},
        {"a": 1},
        {"a": None},
        {"a": "x\r\nNats-TTL: 1s"},
        {"a": "x\ty"},
        {"a": " x"},
        {"a": "x "},
        {"a": "ä"},
        {"a": "\ud800"},
        [("a", "b")],
        "a",
    ],
    ids=repr,
)
def test_a_header_that_cannot_travel_is_refused_before_anything_is_sent(bucket, headers):
    for write in (
        lambda: bucket.put("a", 1, headers=headers),
        lambda: bucket.create("a", 1, headers=headers),
        lambda: bucket.update("a", 1, 1, headers=headers),
        lambda: bucket.delete("a", headers=headers),
        lambda: bucket.purge("a", headers=headers),
        lambda: bucket.write_many([Change.put("a", 1, headers=headers)]),
    ):
        with pytest.raises(UsageError, match=r"[Hh]eader"):
            write()
    assert bucket.history("a") == []


def test_headers_count_to_the_size_of_a_value(make_bucket):
    bucket = make_bucket(max_value_size=600)
    bucket.put("a", "x" * 400)
    with pytest.raises(ValueTooLarge):
        bucket.put("a", "x" * 400, headers={"Long": "y" * 300})
    assert bucket.get("a").value == "x" * 400


# ---------------------------------------------------------------------- time to live


@pytest.mark.slow
def test_a_put_an_update_and_a_tombstone_expire_when_asked_to(make_bucket):
    bucket = make_bucket()
    first = bucket.put("put", 1, ttl_ms=1000)
    second = bucket.put("updated", 1)
    bucket.update("updated", 2, second, ttl_ms=1000)
    bucket.put("kept", 1, ttl_ms=1000)
    bucket.put("kept", 2)
    bucket.put("deleted", 1)
    bucket.delete("deleted", marker_ttl_ms=1000)
    assert first
    eventually(lambda: bucket.get_many(["put", "updated"]) == {}, timeout=30)
    eventually(lambda: bucket.history("deleted") == [], timeout=30)
    assert bucket.get("kept").value == 2


@pytest.mark.parametrize("ttl_ms", [0, 999, -1, 1.5, True, "1s", 10**15])
def test_a_time_to_live_that_no_server_keeps_is_refused(bucket, ttl_ms):
    for write in (
        lambda: bucket.put("a", 1, ttl_ms=ttl_ms),
        lambda: bucket.update("a", 1, 1, ttl_ms=ttl_ms),
        lambda: bucket.delete("a", marker_ttl_ms=ttl_ms),
        lambda: bucket.write_many([Change.create("a", 1, ttl_ms=ttl_ms)]),
    ):
        with pytest.raises(InvalidTTL):
            write()
    assert bucket.history("a") == []


# ---------------------------------------------------------------------- several at once


def test_several_changes_each_give_a_revision_or_an_error(bucket):
    bucket.put("live", 1)
    bucket.put("gone", 1)
    bucket.delete("gone")
    results = bucket.write_many(
        [
            Change.put("a", 1, headers={"H": "1"}),
            Change.create("live", 2),
            Change.create("gone", 2),
            Change.update("live", 3, 1),
            Change.update("b", 3, 1),
            Change.delete("never"),
            Change.purge("also"),
        ]
    )
    kinds = [type(result) for result in results]
    assert kinds == [int, WrongRevision, int, int, WrongRevision, int, int]
    assert results[1].key == "live"
    assert {key: entry.value for key, entry in bucket.get_many(["a", "live", "gone", "b"]).items()} == {
        "a": 1,
        "live": 3,
        "gone": 2,
    }
    assert bucket.get("a").revision == results[0]
    assert bucket.get("gone").revision == results[2]
    assert [entry.operation for entry in bucket.history("never") + bucket.history("also")] == ["delete", "purge"]


def test_what_is_wrong_with_one_change_stops_all_of_them_before_they_are_sent(bucket):
    for wrong, error in (
        (Change.put("a b", 1), InvalidKey),
        (Change.put("b", object()), CodecError),
        ("b", UsageError),
        (Change("b", kv.Operation.PUT, 1, None, 5), InvalidTTL),
    ):
        with pytest.raises(error):
            bucket.write_many([Change.put("a", 1), wrong])
    with pytest.raises(UsageError):
        bucket.write_many("a")
    with pytest.raises(UsageError):
        bucket.write_many(None)
    guards: list[Any] = [0, -1, "1"]
    for guard in guards:
        with pytest.raises(UsageError):
            Change.update("a", 1, guard)
        with pytest.raises(UsageError):
            Change.delete("a", revision=guard)
    assert bucket.keys() == []


def test_nothing_and_very_many_changes(make_bucket):
    bucket = make_bucket()
    assert bucket.write_many([]) == []
    results = bucket.write_many(Change.put(f"k.{number}", number) for number in range(1000))
    assert sorted(results) == list(range(1, 1001))
    entries = bucket.get_many([f"k.{number}" for number in range(1000)])
    assert [(entry.value, entry.revision) for entry in entries.values()] == list(enumerate(results))


def test_many_megabytes_are_given_to_the_server_in_parts(make_server, connect_kv, face):
    context = face.wrap(connect_kv(make_server(config="max_pending: 4MB"), request_timeout=20.0)).kv()
    bucket = context.create_bucket({"bucket": "large"}, codec="bytes")
    results = bucket.write_many([Change.put(f"k{number}", bytes([number]) * 900_000) for number in range(24)])
    assert sorted(results) == list(range(1, 25))
    assert [entry.value[0] for entry in bucket.get_many([f"k{number}" for number in range(24)]).values()] == [
        *range(24)
    ]


def test_too_large_and_not_there_are_results_like_any_other_error(make_bucket, context):
    bucket = make_bucket(max_value_size=1000)
    results = bucket.write_many([Change.put("a", "x"), Change.put("b", "x" * 2000), Change.put("c", "x" * 2_000_000)])
    assert [getattr(result, "type", "done") for result in results] == ["done", "value-too-large", "value-too-large"]
    assert [result.type for result in bucket.write_many([Change.put("b", "x" * 2000)])] == ["value-too-large"]
    context.delete_bucket(bucket.name)
    gone = bucket.write_many([Change.put("a", "x"), Change.delete("b")])
    assert [type(result) for result in gone] == [BucketNotFound, BucketNotFound]


def test_what_no_server_takes_is_not_sent_and_the_rest_is(bucket):
    results = bucket.write_many([Change.put("a", "x"), Change.put("b", "x" * 2**20), Change.put("c", "x")])
    assert [getattr(result, "type", result) for result in results] == [1, "value-too-large", 2]
    assert results[1].key == "b"
    [alone] = bucket.write_many([Change.put("b", "x" * 2**20)])
    assert alone.type == "value-too-large"
    assert bucket.get_many(list("abc")).keys() == {"a", "c"}


def test_own_writes_of_several_changes_are_in_the_local_cache_at_once(nats_server, bucket_name, connect):
    connection = connect(nats_server.url)
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    cache = connection.local_cache(bucket.name)
    cache.wait_ready(30)
    for _ in range(20):
        bucket.write_many([Change.put("a", 1), Change.create("b", 2)])
        assert (cache.value("a"), cache.value("b")) == (1, 2)
        bucket.write_many([Change.delete("a"), Change.purge("b")])
        assert (cache.get("a"), cache.get("b")) == (None, None)


# ---------------------------------------------------------------------- erase


def test_erase_removes_what_the_pattern_matches_and_says_how_much(bucket):
    for key in ("a.1", "a.2", "a.b.3", "b.1"):
        bucket.put(key, 1)
        bucket.put(key, 2)
    bucket.delete("a.1")
    assert bucket.erase("a.*") == 5
    assert bucket.history("a.1") == bucket.history("a.2") == []
    assert sorted(bucket.keys()) == ["a.b.3", "b.1"]
    assert bucket.erase(["a.>", "a.b.*"]) == 2
    assert bucket.keys() == ["b.1"]
    assert bucket.erase() == 2
    assert bucket.erase() == 0
    assert bucket.put("b.1", 3) > 9


def test_erase_leaves_what_was_written_after_the_given_revision(bucket):
    bucket.put("a.1", 1)
    bucket.put("a.2", 1)
    limit = bucket.put("marker", 1)
    bucket.put("a.2", 2)
    assert bucket.erase("a.>", before=limit) == 2
    assert bucket.keys() in (["a.2", "marker"], ["marker", "a.2"])
    assert [entry.value for entry in bucket.history("a.2")] == [2]


@pytest.mark.parametrize("pattern", ["", "a..b", ">.a", "a b", 1, []])
def test_a_bad_pattern_erases_nothing(bucket, pattern):
    bucket.put("a", 1)
    with pytest.raises(UsageError):
        bucket.erase(pattern)
    for before in (0, -1, "1", True):
        with pytest.raises(UsageError):
            bucket.erase("a", before=before)
    assert bucket.keys() == ["a"]
