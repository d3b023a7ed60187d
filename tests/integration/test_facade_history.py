"""History: every kept revision of one key, oldest first, with its distance from the newest."""

from __future__ import annotations

import pytest

from django_natskv.kv import Entry


def test_history_is_oldest_to_newest_with_delta_and_markers(bucket):
    bucket.put("a", 1)
    bucket.put("b", "another")
    bucket.put("a", None)
    bucket.delete("a")
    bucket.put("a", 3)
    entries = bucket.history("a")
    assert [entry.value for entry in entries] == [1, None, None, 3]
    assert [entry.operation for entry in entries] == ["put", "put", "delete", "put"]
    assert [entry.delta for entry in entries] == [3, 2, 1, 0]
    assert [entry.revision for entry in entries] == sorted(entry.revision for entry in entries)
    assert {(type(entry), entry.bucket, entry.key) for entry in entries} == {(Entry, bucket.name, "a")}
    assert all(entry.created.tzinfo is not None for entry in entries)
    assert [entry.created for entry in entries] == sorted(entry.created for entry in entries)


def test_the_entries_of_history_are_those_of_pinned_reads(bucket):
    for number in range(4):
        bucket.put("a", number)
    bucket.delete("a")
    for entry in bucket.history("a"):
        pinned = bucket.get("a", revision=entry.revision)
        assert pinned == Entry(
            entry.bucket, entry.key, entry.value, entry.revision, entry.created, entry.operation, None
        )


def test_the_history_of_an_absent_key_is_empty(bucket):
    bucket.put("a.b", 1)
    assert bucket.history("a") == []


def test_the_history_of_a_deleted_key_is_still_there(bucket):
    bucket.put("a", 1)
    bucket.delete("a")
    assert [(entry.value, entry.operation, entry.delta) for entry in bucket.history("a")] == [
        (1, "put", 1),
        (None, "delete", 0),
    ]


def test_purge_erases_history_down_to_its_marker(bucket):
    for number in range(4):
        bucket.put("a", number)
    bucket.purge("a")
    assert [(entry.operation, entry.delta) for entry in bucket.history("a")] == [("purge", 0)]
    bucket.put("a", 5)
    assert [(entry.operation, entry.delta) for entry in bucket.history("a")] == [("purge", 1), ("put", 0)]


@pytest.mark.parametrize("history", [1, 2, 64])
def test_a_bucket_keeps_as_many_revisions_as_it_was_made_for(make_bucket, history):
    bucket = make_bucket(history=history)
    for number in range(70):
        bucket.put("a", number)
        bucket.put("other", number)
    entries = bucket.history("a")
    assert [entry.value for entry in entries] == list(range(70 - history, 70))
    assert [entry.delta for entry in entries] == list(range(history - 1, -1, -1))


def test_a_bucket_keeps_one_revision_unless_told_otherwise(make_bucket):
    bucket = make_bucket()
    bucket.put("a", 1)
    bucket.put("a", 2)
    assert [entry.value for entry in bucket.history("a")] == [2]


def test_large_values_do_not_shorten_a_history(make_bucket):
    bucket = make_bucket(codec="bytes", history=40)
    for number in range(40):
        bucket.put("a", bytes([number]) * 900_000)
    assert [entry.value[0] for entry in bucket.history("a")] == list(range(40))
