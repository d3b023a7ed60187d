"""Turns: who of one process is next to change an object that several want to change."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django_natskv.registry import _queues
from tests.fix_registry import set_to
from tests.registry_classes import ShopConfig

KEY = "shop.ShopConfig"


async def test_who_is_cancelled_while_it_waits_holds_up_nobody(shelf):
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(cfg):
        entered.set()
        await release.wait()
        cfg.limit += 1

    def add(cfg):
        cfg.limit += 1

    first = asyncio.create_task(ShopConfig.objects.aupdate(slow))
    await entered.wait()
    others = [asyncio.create_task(ShopConfig.objects.aupdate(add)) for _ in range(3)]
    await asyncio.sleep(0)
    others[0].cancel()
    others[2].cancel()
    await asyncio.wait([others[0], others[2]])
    assert not others[1].done()
    ShopConfig.objects.update(set_to(banner="at once"))  # a blocking call on this loop cannot wait for its tasks
    release.set()
    await asyncio.gather(first, others[1])
    cfg = ShopConfig.objects.strong()
    assert ((await cfg.aget()).limit, (await cfg.aget()).banner) == (12, "at once")
    assert not _queues._queues


def test_a_turn_that_never_ends_is_not_waited_for_for_ever(shelf, monkeypatch, do):
    monkeypatch.setattr(_queues, "LONGEST_WAIT", 0.05)

    def change(cfg):
        if not cfg.banner:
            ShopConfig.objects.update(set_to(banner="inner"))  # waits for itself
        cfg.limit = 3

    do(ShopConfig.objects.update, change)
    assert shelf.read(KEY) == {"banner": "inner", "limit": 3}
    assert not _queues._queues


def test_threads_take_turns(shelf):
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(ShopConfig.objects.update, lambda cfg: cfg.tags.append(1)) for _ in range(100)]:
            done.result(30)
    assert len(shelf.read(KEY)["tags"]) == 100
    assert shelf.bucket.get(KEY).revision == 100  # nobody lost a race
    assert not _queues._queues


def test_a_forked_child_begins_with_empty_queues():
    _queues._enter("somebody of the parent")
    before = _queues._lock
    with before:  # by a thread that the child does not have
        _queues._forked()
        assert not _queues._queues
        assert _queues._lock is not before
