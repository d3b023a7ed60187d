"""Writing: revisions, guards, sizes, and a bucket that is full."""

from __future__ import annotations

import dataclasses

import pytest

from django_natskv.exceptions import BucketFull, ValueTooLarge, WrongRevision
from django_natskv.kv import Change

HUGE = [2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 10**30]


def test_put_gives_the_new_revision(bucket):
    first = bucket.put("a", 1)
    second = bucket.put("a", 2)
    assert type(first) is int
    assert second > first
    assert bucket.get("a").revision == second


def test_update_writes_at_the_newest_revision_only(bucket):
    first = bucket.put("a", 1)
    second = bucket.update("a", 2, first)
    assert second == bucket.get("a").revision
    with pytest.raises(WrongRevision) as caught:
        bucket.update("a", 3, first)
    assert (caught.value.key, caught.value.bucket) == ("a", bucket.name)
    assert "'a'" in str(caught.value)
    assert bucket.name in str(caught.value)
    assert bucket.get("a").value == 2


def test_update_of_a_key_that_was_never_there_is_a_wrong_revision(bucket):
    bucket.put("b", 1)
    with pytest.raises(WrongRevision):
        bucket.update("a", 1, 1)
    assert bucket.history("a") == []


def test_update_compares_with_the_key_and_not_with_the_bucket(bucket):
    first = bucket.put("a", 1)
    bucket.put("b", 1)
    assert bucket.update("a", 2, first)


@pytest.mark.parametrize("revision", HUGE)
def test_a_revision_that_no_server_can_count_to_is_wrong_and_not_ignored(bucket, revision):
    bucket.put("a", 1)
    with pytest.raises(WrongRevision):
        bucket.update("a", 2, revision)
    with pytest.raises(WrongRevision):
        bucket.delete("a", revision=revision)
    with pytest.raises(WrongRevision):
        bucket.purge("a", revision=revision)
    [lost] = bucket.write_many([dataclasses.replace(Change.put("a", 2), revision=revision)])
    assert isinstance(lost, WrongRevision)
    assert [entry.value for entry in bucket.history("a")] == [1]


def test_update_over_a_marker_takes_its_revision(bucket):
    first = bucket.put("a", 1)
    bucket.delete("a")
    with pytest.raises(WrongRevision):
        bucket.update("a", 2, first)
    bucket.update("a", 2, first + 1)
    assert bucket.get("a").value == 2


@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_a_guard_removes_what_it_names_and_nothing_else(bucket, remove):
    first = bucket.put("a", 1)
    second = bucket.put("a", 2)
    with pytest.raises(WrongRevision) as caught:
        getattr(bucket, remove)("a", revision=first)
    assert caught.value.key == "a"
    assert [entry.value for entry in bucket.history("a")] == [1, 2]
    assert getattr(bucket, remove)("a", revision=second) is None
    assert bucket.get("a") is None


@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_a_guard_on_an_absent_key_is_a_wrong_revision(bucket, remove):
    with pytest.raises(WrongRevision):
        getattr(bucket, remove)("a", revision=1)
    assert bucket.history("a") == []


@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_removing_what_is_absent_is_no_error(bucket, remove):
    assert getattr(bucket, remove)("a") is None
    assert getattr(bucket, remove)("a") is None
    assert bucket.get("a") is None


def test_delete_keeps_the_history_and_purge_leaves_one_marker(bucket):
    bucket.put("a", 1)
    bucket.put("a", 2)
    bucket.delete("a")
    assert [entry.operation for entry in bucket.history("a")] == ["put", "put", "delete"]
    bucket.purge("a")
    assert [entry.operation for entry in bucket.history("a")] == ["purge"]


def test_purge_leaves_other_keys_alone(bucket):
    for key in ("a", "a.b", "ab", "b"):
        bucket.put(key, key)
    bucket.purge("a")
    assert sorted(bucket.keys()) == ["a.b", "ab", "b"]


# ---------------------------------------------------------------------- sizes


def test_a_value_of_exactly_max_value_size_can_be_put(make_bucket):
    bucket = make_bucket(codec="bytes", max_value_size=1000)
    for size in (0, 1, 700, 743, 744, 745, 900, 999, 1000):
        bucket.put("a", b"x" * size)
        assert len(bucket.get("a").value) == size


def test_a_value_over_max_value_size_is_refused_with_both_numbers(make_bucket):
    bucket = make_bucket(codec="bytes", max_value_size=1000)
    bucket.put("a", b"first")
    with pytest.raises(ValueTooLarge) as caught:
        bucket.put("a", b"x" * 1001)
    error = caught.value
    assert (error.bucket, error.key, error.limit) == (bucket.name, "a", 1000)
    assert error.size == 1001
    assert "1,001" in str(error)
    assert "1,000" in str(error)
    assert "max_value_size" in str(error)
    assert bucket.get("a").value == b"first"


def test_a_limit_that_was_lowered_since_is_told_with_both_numbers(make_bucket, context):
    bucket = make_bucket(codec="bytes")
    context.update_bucket({"bucket": bucket.name, "max_value_size": 1000})
    with pytest.raises(ValueTooLarge) as caught:
        bucket.put("a", b"x" * 2000)
    error = caught.value
    assert (error.bucket, error.key, error.limit) == (bucket.name, "a", 1000)
    assert error.size >= 2000
    assert "1,000" in str(error)
    assert f"{error.size:,}" in str(error)


def test_a_limit_that_was_raised_since_is_the_one_that_counts(make_bucket, context):
    bucket = make_bucket(codec="bytes", max_value_size=1000)
    context.update_bucket({"bucket": bucket.name, "max_value_size": 3000})
    bucket.put("a", b"x" * 2000)
    assert len(bucket.get("a").value) == 2000


@pytest.mark.parametrize("operation", ["put", "create", "update"])
def test_a_value_over_the_servers_limit_is_refused_and_the_connection_lives(make_bucket, operation):
    bucket = make_bucket(codec="bytes")
    revision = bucket.put("a", b"first")
    arguments = (revision,) if operation == "update" else ()
    key = "b" if operation == "create" else "a"
    with pytest.raises(ValueTooLarge) as caught:
        getattr(bucket, operation)(key, b"x" * (2**20 + 1), *arguments)
    error = caught.value
    assert (error.bucket, error.key, error.limit) == (bucket.name, key, 2**20)
    assert error.size > 2**20
    for part in (bucket.name, f"'{key}'", f"{2**20:,}", f"{error.size:,}"):
        assert part in str(error)
    assert bucket.get("a").value == b"first"
    assert bucket.get("b") is None


def test_values_around_the_servers_limit_never_cost_the_connection(make_bucket, nats_server):
    bucket = make_bucket(codec="bytes")
    name = bucket.plain._core.wire.client.settings.name
    before = [one["cid"] for one in nats_server.connections(name)]
    for size in range(2**20 - 200, 2**20 + 1, 13):
        try:
            bucket.put("a", b"x" * size)
        except ValueTooLarge:
            continue
        assert len(bucket.get("a").value) == size
    assert [one["cid"] for one in nats_server.connections(name)] == before


def test_headers_count_where_the_server_counts_them(make_bucket):
    # With its guard a write of exactly the limit does not fit: it is refused as what it is, by us or by the server.
    bucket = make_bucket(codec="bytes", max_value_size=1000)
    revision = bucket.put("a", b"first")
    with pytest.raises(ValueTooLarge) as caught:
        bucket.update("a", b"x" * 1000, revision)
    assert caught.value.size > caught.value.limit == 1000
    assert bucket.update("a", b"x" * 800, revision)


def test_a_full_bucket_refuses_and_keeps_what_it_has(make_bucket):
    bucket = make_bucket(codec="bytes", max_bucket_size=20_000)

    def fill():
        for number in range(100):
            bucket.put(f"k{number}", b"x" * 1000)

    with pytest.raises(BucketFull) as caught:
        fill()
    assert caught.value.bucket == bucket.name
    assert bucket.name in str(caught.value)
    assert "max_bucket_size" in str(caught.value)
    kept = len(bucket.keys())
    assert 10 < kept < 20
    assert bucket.get("k0").value == b"x" * 1000
    bucket.purge("k0")
    bucket.purge("k1")
    bucket.put("k0", b"y" * 1000)


def test_an_error_holds_no_value(make_bucket):
    bucket = make_bucket(max_value_size=500)
    secret = "s3cr3t" * 200
    texts = []
    for write in (
        lambda: bucket.put("a", secret),
        lambda: bucket.create("a", secret),
        lambda: bucket.update("a", secret, 1),
        lambda: bucket.update("a", "s3cr3t", 1),
        lambda: bucket.put("a", {"s3cr3t": object()}),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind
            write()
        texts.append(f"{caught.value} {caught.value!r}")
    assert "s3cr3t" not in " ".join(texts)


def test_a_full_bucket_that_discards_old_values_drops_the_oldest_writes(make_bucket):
    bucket = make_bucket(codec="bytes", max_bucket_size=4_000, discard="old")
    for number in range(20):
        bucket.put(f"k{number}", b"x" * 500)
    left = set(bucket.keys())
    assert left
    assert left == {f"k{number}" for number in range(20 - len(left), 20)}


def test_a_handle_tells_how_its_bucket_is_made(make_bucket):
    config = make_bucket(history=3, discard="old").plain.config
    assert (config.history, config.storage, config.replicas, config.discard) == (3, "memory", 1, "old")
    assert config.max_bucket_size == -1


def test_the_server_tells_its_time(bucket):
    before = bucket.server_time()
    bucket.put("a", 1)
    assert before <= bucket.get("a").created <= bucket.server_time()
    assert before.tzinfo is not None
