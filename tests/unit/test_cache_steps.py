"""What happens once, and wakes the threads and tasks that wait for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django_natskv.cache.steps import Done
from tests.fix_waiting import aeventually, eventually


def test_a_thread_waits_until_it_has_happened_or_for_long_enough():
    done = Done()
    assert not done.block(0.01)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(done.block, None) for _ in range(2)]
        eventually(lambda: len(done._waiters) == 2, 30)
        done.happen()
        assert [each.result(30) for each in waiting] == [True, True]
    assert done.block(None)
    assert done._waiters == []


async def test_tasks_wait_until_it_has_happened_and_one_that_is_cancelled_takes_no_other_along():
    done = Done()
    waiting = [asyncio.create_task(done.wait()) for _ in range(3)]
    await aeventually(lambda: len(done._waiters) == 3, 30)
    waiting[0].cancel()
    done.happen()
    done.happen()
    assert await asyncio.gather(*waiting[1:]) == [None, None]
    assert waiting[0].cancelled()
    await done.wait()
    assert done._waiters == []


def test_a_task_whose_loop_is_closed_is_not_woken():
    done = Done()
    loop = asyncio.new_event_loop()
    task = loop.create_task(done.wait())
    loop.run_until_complete(asyncio.sleep(0))
    [wake] = done._waiters
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    done._waiters.append(wake)
    done.happen()
    assert done.has_happened
