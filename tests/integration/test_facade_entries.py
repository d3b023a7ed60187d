"""Entries of a whole bucket, one after the other: complete, in order, and never more than a page at a time."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_natskv.exceptions import BucketNotFound, InvalidKeys, OperationalError
from django_natskv.kv import Change, Entry, Operation
from django_natskv.kv._reading import Reading
from tests.fix_facade import fill
from tests.fix_waiting import eventually


def _brief(entries: Iterator[Entry]) -> list[tuple[str, str, Any, int]]:
    return [(entry.key, entry.operation, entry.value, entry.revision) for entry in entries]


@pytest.fixture
def written(bucket):
    bucket.put("a", 1)
    bucket.put("b.1", 2, headers={"By": "ann"})
    bucket.put("a", 3)
    bucket.delete("b.1")
    bucket.put("c", 4, ttl_ms=100_000)
    bucket.purge("c")
    bucket.put("c", None)
    return bucket


def test_without_history_they_are_the_newest_of_live_keys_in_order(written):
    assert _brief(written.entries()) == [("a", "put", 3, 3), ("c", "put", None, 7)]


def test_with_history_they_are_all_that_is_kept_in_order(written):
    found = list(written.entries(history=True))
    assert [(entry.key, entry.operation, entry.value, entry.revision) for entry in found] == [
        ("a", "put", 1, 1),
        ("b.1", "put", 2, 2),
        ("a", "put", 3, 3),
        ("b.1", "delete", None, 4),
        ("c", "purge", None, 6),
        ("c", "put", None, 7),
    ]
    assert dict(found[1].headers) == {"By": "ann"}
    assert dict(found[0].headers) == {}
    assert {entry.delta for entry in found} == {None}


def test_an_entry_tells_the_time_to_live_that_it_was_given(make_bucket):
    bucket = make_bucket(history=3, ttl_ms=3_600_000)
    bucket.put("a", 1, ttl_ms=61_500)
    bucket.put("b", 1)
    bucket.delete("b", marker_ttl_ms=90_000)
    expected = [("a", 62_000), ("b", None), ("b", 90_000)]
    assert [(entry.key, entry.ttl_ms) for entry in bucket.entries(history=True)] == expected
    assert bucket.get("a").ttl_ms == 62_000
    assert [entry.ttl_ms for entry in bucket.history("b")] == [None, 90_000]


@pytest.mark.parametrize(
    ("filter_", "keys"),
    [("a", ["a"]), ("b.*", ["b.1"]), (["a", "c"], ["a", "c"]), (["*.1", "b.*"], ["b.1"]), ("none.>", []), (">", None)],
    ids=str,
)
def test_a_filter_restricts_them(written, filter_, keys):
    expected = [entry for entry in _brief(written.entries(history=True)) if keys is None or entry[0] in keys]
    assert _brief(written.entries(filter_, history=True)) == expected


def test_an_empty_bucket_has_none(bucket):
    assert list(bucket.entries()) == list(bucket.entries(history=True)) == []


def test_mistakes_and_a_missing_bucket_are_raised(context, bucket):
    mistakes: list[Any] = ["a..b", [], 7]
    for wrong in mistakes:
        with pytest.raises(InvalidKeys):
            next(iter(bucket.entries(wrong)))
    context.delete_bucket(bucket.name)
    with pytest.raises(BucketNotFound):
        next(iter(bucket.entries()))


@pytest.mark.parametrize("history", [False, True])
def test_many_come_in_pages_and_none_is_missing_or_there_twice(make_bucket, history):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(3_500)]
    fill(bucket, keys)
    found = list(bucket.entries(history=history))
    assert len(found) == 3_500
    assert {entry.key for entry in found} == set(keys)
    assert [entry.revision for entry in found] == list(range(1, 3_501))


def test_large_values_come_in_pages_too(make_bucket):
    bucket = make_bucket(codec="bytes")
    bucket.write_many(Change.put(f"k.{number}", bytes([number]) * 1_000_000) for number in range(9))
    assert [entry.value[0] for entry in bucket.entries()] == [entry.value[-1] for entry in bucket.entries()]
    assert sorted(entry.value[0] for entry in bucket.entries()) == list(range(9))


def test_nothing_is_left_on_the_server_however_it_ends(make_bucket, nats_server):
    bucket = make_bucket()
    fill(bucket, [f"k.{number}" for number in range(1_500)])
    list(bucket.entries())
    reading = bucket.entries()
    next(reading)
    assert len(nats_server.consumers(f"KV_{bucket.name}")) >= 1
    reading.close()
    another = bucket.entries()
    next(another)
    del another, reading
    gc.collect()
    eventually(lambda: nats_server.consumers(f"KV_{bucket.name}") == [])


def test_what_was_there_throughout_is_complete_while_others_write(make_bucket, connect_kv):
    bucket = make_bucket()
    keys = [f"k.{number}" for number in range(50)]
    fill(bucket, keys)
    writer = connect_kv(request_timeout=20.0).kv().open_bucket(bucket.name)
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            writer.put(keys[number % 50], number)
            if stop.is_set():
                return

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(60):
            found = list(bucket.entries())
            assert {entry.key for entry in found} == set(keys)
            revisions = [entry.revision for entry in found]
            assert revisions == sorted(set(revisions))
    finally:
        stop.set()
        thread.join()


def test_a_key_that_is_deleted_behind_the_reader_comes_again_as_a_marker(make_bucket):
    bucket = make_bucket()
    fill(bucket, [f"k.{number}" for number in range(1_500)])
    reading = bucket.entries()
    first = next(reading)
    bucket.delete(first.key)
    bucket.delete("k.1400")
    rest = list(reading)
    assert (first.key, Operation.DELETE) in [(entry.key, entry.operation) for entry in rest]
    assert ("k.1400", Operation.PUT) not in [(entry.key, entry.operation) for entry in rest]


@pytest.mark.parametrize("history", [False, True])
def test_it_goes_on_after_a_lost_connection_and_a_lost_consumer(
    make_bucket, connect_kv, make_proxy, nats_server, face, history, monkeypatch
):
    monkeypatch.setattr("django_natskv.kv._reading._TRIES", 50)  # however long the line takes to come back
    bucket = make_bucket(history=2)
    keys = [f"k.{number}" for number in range(2_500)]
    fill(bucket, keys)
    proxy = make_proxy(nats_server.url)
    through = face.wrap(connect_kv(proxy.url, request_timeout=20.0)).kv().open_bucket(bucket.name)
    reading = through.entries(history=history)
    found = [next(reading)]
    proxy.cut()
    found += itertools.islice(reading, 1_200)
    for consumer in nats_server.consumers(f"KV_{bucket.name}"):
        _delete_consumer(bucket, consumer)
    found += reading
    assert [entry.revision for entry in found] == list(range(1, 2_501))


def _delete_consumer(bucket: Any, name: str) -> None:
    core = bucket.plain._core
    bucket.plain._runner.call(core.wire.delete_consumer(bucket.name, name, "test"))


def test_a_bucket_that_is_made_anew_ends_it(context, make_bucket, nats_server):
    bucket = make_bucket()
    fill(bucket, [f"k.{number}" for number in range(1_500)])
    reading = bucket.entries()
    next(reading)
    context.delete_bucket(bucket.name)
    context.create_bucket({"bucket": bucket.name, "storage": "memory"}).put("a", 1)
    with pytest.raises(OperationalError, match="made anew"):
        list(reading)


# ---------------------------------------------------------------------- a write that erases what was before


def test_a_change_can_erase_the_keys_history_in_the_same_write(bucket):
    for value in (1, 2):
        bucket.put("a", value)
        bucket.put("b", value)
        bucket.put("c", value)
    bucket.write_many([Change.put("a", 3, erases_history=True), Change.delete("b", erases_history=True)])
    assert [(entry.operation, entry.value) for entry in bucket.history("a")] == [("put", 3)]
    assert [(entry.operation, entry.value) for entry in bucket.history("b")] == [("delete", None)]
    assert len(bucket.history("c")) == 2
    assert bucket.get("a").headers == {}


# ---------------------------------------------------------------------- the end of a pass


def test_a_pass_is_not_over_before_the_newest_revision_has_been_given(make_bucket):
    """The server may say "nothing pending" too early, once in some hundred passes: here it does each time."""
    bucket = make_bucket().plain
    bucket.put("a", 1)
    reading = Reading(bucket._core, None, history=False)
    call = bucket._runner.call
    assert [stored.revision for stored in call(reading._pull())] == [1]
    bucket.put("b", 2)
    reading._over = False
    call(reading._look_for_the_end([]))
    assert not reading._over
    assert [entry.key for entry in call(reading.page())] == ["b"]
    assert call(reading.page()) == []
    reading.close()
