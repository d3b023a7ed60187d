"""Large values of a cache: in chunks, whole or not at all, and no chunk is left behind."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.cache.steps import run
from django_natskv.kv import Change

LARGE = 3 * 2**20
OLD = -60.0  # seconds of grace with which everything is old, however well the server's time is known


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def chunk_names(stored: Any) -> list[str]:
    return [name for name in stored().keys("==chunk.>") if name]


def test_a_large_value_comes_back_whole_and_its_chunks_go_with_it(cache, stored):
    value = os.urandom(LARGE)
    cache.set("k", value)
    assert cache.get("k") == value
    assert cache.get_many(["k"]) == {"k": value}
    assert len(chunk_names(stored)) == 7
    cache.set("k", value[::-1])
    assert cache.get("k") == value[::-1]
    assert len(chunk_names(stored)) == 7
    assert cache.touch("k", 5_000)
    assert 4_900 < cache.ttl("k") < 5_010
    assert cache.get("k") == value[::-1]
    assert len(chunk_names(stored)) == 7
    assert cache.incr_version("k") == 2
    assert cache.get("k", version=2) == value[::-1]
    assert cache.delete("k", version=2)
    assert chunk_names(stored) == []
    cache.set_many({"a": value, "b": 1})
    assert cache.get_many(["a", "b"]) == {"a": value, "b": 1}
    cache.set("a", 1)
    assert chunk_names(stored) == []
    cache.add("k", value)
    cache.delete_many(["k"])
    assert chunk_names(stored) == []
    cache.set("k", value)
    cache.clear()
    assert chunk_names(stored) == []


def test_chunks_are_there_for_longer_than_their_head(plain, stored):
    plain.set("k", os.urandom(LARGE), 100)
    head, chunks = stored().get("_.1.k"), stored().get_many(chunk_names(stored)).values()
    assert {chunk.ttl_ms for chunk in chunks} == {head.ttl_ms + 60_000}
    plain.persist("k")
    assert {stored().get(name).ttl_ms for name in ("_.1.k", *chunk_names(stored))} == {None}


def test_seventy_megabytes(plain):
    value = os.urandom(70 * 10**6)
    plain.set("k", value)
    assert plain.get("k") == value


def test_a_reader_sees_the_old_or_the_new_value_whole(plain):
    values = [bytes([number]) * (LARGE // 2 + number) for number in range(4)]
    plain.set("k", values[0])
    over = threading.Event()
    written = 0

    def write() -> None:
        nonlocal written
        writer = NatsKVCache(plain._location, {})
        while not over.is_set():
            for value in values:
                writer.set("k", value)
                written += 1

    thread = threading.Thread(target=write)
    thread.start()
    read = 0
    try:
        while thread.is_alive() and (read < 10 or written < 20):
            assert plain.get("k") in values
            read += 1
    finally:
        over.set()
        thread.join()
    assert read >= 10
    assert written >= 20


def test_a_value_whose_chunks_are_gone_is_a_miss_and_can_be_added_again(cache, stored):
    cache.set("k", os.urandom(LARGE))
    bucket = stored()
    bucket.purge(chunk_names(stored)[0])
    assert cache.get("k", "default") == "default"
    assert cache.get_many(["k"]) == {}
    assert cache.ttl("k") == 0.0
    assert not cache.touch("k")
    assert not cache.delete("k")
    cache.set("k", os.urandom(LARGE))
    bucket.purge(chunk_names(stored)[0])
    assert cache.add("k", "new")
    assert cache.get("k") == "new"


def test_chunks_without_a_head_are_swept(plain, stored):
    plain.set("k", os.urandom(LARGE))
    orphans = [Change.put(f"==chunk._.0123456789.{number}.1.lost", b"x" * 1000) for number in range(3)]
    stored().write_many(orphans)
    chunks = plain._store.chunks
    chunks.grace = OLD
    chunks._sweep_at = 0.0
    plain.set("other", os.urandom(LARGE))
    assert len(chunk_names(stored)) == 14
    assert plain.get("k") is not None
    assert not [name for name in chunk_names(stored) if name.endswith("lost")]


@pytest.mark.parametrize("write", ["set", "set_many"])
def test_chunks_of_a_value_that_another_process_wrote_over_stay_until_a_sweep(plain, stored, write):
    def put(key: str) -> None:
        plain.set(key, 1) if write == "set" else plain.set_many({key: 1})

    other = NatsKVCache(plain._location, {"OPTIONS": {"COMPRESS_MIN": 7}})  # a place of its own
    other.set("k", os.urandom(LARGE))
    put("k")  # it does not look at what is there: that would be a second request for every write
    assert len(chunk_names(stored)) == 7
    chunks = plain._store.chunks
    chunks.grace = OLD
    chunks._sweep_at = 0.0
    put("other")
    assert chunk_names(stored) == []
    assert plain.get_many(["k", "other"]) == {"k": 1, "other": 1}


def test_chunks_that_are_new_are_left_for_their_head_to_come(plain, stored):
    plain.set("k", 1)
    stored().put("==chunk._.0123456789.0.1.coming", b"x")
    assert run(plain._store.chunks.sweep()) == 0
    assert len(chunk_names(stored)) == 1


def test_a_server_that_takes_less_gets_smaller_chunks(make_server, settings, tmp_path):
    server = make_server(config="max_payload: 64KB")
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    cache = NatsKVCache("cache", {})
    value = os.urandom(300_000)
    cache.set("k", value)
    assert cache.get("k") == value
    assert cache.set_many({"m": value, "n": 1}) == []
    assert cache.get_many(["m", "n"]) == {"m": value, "n": 1}
