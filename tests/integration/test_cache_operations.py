"""What a cache promises beyond Django's own tests: exact times, large values, counters, clear, planted values."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pickle
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject

from django_natskv.cache import NatsKVCache
from django_natskv.cache.steps import run
from django_natskv.connections import connections
from django_natskv.exceptions import InvalidTTL
from django_natskv.kv import Bucket, Change
from tests.fix_cache import PROGRAM
from tests.fix_waiting import eventually

LARGE = 3 * 2**20


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def headers(stored: Any, key: str) -> dict[str, str]:
    return dict(stored().get(key).headers)


def chunk_names(stored: Any) -> list[str]:
    return [name for name in stored().keys("==chunk.>") if name]


# ---------------------------------------------------------------------- times


def test_a_fraction_of_a_second_is_a_timeout(cache):
    cache.set("k", 1, 0.4)
    entry = cache.get_entry("k")
    assert (entry.expires - entry.created).total_seconds() == pytest.approx(0.4)
    eventually(lambda: not cache.has_key("k"))
    assert cache.get_many(["k"]) == {}
    assert cache.add("k", 2, 100)
    assert cache.get("k") == 2


def test_the_server_lets_go_of_what_has_expired_too(cache, stored):
    cache.set("k", 1, 0.1)
    cache.set_many({"l": 1}, 0.1)
    cache.set("never", 1, None)
    cache.set("long", 1, 10**12)
    eventually(lambda: sorted(stored().keys()) == ["_.1.long", "_.1.never"], 8)
    assert cache.ttl("long") is None


def test_what_keeps_its_end_keeps_it_exactly(cache):
    cache.set("k", 1, 50.25)
    ends = cache.get_entry("k").expires
    for _ in range(20):
        cache.incr("k")
    assert cache.get_entry("k").expires == ends
    assert cache.incr_version("k") == 2
    assert cache.get_entry("k", version=2).expires == ends
    assert cache.get("k", version=2) == 21
    assert cache.get("k") is None


def test_the_servers_clock_counts_and_not_ours(plain, monkeypatch):
    plain.set("k", 1, 100)
    plain.set("gone", 1, 0.05)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    newcomer = NatsKVCache(plain._location, {"OPTIONS": {"COMPRESS_MIN": 7}})  # a place of its own
    assert newcomer._place is not plain._place
    assert newcomer.get("k") == 1
    assert 99 < (newcomer.ttl("k") or 0) <= 100.1
    eventually(lambda: newcomer.get("gone") is None)


# ---------------------------------------------------------------------- counters


def test_threads_lose_no_count(plain):
    plain.set("k", 0, 100)

    def count() -> None:
        for _ in range(200):
            plain.incr("k")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plain.get("k") == 1600


def test_processes_lose_no_count(plain, natskv, bucket_name, program):
    plain.set("k", 0, 100)
    code = PROGRAM + "for _ in range(200): cache.incr('k')\nprint(json.dumps(True), flush=True)"
    programs = [program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name) for _ in range(4)]
    assert [each.read() for each in programs] == [True] * 4
    assert plain.get("k") == 800


def test_big_integers_are_exact_and_readable_by_other_clients(cache, stored):
    cache.set("k", 2**70)
    assert cache.incr("k") == 2**70 + 1
    assert cache.decr("k", 2**71) == 1 - 2**70
    assert stored().get("_.1.k").value == str(1 - 2**70).encode()
    cache.set("text", "a")
    with pytest.raises(TypeError):
        cache.incr("text")


def test_what_was_added_is_looked_at_before_it_is_added_again(cache, stored, monkeypatch):
    tried: list[str] = []

    def noting(create: Any) -> Any:
        def noted(bucket: Bucket, key: str, *args: Any, **options: Any) -> Any:
            tried.append(key)
            return create(bucket, key, *args, **options)

        return noted

    for face in ("create", "acreate"):
        monkeypatch.setattr(Bucket, face, noting(getattr(Bucket, face)))
    assert cache.add("k", 1)
    assert not cache.add("k", 2)
    assert tried == ["_.1.k"]
    stored().delete("_.1.k")
    assert cache.add("k", 3)
    assert cache.get("k") == 3
    cache.touch("k", 0.1)
    eventually(lambda: not cache.has_key("k"))
    assert cache.add("k", 4)
    assert cache.delete("k")
    tried.clear()
    assert cache.add("k", 5)
    assert tried == ["_.1.k"]
    assert cache.get("k") == 5


def test_one_of_many_adds_and_one_of_many_deletes_wins(plain):
    start = threading.Barrier(8)
    added, deleted = [], []

    def race() -> None:
        start.wait(5)
        added.append(plain.add("k", 1))
        start.wait(5)
        deleted.append(plain.delete("k"))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == sorted(deleted) == [False] * 7 + [True]


@pytest.mark.parametrize("nan", [math.nan, "nan", Decimal("NaN")], ids=repr)
def test_a_timeout_that_is_not_a_number_is_refused(cache, nan):
    for write in (cache.set, cache.add, cache.get_or_set):
        with pytest.raises(InvalidTTL, match="NaN"):
            write("k", 1, nan)
    for write in (cache.touch, cache.expire):
        with pytest.raises(ValueError, match="NaN"):
            write("k", nan)
    with pytest.raises(ValueError, match="NaN"):
        cache.set_many({"k": 1}, nan)
    assert cache.get("k") is None


@pytest.mark.parametrize(
    "long", [math.inf, 10**400, 1e300, 10**11], ids=["infinite", "no float", "1e300", "3,000 years"]
)
def test_a_timeout_that_is_absurdly_long_is_never(cache, long):
    cache.set("k", 1, long)
    assert cache.ttl("k") is None
    cache.set("k", 1, 100)
    assert cache.touch("k", long)
    assert cache.ttl("k") is None
    for past in (-math.inf, -(10**400)):
        cache.set("k", 1, past)
        assert cache.get("k") is None


# ---------------------------------------------------------------------- large values


def test_a_large_value_comes_back_whole_and_its_chunks_go_with_it(cache, stored):
    value = os.urandom(LARGE)
    cache.set("k", value)
    assert cache.get("k") == value
    assert cache.get_many(["k"]) == {"k": value}
    assert len(chunk_names(stored)) == 7
    cache.set("k", value[::-1])
    assert cache.get("k") == value[::-1]
    assert len(chunk_names(stored)) == 7
    assert cache.touch("k", 500)
    assert 499 < cache.ttl("k") < 501
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


def test_seventy_megabytes(plain):
    value = os.urandom(70 * 10**6)
    plain.set("k", value)
    assert plain.get("k") == value


def test_a_reader_sees_the_old_or_the_new_value_whole(plain):
    values = [bytes([number]) * (LARGE // 2 + number) for number in range(4)]
    plain.set("k", values[0])
    over = threading.Event()

    def write() -> None:
        writer = NatsKVCache(plain._location, {})
        for _ in range(5):
            for value in values:
                writer.set("k", value)
        over.set()

    thread = threading.Thread(target=write)
    thread.start()
    read = 0
    while not over.is_set():
        assert plain.get("k") in values
        read += 1
    thread.join()
    assert read > 3


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
    chunks.grace = 0.0
    chunks._sweep_at = 0.0
    plain.set("other", os.urandom(LARGE))
    assert len(chunk_names(stored)) == 14
    assert plain.get("k") is not None
    assert not [name for name in chunk_names(stored) if name.endswith("lost")]


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


# ---------------------------------------------------------------------- clear


def test_clear_leaves_other_prefixes(make_cache):
    shop, other, bare = make_cache(KEY_PREFIX="shop"), make_cache(KEY_PREFIX="shop2"), make_cache()
    for each in (shop, other, bare):
        each.set("k", 1, version=3)
        each.set("k", 1)
    shop.clear()
    assert [each.get("k") for each in (shop, other, bare)] == [None, 1, 1]
    assert shop.get("k", version=3) is None
    bare.clear()  # has no prefix, and removes everything
    assert [each.get("k") for each in (shop, other, bare)] == [None, None, None]


def test_a_large_cache_is_cleared_without_a_stall(plain, stored):
    plain.set("warm", 1)
    bucket = stored()

    async def fill() -> None:
        for start in range(0, 100_000, 2_000):
            await bucket.awrite_many([Change.put(f"_.1.k{n}", b"1") for n in range(start, start + 2_000)])

    asyncio.run(fill())
    other = NatsKVCache(plain._location, {"KEY_PREFIX": "other"})
    clearing = threading.Thread(target=plain.clear)
    clearing.start()
    while clearing.is_alive():
        other.set("k", 1)  # none of these times out
        assert other.get("k") in (1, None)
    clearing.join()
    assert plain.get("k5") is None


# ---------------------------------------------------------------------- what others put there


class Boom:
    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Boom, "ran", True))


def test_a_pickle_that_was_planted_does_not_run(cache, stored, caplog):
    cache.set("k", [1])
    form = headers(stored, "_.1.k")
    bomb = pickle.dumps(Boom())
    genuine = stored().get("_.1.k").value
    with caplog.at_level(logging.WARNING, "django_natskv.cache"):
        for data in (bomb, b"\0" * 32 + bomb, genuine[:32] + bomb, b"", b"\xff"):
            stored().put("_.1.k", data, headers=form)
            assert cache.get("k", "default") == "default"
            assert not cache.has_key("k")
        stored().put("_.1.k", bomb)
        assert cache.get("k", "default") == "default"
        assert cache.ttl("k") == 0.0
        for operation in (cache.touch, cache.persist, cache.get_entry, cache.delete):
            assert not operation("k")
        assert stored().get("_.1.k") is None  # delete removed it
        stored().put("_.1.k", bomb)
        assert not cache.touch("k", -1)
        stored().put("_.1.k", bomb)
    assert not Boom.ran
    assert cache.plain.unreadable >= 6
    assert len([record for record in caplog.records if record.name == "django_natskv.cache"]) == 1
    assert cache.add("k", 1)
    assert cache.get("k") == 1


def test_a_value_moved_to_another_key_does_not_verify(cache, stored):
    cache.set("a", [1])
    entry = stored().get("_.1.a")
    stored().put("_.1.b", entry.value, headers=dict(entry.headers))
    assert cache.get("b") is None
    assert cache.get("a") == [1]


@pytest.mark.parametrize(
    "rubbish",
    [
        {"Natskv-TTL": "soon"},
        {"Natskv-Expires": "never"},
        {"Natskv-TTL": "nan"},
        {"Natskv-TTL": "1e300"},
        {"Natskv-Expires": "inf"},
        {"Natskv-Expires": "-1e300"},
        {"Natskv-Expires": "9e12"},
        {"Natskv-TTL": "60", "Natskv-Kept": "nan"},
        {"Natskv-TTL": "60", "Natskv-Kept": "1e300"},
        {"Natskv-TTL": "60", "Natskv-Kept": "whatever"},
        {"Natskv-Chunks": "a." + "1" * 5_000 + ".1"},
        {"Natskv-Chunks": "a" * 1_500 + ".1.1"},
        {"Natskv-Chunks": "x"},
        {"Natskv-Chunks": "a.99999999999999.1"},
        {"Natskv-Chunks": "a.0.0"},
        {"Natskv-Chunks": "a.1.1"},
        {"Natskv-Chunks": "../.1.1"},
        {"Natskv-Format": "pickle+rot13"},
        {"Natskv-Key": "==="},
    ],
    ids=lambda rubbish: str(rubbish)[:40],
)
@pytest.mark.parametrize("storage", ["memory", "file"])
def test_rubbish_from_others_is_a_miss_or_what_it_says(make_cache, stored, rubbish, storage):
    cache = make_cache(BUCKET={"storage": storage})
    cache.set("warm", 1)

    def plant() -> None:
        stored().put("_.1.k", b"5", headers=rubbish)

    plant()
    value = cache.get("k")
    assert value in (None, 5)
    found = value == 5
    assert cache.get_many(["k"]) == ({"k": 5} if found else {})
    assert cache.has_key("k") is found
    assert (cache.get_entry("k") is not None) is found
    assert (cache.ttl("k") != 0.0) is found
    cache.keys()
    assert cache.touch("k", 100) is found
    plant()
    assert cache.delete("k") is found
    plant()
    assert cache.set_many({"k": 7}, 10) == []
    plant()
    assert cache.add("k", 6) is not found
    plant()
    cache.set("k", 6, 1)
    assert cache.get("k") == 6


# ---------------------------------------------------------------------- processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_uses_the_cache_and_the_parent_too(natskv, bucket_name, program):
    code = (
        PROGRAM
        + """
cache.set("k", [1])
child = os.fork()
if not child:
    assert cache.get("k") == [1]
    assert cache.get_or_set("made", lambda: 5) == 5
    cache.set("child", 2)
    os._exit(0)
status = os.waitpid(child, 0)[1]
print(json.dumps([status, cache.get("k"), cache.get("child"), cache.get("made")]), flush=True)
"""
    )
    assert program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name).read() == [0, [1], 2, 5]


def test_closing_a_cache_leaves_the_connection(plain):
    plain.set("k", 1)
    made = connections["default"]._requests.generation
    plain.close()
    assert plain.get("k") == 1
    assert connections["default"]._requests.generation == made


async def test_what_takes_a_query_to_pickle_is_pickled_off_the_loop(
    plain, django_db_blocker, django_db_setup, transactional_db
):
    from django.contrib.auth.models import User  # noqa: PLC0415 - a model, which needs Django to be set up

    await User.objects.acreate(username="ann")
    await plain.aset("users", User.objects.all())
    assert [user.username for user in await plain.aget("users")] == ["ann"]
    await plain.aset("lazy", SimpleLazyObject(User.objects.get))
    assert (await plain.aget("lazy")).username == "ann"
