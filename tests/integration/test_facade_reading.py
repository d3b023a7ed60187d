"""Reading: the newest entry, a pinned revision, absence, and what every entry says of itself."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from django_natskv.exceptions import BucketNotFound
from django_natskv.kv import Entry, Operation


def test_an_entry_says_everything_of_itself(bucket):
    before = datetime.now(UTC)
    revision = bucket.put("user.7", {"name": "Zoë"})
    after = datetime.now(UTC)
    entry = bucket.get("user.7")
    assert entry == Entry(bucket.name, "user.7", {"name": "Zoë"}, revision, entry.created, Operation.PUT, None)
    assert entry.created.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) < entry.created < after + timedelta(seconds=1)


def test_an_entry_is_frozen(bucket):
    bucket.put("a", 1)
    entry = bucket.get("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.value = 2


def test_the_operation_compares_and_prints_as_its_word(bucket):
    bucket.put("a", 1)
    operation = bucket.get("a").operation
    assert operation == "put"
    assert f"{operation}" == "put"


@pytest.mark.parametrize("value", [None, 0, "", False, [], {}, "x", 1.5, [1, {"a": None}]])
def test_what_was_put_is_what_is_read(bucket, value):
    revision = bucket.put("a", value)
    entry = bucket.get("a")
    assert (entry.value, entry.revision) == (value, revision)


def test_a_stored_null_is_an_entry_and_absence_is_none(bucket):
    bucket.put("null", None)
    assert bucket.get("null").value is None
    assert bucket.get("null").operation is Operation.PUT
    assert bucket.get("absent") is None


@pytest.mark.parametrize("remove", ["delete", "purge"])
def test_a_removed_key_is_absent_and_lives_again_when_it_is_put(bucket, remove):
    bucket.put("a", 1)
    getattr(bucket, remove)("a")
    assert bucket.get("a") is None
    bucket.put("a", 2)
    assert bucket.get("a").value == 2


def test_a_pinned_read_gives_that_very_revision(bucket):
    revisions = [bucket.put("a", number) for number in range(3)]
    assert [bucket.get("a", revision=revision).value for revision in revisions] == [0, 1, 2]
    assert [bucket.get("a", revision=revision).revision for revision in revisions] == revisions


@pytest.mark.parametrize(("remove", "operation"), [("delete", "delete"), ("purge", "purge")])
def test_a_pinned_read_does_not_hide_a_marker(bucket, remove, operation):
    first = bucket.put("a", 1)
    getattr(bucket, remove)("a")
    marker = bucket.get("a", revision=first + 1)
    assert (marker.operation, marker.value, marker.revision, marker.delta) == (operation, None, first + 1, None)
    assert marker.created.tzinfo is not None


def test_a_pinned_read_of_what_is_not_this_keys_revision_is_none(bucket):
    mine = bucket.put("a", 1)
    other = bucket.put("b", 2)
    assert bucket.get("a", revision=other) is None
    assert bucket.get("a.b", revision=mine) is None
    assert bucket.get("a", revision=other + 1) is None
    assert bucket.get("a", revision=2**63 - 1) is None


@pytest.mark.parametrize("revision", [2**63, 2**64 - 1, 2**64, 10**30])
def test_a_revision_beyond_what_a_server_can_count_was_never_assigned(bucket, revision):
    bucket.put("a", 1)
    assert bucket.get("a", revision=revision) is None


def test_a_pinned_read_of_what_is_no_longer_kept_is_none(make_bucket):
    bucket = make_bucket(history=1)
    first = bucket.put("a", 1)
    bucket.put("a", 2)
    assert bucket.get("a", revision=first) is None


def test_a_pinned_read_of_what_a_purge_erased_is_none(bucket):
    first = bucket.put("a", 1)
    bucket.purge("a")
    assert bucket.get("a", revision=first) is None


def test_a_marker_is_never_decoded(bucket, context):
    class Refusing:
        def encode(self, value):
            return b"x"

        def decode(self, data):
            raise AssertionError

    strict = context.open_bucket(bucket.name, codec=Refusing())
    strict.delete("a")
    assert strict.get("a") is None
    assert strict.get("a", revision=1).value is None
    assert [entry.value for entry in strict.history("a")] == [None]


def test_keys_that_look_alike_are_different(bucket):
    keys = ["a", "A", "a.b", "a/b", "a=b", "a-b", "a_b", "a.b.c", "0", "-", "/", "=", "_"]
    for key in keys:
        bucket.put(key, key)
    assert [bucket.get(key).value for key in keys] == keys
    assert sorted(bucket.keys()) == sorted(keys)


def test_the_longest_key_works_everywhere(bucket):
    key = "k" * 1024
    revision = bucket.create(key, 1)
    assert bucket.get(key).value == 1
    assert bucket.update(key, 2, revision) == revision + 1
    assert bucket.keys(key) == [key]
    assert list(bucket.get_many([key])) == [key]
    assert len(bucket.history(key)) == 2
    bucket.delete(key, revision=revision + 1)
    bucket.purge(key)
    bucket.purge_deletes()
    assert bucket.history(key) == []


@pytest.mark.parametrize(
    "operation",
    [
        ("get", "a"),
        ("put", "a", 1),
        ("create", "a", 1),
        ("update", "a", 1, 1),
        ("delete", "a"),
        ("purge", "a"),
        ("keys",),
        ("keys", "a.*"),
        ("history", "a"),
        ("get_many", ["a", "b"]),
        ("purge_deletes",),
    ],
    ids=lambda operation: "-".join(map(str, operation)),
)
def test_a_bucket_deleted_meanwhile_is_not_found(make_bucket, context, operation):
    bucket = make_bucket()
    context.delete_bucket(bucket.name)
    name, *args = operation
    with pytest.raises(BucketNotFound) as caught:
        getattr(bucket, name)(*args)
    assert caught.value.bucket == bucket.name
    assert bucket.name in str(caught.value)


def test_a_handle_works_on_when_its_bucket_is_made_anew(make_bucket, context):
    bucket = make_bucket()
    bucket.put("a", 1)
    context.delete_bucket(bucket.name)
    context.create_bucket({"bucket": bucket.name, "storage": "memory"})
    assert bucket.get("a") is None
    assert bucket.put("a", 2) == 1
    assert bucket.keys() == ["a"]


def test_a_null_written_as_no_bytes_at_all_is_a_value(make_bucket):
    bucket = make_bucket(codec="bytes")
    bucket.put("a", b"")
    assert bucket.get("a").value == b""
    assert bucket.keys() == ["a"]
