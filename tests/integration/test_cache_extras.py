"""What a cache has beyond Django's: times, keys by pattern, entries and compare-and-set."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from django_natskv.cache import extras
from django_natskv.cache.store import Store

WILD = [
    "a b",
    "a*",
    "a>",
    "a.b",
    "a..b",
    ".",
    "ä",
    "\x00",
    "x" * 500,
    "",
    "_",
    "user.7.name",
    "user.7.age",
    "user.8.name",
]


def passed(cache: Any, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have it be so many seconds, exactly, since the server has taken what is under "k"."""
    now = cache.get_entry("k").created.timestamp() + seconds
    monkeypatch.setattr(cache.plain._place.clock, "now", lambda: now)


def test_ttl_tells_the_seconds_that_are_left(cache, monkeypatch):
    cache.set("k", 1, 20.5)
    passed(cache, monkeypatch, 5)
    assert cache.ttl("k") == pytest.approx(15.5)
    cache.set("k", 1, None)
    assert cache.ttl("k") is None
    assert cache.ttl("missing") == 0.0


def test_expire_and_persist_change_the_time_and_leave_the_value(cache, monkeypatch):
    cache.set("k", [1], None)
    assert cache.expire("k", 30)
    passed(cache, monkeypatch, 0)
    assert cache.ttl("k") == pytest.approx(30)
    monkeypatch.undo()
    assert cache.persist("k")
    assert cache.ttl("k") is None
    assert cache.get("k") == [1]
    assert not cache.persist("missing")
    assert not cache.expire("missing", 5)
    assert cache.expire("k", 0)
    assert cache.get("k") is None


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
@pytest.mark.parametrize("prefix", ["", "shop", "a.b*"])
def test_keys_finds_any_key_by_a_pattern(make_cache, prefix):
    cache = make_cache(KEY_PREFIX=prefix)
    cache.set_many(dict.fromkeys(WILD, 1))
    cache.set("large", "x" * 600_000)
    cache.set("other version", 1, version=2)
    make_cache(KEY_PREFIX="elsewhere").set("foreign", 1)
    with cache.plain.lock("held"):
        assert sorted(cache.keys()) == sorted([*WILD, "large"])
    assert sorted(cache.keys("user.7.*")) == ["user.7.age", "user.7.name"]
    assert cache.keys("xxx*") == ["x" * 500]
    assert cache.keys("a[*]") == ["a*"]
    assert sorted(cache.keys("a?b")) == ["a b", "a.b"]
    assert cache.keys("nothing*") == []
    assert cache.keys(version=2) == ["other version"]


def test_keys_can_be_iterated_on_both_faces(cache):
    cache.set_many({"a": 1, "b": 2})
    plain = cache.plain

    async def awaited():
        return [key async for key in plain.aiter_keys("*")]

    assert sorted(plain.iter_keys()) == sorted(asyncio.run(awaited())) == ["a", "b"]


def test_keys_that_are_iterated_over_are_read_as_the_iteration_comes_to_them(cache, monkeypatch):
    monkeypatch.setattr(extras, "AT_ONCE", 2)
    wanted = [f"{number}" * 230 for number in range(7)]  # too long for a name: they are kept beside the value
    cache.set_many(dict.fromkeys(wanted, 1))
    read: list[int] = []
    find_many = Store.find_many

    def noting(store: Store, stored: Any) -> Any:
        read.append(len(list(stored)))
        return find_many(store, stored)

    monkeypatch.setattr(Store, "find_many", noting)
    plain = cache.plain

    async def begin() -> tuple[str, list[int], list[str]]:
        found = plain.aiter_keys()
        return await anext(found), list(read), [key async for key in found]

    found = plain.iter_keys()
    assert read == []
    first = next(found)
    assert read == [2]
    assert sorted([first, *found]) == wanted
    assert read == [2, 2, 2, 1]
    read.clear()
    first, before, rest = asyncio.run(begin())
    assert before == [2]
    assert sorted([first, *rest]) == wanted


def test_delete_pattern_removes_what_matches_and_tells_how_many(cache):
    cache.set_many({"user.1": 1, "user.2": 2, "shop": 3})
    assert cache.delete_pattern("user.*") == 2
    assert cache.keys() == ["shop"]
    assert cache.delete_pattern("user.*") == 0


def test_a_key_function_of_the_projects_own_is_listed_by_what_it_made(make_cache):
    cache = make_cache(KEY_PREFIX="p", KEY_FUNCTION=lambda key, prefix, version: f"{version}/{key}")
    cache.set("k", 1)
    assert cache.get("k") == 1
    assert cache.keys("1/*") == ["1/k"]


def test_an_entry_has_value_revision_and_times(cache):
    cache.set("k", {"a": 1}, 60)
    entry = cache.get_entry("k")
    assert (entry.key, entry.value) == ("k", {"a": 1})
    assert entry.expires - entry.created == timedelta(seconds=60)
    cache.set("k", 1, None)
    assert cache.get_entry("k").revision > entry.revision
    assert cache.get_entry("k").expires is None
    assert cache.get_entry("missing") is None


def test_compare_and_set_writes_only_over_the_revision_that_was_read(cache):
    cache.set("k", 1, 60)
    read = cache.get_entry("k")
    revision = cache.compare_and_set("k", 2, read.revision)
    assert revision == cache.get_entry("k").revision > read.revision
    assert cache.get_entry("k").expires == read.expires
    assert cache.compare_and_set("k", 3, read.revision) is None
    assert cache.get("k") == 2
    assert cache.compare_and_set("k", 4, revision, timeout=None)
    assert cache.ttl("k") is None
    assert cache.compare_and_set("missing", 1, revision) is None
