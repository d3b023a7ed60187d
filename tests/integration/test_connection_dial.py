"""A line to a server, taken down."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from django_natskv.kv import ConnectionSettings
from django_natskv.kv._nats import servers
from django_natskv.kv._nats.dial import Dialled, dial
from tests.fix_proxy import MakeProxy
from tests.fix_servers import NatsServer


async def test_a_line_is_dropped_also_when_its_closing_is_cancelled(nats_server: NatsServer) -> None:
    """As it is when a connection ends that is being made: asyncio would warn of a line that is left open."""
    dialled = await dial(nats_server.url, ConnectionSettings(servers=(nats_server.url,)))
    writer = dialled._writer
    assert writer is not None
    closing = asyncio.create_task(dialled.close())
    await asyncio.sleep(0)
    closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    assert writer.transport.is_closing()


async def test_a_line_is_dropped_that_was_made_at_the_moment_at_which_the_loop_ends(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for it is cancelled, and again while it cleans up."""
    made: list[Dialled] = []

    async def dialling(*args: Any, **options: Any) -> Dialled:
        made.append(await dial(*args, **options))
        waiting.cancel()
        asyncio.get_running_loop().call_soon(waiting.cancel)
        return made[0]

    monkeypatch.setattr(servers, "dial", dialling)
    waiting = asyncio.create_task(servers.Servers().dial_any(ConnectionSettings(servers=(nats_server.url,))))
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    writer = made[0]._writer
    assert writer is not None
    assert writer.transport.is_closing()
    await made[0].close()


async def test_a_line_that_was_taken_is_dropped_when_the_loop_ends_while_the_others_are_given_up(
    nats_server: NatsServer, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = make_proxy(nats_server.url)
    silent.blackhole()
    made: list[Dialled] = []

    async def dialling(url: str, *args: Any, **options: Any) -> Dialled:
        try:
            made.append(await dial(url, *args, **options))
        except asyncio.CancelledError:
            waiting.cancel()
            raise
        return made[0]

    monkeypatch.setattr(servers, "dial", dialling)
    monkeypatch.setattr(servers.Servers, "_known", lambda *_: [(nats_server.url, ""), (silent.url, "")])
    waiting = asyncio.create_task(servers.Servers().dial_any(ConnectionSettings(servers=(nats_server.url,))))
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    writer = made[0]._writer
    assert writer is not None
    assert writer.transport.is_closing()
    await made[0].close()
