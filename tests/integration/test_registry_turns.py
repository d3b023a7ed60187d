"""Turns: who of one process is next to change an object that several want to change."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from django_natskv import registry
from django_natskv.registry import _queues
from django_natskv.registry._steps import Step, run
from tests.fix_interrupts import interrupted_at
from tests.fix_registry import set_to
from tests.fix_waiting import aeventually
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
        if not cfg.banner:  # waits for another thread, which waits for its turn
            with ThreadPoolExecutor(1) as pool:
                pool.submit(ShopConfig.objects.update, set_to(banner="inner")).result(30)
        cfg.limit = 3

    do(ShopConfig.objects.update, change)
    assert shelf.read(KEY) == {"banner": "inner", "limit": 3}
    assert not _queues._queues


def test_who_has_the_turn_does_not_wait_for_itself(shelf, monkeypatch, do):
    waits = []

    def noting(real):
        def noted(turn):
            waits.append(turn)
            return real(turn)

        return noted

    for name in ("_wait", "_await"):
        monkeypatch.setattr(_queues, name, noting(getattr(_queues, name)))

    def stamp(sender, instance, **_):
        if instance.banner != "stamped":
            ShopConfig.objects.update(set_to(banner="stamped"))

    registry.post_save.connect(stamp, sender=ShopConfig)
    try:
        do(ShopConfig.objects.update, set_to(limit=3))
    finally:
        registry.post_save.disconnect(stamp, sender=ShopConfig)
    assert shelf.read(KEY) == {"banner": "stamped", "limit": 3}
    assert (waits, _queues._queues) == ([], {})


async def test_a_task_that_outlives_the_turn_it_was_begun_in_waits_again(shelf):
    begun, over = [], asyncio.Event()
    entered, release = asyncio.Event(), asyncio.Event()

    async def later():
        await over.wait()
        await ShopConfig.objects.aupdate(set_to(banner="later"))

    async def change(cfg):
        begun.append(asyncio.create_task(later()))
        cfg.limit = 3

    async def slow(cfg):
        entered.set()
        await release.wait()
        cfg.limit = 4

    await ShopConfig.objects.aupdate(change)
    other = asyncio.create_task(ShopConfig.objects.aupdate(slow))
    await entered.wait()
    over.set()
    await aeventually(lambda: any(len(queue) == 2 for queue in _queues._queues.values()))
    release.set()
    await asyncio.gather(other, *begun)
    assert shelf.read(KEY) == {"banner": "later", "limit": 4}


def test_wherever_who_has_a_turn_is_interrupted_it_is_over():
    def operation():
        yield Step(lambda: None, lambda: None)

    moments = 0
    while interrupted_at(moments + 1, lambda: run(_queues.in_turn("k", operation())), _queues):
        moments += 1
        assert _queues._queues == {}
        assert not _queues._lock.locked()
    assert moments > 5


def test_threads_take_turns(shelf):
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(ShopConfig.objects.update, lambda cfg: cfg.tags.append(1)) for _ in range(100)]:
            done.result(30)
    assert len(shelf.read(KEY)["tags"]) == 100
    assert shelf.bucket.get(KEY).revision == 100  # nobody lost a race
    assert not _queues._queues


def test_a_forked_child_begins_with_empty_queues():
    _queues._enter("somebody of the parent", Future())
    before = _queues._lock
    with before:  # by a thread that the child does not have
        _queues._forked()
        assert not _queues._queues
        assert _queues._lock is not before
