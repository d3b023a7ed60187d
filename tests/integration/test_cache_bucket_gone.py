"""A bucket that is deleted under a cache is made anew by whatever is done next, and is empty."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_natskv.connections import connections
from tests.fix_cache import MakeCache
from tests.fix_waiting import eventually

LARGE = os.urandom(1_200_000)


def locked(cache: Any) -> bool:
    lock = cache.plain.lock("l")
    assert lock.acquire(blocking=False)
    lock.release()
    return True


NEXT: dict[str, Callable[[Any], Any]] = {
    "get": lambda cache: eventually(lambda: cache.get("k") is None),
    "get_many": lambda cache: eventually(lambda: cache.get_many(["k"]) == {}),
    "set": lambda cache: cache.set("l", [2]) or cache.get("l") == [2],
    "add": lambda cache: cache.add("k", 2) and cache.get("k") == 2,
    "touch": lambda cache: not cache.touch("k"),
    "delete": lambda cache: not cache.delete("k"),
    "delete_many": lambda cache: cache.delete_many(["k"]) is None,
    "set_many": lambda cache: cache.set_many({"k": 3, "l": 4}) == [] and cache.get_many(["k", "l"]) == {"k": 3, "l": 4},
    "clear": lambda cache: cache.clear() is None,
    "keys": lambda cache: cache.keys() == [],
    "lock": locked,
    "large": lambda cache: cache.set("l", LARGE) or cache.get("l") == LARGE,
}


@pytest.mark.parametrize("mode", [None, "mirror", "invalidate"])
@pytest.mark.parametrize("operation", NEXT)
def test_a_bucket_that_is_gone_is_made_anew(make_cache: MakeCache, bucket_name: str, operation: str, mode: str | None):
    cache = make_cache(LOCAL_CACHE=mode)
    cache.set("k", 1)
    assert cache.get("k") == 1
    connections["default"].kv().delete_bucket(bucket_name)
    assert NEXT[operation](cache)
    cache.set("after", 1)
    assert cache.get("after") == 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("mode", ["mirror", "invalidate"])
def test_what_is_written_to_the_new_bucket_is_read_though_the_watch_has_not_heard_of_it(
    make_cache: MakeCache, bucket_name: str, mode: str, several: bool
):
    """The old bucket's revisions are as high as those of the new one, or higher."""
    cache = make_cache(LOCAL_CACHE=mode)
    plain = cache.plain
    name = plain._name("k", None)
    cache.set("k", 1)
    eventually(lambda: cache.get("k") == 1 and plain._held(name) == 1, 30)
    may_go, connection = threading.Event(), connections["default"]

    def hold_up() -> None:
        may_go.wait(20)

    connection._watches.driver.post(hold_up)
    try:
        connection.kv().delete_bucket(bucket_name)
        assert cache.set_many({"k": 2}) == [] if several else cache.add("k", 2)
        assert cache.get("k") == 2
    finally:
        may_go.set()
    eventually(lambda: cache.get("k") == 2 and plain._held(name) == 2, 30)  # and there is a local copy again
