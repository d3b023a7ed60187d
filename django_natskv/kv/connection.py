"""Connection: from settings to the KV context.

Owns the composition of client, runner and context for one server or cluster. Knows nothing of Django: the settings are
given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from django_natskv.kv._nats.client import Client
from django_natskv.kv.context import KVContext
from django_natskv.kv.driver import Runner
from django_natskv.kv.settings import ConnectionSettings

Resolve = Callable[[ConnectionSettings], ConnectionSettings]


class Connection:
    """One connection, to one server or cluster.

    Nothing connects before the first request. Safe to use from any thread, from any number of event loops, and in
    forked children, each of which connects for itself. ``resolve`` is called, off the event loops, before each round
    of attempts, and returns the settings to use in it: for a server whose address is not known beforehand.
    """

    def __init__(self, settings: ConnectionSettings, *, resolve: Resolve | None = None) -> None:
        self.settings = settings
        self._resolve = resolve
        self._client = Client(settings, resolve=resolve)
        self._runner = Runner(self._client.driver, settings.request_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.name or ', '.join(self.settings.servers)}: {self.status}>"

    @property
    def status(self) -> str:
        """Where the connection stands now: "idle", "connecting", "connected", "disconnected" or "closed"."""
        return self._client.state.value

    def kv(self) -> KVContext:
        """Return the KV context, having made sure by a round trip that JetStream is there.

        Raises ``JetStreamNotEnabled``, ``ConnectFailed``, ``AuthInvalid``, ``NotConnected``, ``OperationTimedOut``.
        """
        if self._resolve is not None:
            # Finding, or starting, a server may take longer than a request may: that time is not the request's.
            self._resolve(self.settings)
        context = KVContext(self._client, self._runner)
        self._runner.call(context.verify())
        return context

    async def akv(self) -> KVContext:
        """See kv()."""
        if self._resolve is not None:
            await asyncio.to_thread(self._resolve, self.settings)
        context = KVContext(self._client, self._runner)
        await self._runner.acall(context.verify())
        return context

    def close(self) -> None:
        """Close the connection and end its thread. Requests in flight fail; the next use connects anew."""
        self._client.close()
