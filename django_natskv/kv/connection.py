"""Connection: from settings to the KV context.

Owns the composition of client, runner and context for one server or cluster. Knows nothing of Django: the settings are
given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from django_natskv.kv._nats.client import Client
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv.context import KVContext
from django_natskv.kv.driver import Runner
from django_natskv.kv.settings import ConnectionSettings
from django_natskv.kv.watch import Report

Resolve = Callable[[ConnectionSettings], ConnectionSettings]


class Connection:
    """One connection, to one server or cluster.

    Nothing connects before the first request. Safe to use from any thread, from any number of event loops, and in
    forked children, each of which connects for itself. ``resolve`` is called, off the event loops, before each round
    of attempts, and returns the settings to use in it: for a server whose address is not known beforehand. ``report``
    takes the errors of watches that have no ``on_error``, on the watch's thread; without it they are logged.
    """

    def __init__(
        self, settings: ConnectionSettings, *, resolve: Resolve | None = None, report: Report | None = None
    ) -> None:
        self.settings = settings
        self._resolve = resolve
        self._report = report
        self._requests = Client(settings, resolve=resolve)
        # Watches have a connection and a thread of their own: a replay must never hold up a request.
        self._watches = Client(settings, role="watches", resolve=resolve)
        self._runner = Runner(self._requests.driver, settings.request_timeout)
        self._watching = Runner(self._watches.driver, settings.request_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.name or ', '.join(self.settings.servers)}: {self.status}>"

    @property
    def status(self) -> str:
        """Where the connection stands now: "idle", "connecting", "connected", "disconnected" or "closed"."""
        return self._requests.state.value

    def kv(self) -> KVContext:
        """Return the KV context, having made sure by a round trip that JetStream is there.

        Raises ``JetStreamNotEnabled``, ``ConnectFailed``, ``AuthInvalid``, ``NotConnected``, ``OperationTimedOut``.
        """
        if self._resolve is not None:
            # Finding, or starting, a server may take longer than a request may: that time is not the request's.
            self._resolve(self.settings)
        self._runner.call(Wire(self._requests).verify())
        return self._context()

    async def akv(self) -> KVContext:
        """See kv()."""
        if self._resolve is not None:
            await asyncio.to_thread(self._resolve, self.settings)
        await self._runner.acall(Wire(self._requests).verify())
        return self._context()

    def _context(self) -> KVContext:
        return KVContext(Wire(self._requests), self._runner, Wire(self._watches), self._watching, self._report)

    def close(self) -> None:
        """Close the connection, stop its watches and end its threads.

        Requests in flight fail; the next use connects anew.
        """
        self._watches.close()
        self._requests.close()
