"""When a flow takes the server for silent, on a loop whose clock the test sets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from django_natskv.kv._nats.flow import HEARTBEAT, SILENCE, Flow, Interrupted


@pytest.fixture
def flow() -> Flow:
    client: Any = SimpleNamespace(
        submit=lambda _: None, forget=lambda _: None, driver=SimpleNamespace(mention=lambda _: None)
    )
    return Flow(client, "pull", "watching")


class Clock:
    """The time of the running loop, which it is let turn after each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        monkeypatch.setattr(loop, "time", lambda: self.now)

    async def go_on(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(4):
            await asyncio.sleep(0)


async def test_a_server_that_says_nothing_for_two_and_a_half_heartbeats_is_silent(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    waiting = asyncio.create_task(flow.next(60))
    await clock.go_on(0)
    flow.hear(())
    for _ in range(9):
        await clock.go_on(SILENCE / 10)
    assert not waiting.done()
    flow.hear(())  # a heartbeat
    for _ in range(9):
        await clock.go_on(SILENCE / 10)
    assert not waiting.done()
    for _ in range(4):
        await clock.go_on(SILENCE / 10)
    with pytest.raises(Interrupted, match="fell silent"):
        await waiting


async def test_time_in_which_the_process_stood_still_is_no_silence(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    waiting = asyncio.create_task(flow.next(3_600))
    await clock.go_on(0)
    flow.hear(())
    for _ in range(4):
        await clock.go_on(60)
        assert not waiting.done()
    await clock.go_on(60)
    with pytest.raises(Interrupted):
        await waiting


async def test_what_is_waited_for_no_longer_than_it_may_is_no_silence(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    waiting = asyncio.create_task(flow.next(HEARTBEAT))
    await clock.go_on(0)
    for _ in range(3):
        await clock.go_on(HEARTBEAT / 2)
    assert await waiting == []
