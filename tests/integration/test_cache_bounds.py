"""MAX_ENTRIES: no operation leaves more than that, the oldest go first, and failures are told all the same."""

from __future__ import annotations

import os
from typing import Any

import pytest

from django_natskv.exceptions import ValueTooLarge
from tests.fix_cache import MakeCache

MOST = 30


@pytest.fixture
def bounded(make_cache: MakeCache) -> Any:
    return make_cache(MAX_ENTRIES=MOST)


def test_the_oldest_make_room(bounded):
    for number in range(MOST + 1):
        bounded.set(f"k{number}", number)
    assert len(bounded.keys()) == 21
    assert bounded.get_many(["k0", "k9"]) == {}
    assert bounded.get_many(["k10", "k30"]) == {"k10": 10, "k30": 30}


def test_what_is_written_over_needs_no_room(bounded):
    for number in range(MOST):
        bounded.set(f"k{number}", number)
    for number in range(MOST):
        bounded.set(f"k{number}", -number)
    assert len(bounded.keys()) == MOST


@pytest.mark.parametrize("operation", ["add", "get_or_set", "set_many", "set_many_at_once"])
def test_whatever_writes_keeps_within_the_bound(bounded, operation):
    values = {f"k{number}": number for number in range(2 * MOST + 5)}
    if operation == "set_many_at_once":
        assert bounded.set_many(values) == []
    else:
        for key, value in values.items():
            assert bounded.add(key, value) if operation == "add" else True
            if operation == "get_or_set":
                assert bounded.get_or_set(key, lambda value=value: value) == value
            if operation == "set_many":
                assert bounded.set_many({key: value}) == []
    assert 0 < len(bounded.keys()) <= MOST
    assert bounded.get(f"k{2 * MOST + 4}") == 2 * MOST + 4


def test_without_a_bound_there_is_none(cache):
    """Django's own caches keep 300 entries then."""
    values = {f"k{number}": number for number in range(700)}
    assert cache.set_many(values) == []
    cache.set("one-more", 1, version=2)
    assert cache.get_many(values) == values


def test_another_process_has_filled_it(make_cache):
    other = make_cache(KEY_PREFIX="")
    other.set_many({f"k{number}": number for number in range(MOST + 5)})
    bounded = make_cache(MAX_ENTRIES=MOST)
    bounded.set("new", 1)
    assert len(bounded.keys()) <= MOST
    assert bounded.get("new") == 1


def test_keys_that_failed_are_told_here_too(make_cache):
    bounded = make_cache(MAX_ENTRIES=MOST, BUCKET={"max_bucket_size": 20_000, "discard": "new"})
    values = {f"k{number}": "x" * 5_000 for number in range(10)}
    failed = bounded.set_many(values)
    assert failed
    assert set(bounded.get_many(values)) == set(values) - set(failed)


def test_a_value_that_has_no_room_in_the_bucket_leaves_what_is_there(make_cache):
    cache = make_cache(BUCKET={"max_bucket_size": 600_000})
    cache.set("small", 1)
    with pytest.raises(ValueTooLarge, match="max_bucket_size"):
        cache.set("large", os.urandom(1_000_000))
    assert cache.set_many({"large": os.urandom(1_000_000), "other": 2}) == ["large"]
    assert cache.get_many(["small", "large", "other"]) == {"small": 1, "other": 2}
