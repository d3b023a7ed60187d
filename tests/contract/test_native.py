"""That what is awaited is awaited to the bottom: no thread is hopped to, and the event loop is never blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.core.cache import CacheHandler

from django_natskv import kv
from tests.contract.faces import AWAITED, BACKENDS, MODES, bucket

CALLS: dict[str, tuple[Any, ...]] = {
    "get": ("a",),
    "set": ("a", [1]),
    "add": ("new", 1),
    "touch": ("a",),
    "delete": ("a",),
    "has_key": ("a",),
    "get_many": (["a", "count"],),
    "set_many": ({"a": 1, "b": 2},),
    "delete_many": (["a", "b"],),
    "incr": ("count",),
    "decr": ("count",),
    "incr_version": ("a",),
    "decr_version": ("a",),
    "get_or_set": ("new", lambda: 1),
    "clear": (),
    "close": (),
}


@pytest.fixture(params=MODES)
def cache(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A cache with a few keys, whose local cache, if it has one, has been told of them."""
    one = {"BACKEND": BACKENDS["plain"], "LOCATION": bucket(f"native-{request.param}")}
    made = CacheHandler({"default": {**one, "OPTIONS": {"LOCAL_CACHE": request.param}}})["default"]
    made.set_many({"a": 1, "count": 1})
    made.get_many(["a", "count"])
    yield made
    made.clear()


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("not in an event loop")


@pytest.mark.parametrize("name", AWAITED)
async def test_it_neither_blocks_nor_hops(name: str, cache: Any):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyncToAsync, "__call__", refuse)
        patch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        for facade in (kv.Bucket, kv.KVContext, kv.Connection):
            for plain in [plain for plain in dir(facade) if hasattr(facade, f"a{plain}")]:
                patch.setattr(facade, plain, refuse)
        await getattr(cache, f"a{name}")(*CALLS[name])
