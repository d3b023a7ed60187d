"""What readers of a local cache wait for before there is something to read."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from django_natskv.kv._feed import Gate


async def test_those_who_wait_are_let_through_together_and_those_who_come_later_at_once() -> None:
    gate = Gate()
    waiting = [asyncio.create_task(gate.await_open(60)) for _ in range(3)]
    blocked: list[bool] = []
    thread = threading.Thread(target=lambda: blocked.append(gate.wait_open(60)))
    thread.start()
    await asyncio.sleep(0)
    gate.open()
    gate.open()
    assert await asyncio.gather(*waiting) == [True] * 3
    thread.join(50)
    assert blocked == [True]
    assert await gate.await_open(0)
    assert gate.wait_open(0)


async def test_whoever_has_given_up_is_held_and_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    given_up = asyncio.create_task(gate.await_open(60))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    for timeout in (0, -1, 0.001):
        assert not await gate.await_open(timeout)
    told: list[Any] = []
    monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", told.append)
    gate.open()
    assert told == []


def test_who_waited_on_a_loop_that_is_closed_keeps_nobody_from_being_told() -> None:
    gate = Gate()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(gate.await_open(60))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    gate.open()
    assert gate.is_open
    assert not waiting.done()
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # as it is meant to be here
    waiting.get_coro().close()
