"""A line to a server, taken down."""

from __future__ import annotations

import asyncio
import contextlib

from django_natskv.kv import ConnectionSettings
from django_natskv.kv._nats.dial import dial
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
