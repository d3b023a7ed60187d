"""A copy that lacks what was written is not called live for longer than it may be, whatever holds it up."""

from __future__ import annotations

import asyncio

import pytest

from django_natskv.kv import _session
from tests.fix_local import live
from tests.fix_waiting import eventually


@pytest.fixture
def bucket(connect_kv, bucket_name):
    return connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory", "history": 2})


@pytest.mark.parametrize("mode", ["mirror", "invalidate"])
def test_while_a_look_at_the_bucket_is_held_up_a_copy_is_live_for_three_seconds_at_most(
    bucket, connect_kv, monkeypatch, mode
):
    """A leader may hang, and answer no look at the bucket, while another server goes on delivering."""
    cache = live(connect_kv().local_cache(bucket.name, mode=mode))
    whole = _session.Session._look
    held_up: list[asyncio.Future[None]] = []

    async def look(self):
        held_up.append(asyncio.get_running_loop().create_future())
        await held_up[-1]
        return await whole(self)

    monkeypatch.setattr(_session.Session, "_look", look)
    eventually(lambda: held_up)
    bucket.put("a", 1)
    eventually(lambda: cache.status().state == "stale", 4.5)
    assert cache.status().age > 2
    monkeypatch.undo()
    for each in held_up:
        each.get_loop().call_soon_threadsafe(each.set_result, None)
    live(cache, 5)
    assert cache.value("a") == 1
