"""A nats-py client with a shorter way in and out.

Owns two hooks into nats-py that save time, and nothing else: a release of nats-py that no longer calls them is slower
and just as right (ADR 0011). Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nats.aio.client import Client as NatsClient

from django_natskv.kv._nats.messages import parse_headers


class Message:
    """What arrived: as nats-py's own message, but for what nobody here reads."""

    __slots__ = ("data", "headers", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers = headers


class LeanClient(NatsClient):
    """Writes at the end of a turn of the loop instead of by a task, and hands messages to sinks directly."""

    corked = False  # while True, what is published waits for ``uncork``, to go out in one write

    def uncork(self) -> None:
        """Write what was published since ``corked`` was set."""
        self.corked = False
        if self._pending_data_size > 0 and self.is_connected and self._transport is not None:
            pending, self._pending = self._pending, []
            self._pending_data_size = 0
            # A line that has just broken: nats-py's read loop notices, and what is in flight fails with it.
            with contextlib.suppress(OSError, RuntimeError, AttributeError):
                self._transport.writelines(pending)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if not self.corked or force_flush:
            return await super()._flush_pending(force_flush)
        return None

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        subscription = self._subs.get(sid)
        sink: asyncio.Future[Any] | None = getattr(subscription, "_future", None)
        if sink is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            # "replace": anybody may write under a key that is no text, and what raises here ends the read loop (F8).
            name = subject.decode("utf-8", "replace")
            sink.set_result(Message(name, reply.decode("utf-8", "replace"), data, parse_headers(headers)))
