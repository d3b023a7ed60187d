"""That Django's tests are run on what this directory says: our cache, in that mode, on that face."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import CacheHandler, caches
from django.core.cache.backends.base import BaseCache

from django_natskv.cache import NatsKVCache
from tests.contract import test_backend
from tests.contract.faces import AWAITED, BACKENDS, MODES, InPlaceOfLocMem, bucket, in_place_of_locmem
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Iterator[str | None]:
    with in_place_of_locmem(request.param):
        yield request.param


def test_what_asks_for_locmem_gets_ours(mode: str | None, settings: Any):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    assert isinstance(caches["default"], InPlaceOfLocMem)
    assert caches["default"].local_cache == mode


def test_there_is_a_twin_of_all_that_waits():
    assert {"get", "set", "add", "delete", "incr", "get_or_set", "clear"} <= set(AWAITED)
    assert all(f"a{name}" in vars(BaseCache) for name in AWAITED)


@pytest.mark.parametrize("backend", ["new_loops", "one_loop"])
def test_an_awaited_face_runs_in_an_event_loop(backend: str, monkeypatch: pytest.MonkeyPatch):
    loops = []

    async def aset(self: NatsKVCache, *args: Any, **options: Any) -> None:
        loops.append(asyncio.get_running_loop())

    monkeypatch.setattr(NatsKVCache, "aset", aset)
    cache = CacheHandler({"default": {"BACKEND": BACKENDS[backend], "LOCATION": bucket("faces")}})["default"]
    cache.set("a", 1)
    cache.set("a", 2)
    assert len(loops) == 2
    assert (loops[0] is loops[1]) == (backend == "one_loop")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mode_is_on(mode: str | None, backend: str, nats_server: NatsServer):
    """What was read once is read again without a request, if and only if there is a local cache."""
    cache = CacheHandler(test_backend.caches(backend, mode))["default"]
    cache.set("a", 1)

    def asked() -> int:
        before = nats_server.ask("varz")["in_msgs"]
        assert [cache.get("a") for _ in range(50)] == [1] * 50
        return int(nats_server.ask("varz")["in_msgs"]) - before

    if mode is None:
        assert asked() >= 50
    else:
        eventually(lambda: asked() < 50, 30)  # a local cache takes some time to begin
    cache.clear()
