"""What a cache promises beyond Django's own tests: counters, many keys, clear, forks."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject

from django_natskv.cache import NatsKVCache
from django_natskv.connections import connections
from django_natskv.kv import Bucket, Change
from tests.fix_cache import PROGRAM
from tests.fix_waiting import eventually


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


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
    eventually(lambda: not cache.has_key("k"), 30)
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
        start.wait(30)
        added.append(plain.add("k", 1))
        start.wait(30)
        deleted.append(plain.delete("k"))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == sorted(deleted) == [False] * 7 + [True]


# ---------------------------------------------------------------------- what cannot be stored


def test_what_does_not_pickle_raises_and_nothing_is_written(cache, stored):
    cache.set("there", 1)
    cannot = threading.Lock()
    for write in (cache.set, cache.add, cache.get_or_set, lambda key, value: cache.set_many({"other": 1, key: value})):
        with pytest.raises(TypeError, match="pickle"):
            write("k", cannot)
    with pytest.raises(TypeError, match="pickle"):
        cache.compare_and_set("there", cannot, cache.get_entry("there").revision)
    assert cache.get("there") == 1
    assert stored().keys() == ["_.1.there"]


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


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_what_was_cleared_takes_no_space(make_cache, stored, storage):
    shop, other = (make_cache(KEY_PREFIX=prefix, BUCKET={"storage": storage}) for prefix in ("shop", "other"))
    for each in (shop, other):
        each.set_many({"k": 1, "l": 2, "large": os.urandom(600_000)})
    shop.clear()
    assert stored().keys(["shop.>", "==chunk.shop.>"]) == ["shop.==clear"]
    assert len(other.get_many(["k", "l", "large"])) == 3


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
