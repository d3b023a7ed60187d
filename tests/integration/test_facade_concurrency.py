"""Many at once: threads, event loops, both faces side by side; and nothing left behind by any call."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from django_natskv import kv
from django_natskv.exceptions import InvalidKey, WrongRevision
from tests.fix_waiting import aeventually, eventually


def use(bucket, number):
    """Do every operation under keys of one's own, and check each result."""
    key = f"t.{number}"
    first = bucket.put(key, number)
    assert bucket.get(key).value == number
    second = bucket.update(key, [number], first)
    with pytest.raises(WrongRevision):
        bucket.create(key, 1)
    assert [entry.value for entry in bucket.history(key)] == [number, [number]]
    assert bucket.get(key, revision=first).value == number
    assert bucket.get_many([key, f"{key}.absent"])[key].revision == second
    assert bucket.keys(f"t.{number}") == [key]
    bucket.delete(key, revision=second)
    assert bucket.create(key, None)
    bucket.purge(key)
    assert bucket.get(key) is None
    third, fourth = bucket.write_many([kv.Change.put(f"{key}.a", 1), kv.Change.create(f"{key}.b", 2)])
    assert [entry.revision for entry in bucket.entries(f"{key}.*")] == sorted([third, fourth])
    seen: list[kv.Entry] = []
    watch = bucket.watch(seen.append, keys=f"{key}.*")
    watch.initialized.result(30)
    watch.stop()
    assert sorted(entry.key for entry in seen) == [f"{key}.a", f"{key}.b"]
    assert bucket.erase(f"{key}.*") == 2
    assert bucket.keys(f"{key}.*") == []
    bucket.purge_deletes()
    assert bucket.history(key) == []
    assert bucket.server_time().utcoffset() == timedelta(0)


async def ause(bucket, number):
    """See use()."""
    key = f"t.{number}"
    first = await bucket.aput(key, number)
    assert (await bucket.aget(key)).value == number
    second = await bucket.aupdate(key, [number], first)
    with pytest.raises(WrongRevision):
        await bucket.acreate(key, 1)
    assert [entry.value for entry in await bucket.ahistory(key)] == [number, [number]]
    assert (await bucket.aget(key, revision=first)).value == number
    assert (await bucket.aget_many([key, f"{key}.absent"]))[key].revision == second
    assert await bucket.akeys(f"t.{number}") == [key]
    await bucket.adelete(key, revision=second)
    assert await bucket.acreate(key, None)
    await bucket.apurge(key)
    assert await bucket.aget(key) is None
    third, fourth = await bucket.awrite_many([kv.Change.put(f"{key}.a", 1), kv.Change.create(f"{key}.b", 2)])
    assert [entry.revision async for entry in bucket.aentries(f"{key}.*")] == sorted([third, fourth])
    seen: list[kv.Entry] = []
    watch = await bucket.awatch(seen.append, keys=f"{key}.*")
    await asyncio.wrap_future(watch.initialized)
    watch.stop()
    assert sorted(entry.key for entry in seen) == [f"{key}.a", f"{key}.b"]
    assert await bucket.aerase(f"{key}.*") == 2
    assert await bucket.akeys(f"{key}.*") == []
    await bucket.apurge_deletes()
    assert await bucket.ahistory(key) == []
    assert (await bucket.aserver_time()).utcoffset() == timedelta(0)


def test_every_operation_is_among_them():
    twins = [name for name in vars(kv.Bucket) if f"a{name}" in vars(kv.Bucket)]
    assert len(twins) > 10
    assert [name for name in twins if f"bucket.{name}(" not in inspect.getsource(use)] == []
    assert [name for name in twins if f"bucket.a{name}(" not in inspect.getsource(ause)] == []


@pytest.fixture
def others():
    """The threads of other tests, which may take a while to end: what is asked for first, before any of one's own."""
    return set(threading.enumerate())


@pytest.fixture
def context(others, face, connect_kv):
    """A hundred tasks and threads at once may have to wait long for their turn."""
    return face.wrap(connect_kv(request_timeout=30.0)).kv()


@pytest.fixture
def plain(make_bucket):
    """A bucket as a user has it."""
    return make_bucket(history=8).plain


@pytest.fixture
def face(request):
    """The plain face alone: these tests use both by themselves."""
    from tests.fix_facade import Face  # noqa: PLC0415

    with asyncio.Runner() as runner:
        yield Face("plain", runner)


@pytest.mark.parametrize("threads", [1, 32])
def test_threads(plain, threads):
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: use(plain, number), range(threads * 4)))


def test_a_hundred_tasks_on_one_loop(plain):
    async def main():
        await asyncio.gather(*(ause(plain, number) for number in range(100)))

    asyncio.run(main())


def test_several_loops_at_once_and_threads_beside_them(plain):
    async def main(start):
        await asyncio.gather(*(ause(plain, number) for number in range(start, start + 10)))

    with ThreadPoolExecutor(8) as pool:
        loops = [pool.submit(asyncio.run, main(1_000 * number)) for number in range(1, 5)]
        blocking = [pool.submit(use, plain, number) for number in range(40)]
        for future in loops + blocking:
            future.result()


def test_one_loop_after_another(plain):
    for number in range(5):
        asyncio.run(ause(plain, 2 * number))
        use(plain, 2 * number + 1)


def test_a_blocking_call_inside_a_running_loop(plain):
    async def main():
        await plain.aput("a", 1)
        assert plain.get("a").value == 1
        plain.put("a", 2)
        assert (await plain.aget("a")).value == 2
        await asyncio.gather(ause(plain, 1), asyncio.to_thread(use, plain, 2))
        use(plain, 3)

    asyncio.run(main())


def test_of_many_that_update_at_once_each_wins_its_turn(plain):
    plain.put("counter", 0)

    def increment(_):
        while True:
            entry = plain.get("counter")
            try:
                return plain.update("counter", entry.value + 1, entry.revision)
            except WrongRevision:
                continue

    with ThreadPoolExecutor(8) as pool:
        revisions = list(pool.map(increment, range(100)))
    assert len(set(revisions)) == 100
    assert plain.get("counter").value == 100


def test_revisions_rise_in_each_thread(plain):
    def write(number):
        return [plain.put(f"k.{number}", turn) for turn in range(50)]

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(8)))
    for revisions in written:
        assert revisions == sorted(revisions)
    assert len({revision for revisions in written for revision in revisions}) == 400


def test_a_task_that_is_cancelled_leaves_the_others_alone(plain):
    async def main():
        tasks = [asyncio.create_task(ause(plain, number)) for number in range(20)]
        victims = [asyncio.create_task(plain.akeys()) for _ in range(20)]
        victims += [asyncio.create_task(plain.aput(f"victim.{number}", 1)) for number in range(20)]
        await asyncio.sleep(0)
        for victim in victims:
            victim.cancel()
        outcomes = await asyncio.gather(*victims, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        await asyncio.gather(*tasks)

    asyncio.run(main())


# ---------------------------------------------------------------------- leftovers


def counts(nats_server, plain, others):
    ours = [thread.name for thread in threading.enumerate() if thread not in others]
    name = plain._core.wire.client.settings.name
    return {
        "consumers": nats_server.consumers(f"KV_{plain.name}"),
        "subscriptions": len(nats_server.subscriptions(name)),
        "connections": len(nats_server.connections(name)),
        "threads": sorted(thread for thread in ours if thread.startswith("natskv")),
        "in flight": len(plain._core.wire.client._in_flight),
        "waiting": len(plain._core.wire.client._waiting),
    }


def counts_at_rest(nats_server, plain, others):
    """Use it once, both connections included, and return the counts when nothing is under way any more."""
    use(plain, 0)
    watching = f"natskv-watch-{plain.name}"
    eventually(lambda: all(thread.name != watching for thread in threading.enumerate()))
    eventually(lambda: nats_server.consumers(f"KV_{plain.name}") == [])
    return counts(nats_server, plain, others)


def same(found, expected):
    assert found == expected
    return True


def mixed(bucket, number):
    """Do ten calls, of which two fail."""
    key = f"m.{number % 50}"
    bucket.put(key, number)
    bucket.get(key)
    bucket.keys("m.*")
    bucket.history(key)
    bucket.get_many([key, "absent"])
    with pytest.raises(WrongRevision):
        bucket.create(key, 1)
    with pytest.raises(InvalidKey):
        bucket.get("no key")
    bucket.delete(key)
    bucket.keys()
    if number % 10 == 0:
        bucket.write_many([kv.Change.put(key, 1), kv.Change.put(f"{key}.more", 1)])
        next(bucket.entries("m.>"))  # and no more of them
        bucket.watch(print, keys="none").stop()
        bucket.erase("m.*.more")
        bucket.purge_deletes()
    else:
        bucket.purge(key)


async def amixed(bucket, number):
    """See mixed()."""
    key = f"a.{number % 50}"
    await bucket.aput(key, number)
    await bucket.aget(key)
    await bucket.akeys(["a.*", "m.*"])
    await bucket.ahistory(key)
    await bucket.aget_many([key, "absent"])
    with pytest.raises(WrongRevision):
        await bucket.acreate(key, 1)
    with pytest.raises(InvalidKey):
        await bucket.aget("no key")
    await bucket.adelete(key)
    await bucket.akeys()
    if number % 10 == 0:
        await bucket.awrite_many([kv.Change.put(key, 1), kv.Change.put(f"{key}.more", 1)])
        half = bucket.aentries("a.>")
        await anext(half)
        await half.aclose()
        (await bucket.awatch(print, keys="none")).stop()
        await bucket.aerase("a.*.more")
        await bucket.apurge_deletes()
    else:
        await bucket.apurge(key)


def test_two_thousand_calls_leave_nothing_behind(plain, nats_server, context, others):
    before = counts_at_rest(nats_server, plain, others)
    for number in range(100):
        mixed(plain, number)
    for _ in range(5):
        context.plain.bucket_status(plain.name)

    async def main():
        for number in range(100):
            await amixed(plain, number)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(main()) == set()
    eventually(lambda: same(counts(nats_server, plain, others), before), 30)


def test_calls_that_are_given_up_leave_nothing_behind(plain, nats_server, others):
    before = counts_at_rest(nats_server, plain, others)

    async def main():
        for turns in range(60):
            tasks = [asyncio.create_task(plain.akeys()), asyncio.create_task(plain.apurge_deletes())]
            tasks.append(asyncio.create_task(plain.ahistory("a")))
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await aeventually(lambda: same(counts(nats_server, plain, others), before), 30)

    asyncio.run(main())
    gc.collect()
