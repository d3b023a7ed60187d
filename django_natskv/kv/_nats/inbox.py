"""Reply addresses of their own, for replies that keep the subject they were stored under.

Owns one subscription each, renewed with the connection. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django_natskv.kv._nats.sink import Sink, run_through

if TYPE_CHECKING:
    from django_natskv.kv._nats.client import Client
    from django_natskv.kv._nats.exchange import Exchange


class Inbox:
    """A reply address of its own, for replies that keep the subject they were stored under. One exchange at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._subject = ""
        self._subscription: Any = None
        self._generation = 0
        self._exchange: Exchange | None = None

    def attach(self, exchange: Exchange) -> str:
        """Give what comes from now on to ``exchange``; return the address. On the loop's thread, connected."""
        self._exchange = exchange
        client = self._client
        if self._generation != client.generation:
            self._subject = client.new_inbox()
            sink: Any = Sink(self._receive, self._receive_all)
            self._subscription = run_through(client.nats.subscribe(self._subject, future=sink))
            self._generation = client.generation
        return self._subject

    @property
    def subject(self) -> str:
        """The address, once something was attached."""
        return self._subject

    def close(self) -> None:
        """Stop listening. From any thread, safe to repeat."""
        self._client.driver.mention(self._close)

    def _receive(self, message: Any) -> None:
        if self._exchange is not None and not self._exchange.over:
            self._client.deliver(self._exchange, message)

    def _receive_all(self, messages: Sequence[Any]) -> None:
        if self._exchange is not None and not self._exchange.over:
            self._client.deliver_all(self._exchange, messages)

    def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._generation == self._client.generation:
            # A connection that is gone has taken the subscription with it.
            with contextlib.suppress(Exception):
                run_through(subscription.unsubscribe())
        self._generation = 0
