"""How messages of nats-py are taken, and its coroutines run, without a queue, a task or a future for each.

Owns these two shortcuts. Knows nothing of what the messages are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from django_natskv.exceptions import NotConnected

logger = logging.getLogger("django_natskv.connection")


class Sink:
    """What nats-py takes for a future: called inline with each message, no queue and no task (F8: never raises)."""

    __slots__ = ("_receive", "_receive_all")

    def __init__(
        self, receive: Callable[[Any], None], receive_all: Callable[[Sequence[Any]], None] | None = None
    ) -> None:
        self._receive = receive
        self._receive_all = receive_all

    def cancelled(self) -> bool:
        """Tell nats-py to go on."""
        return False

    def set_result(self, message: Any) -> None:
        """Take a message."""
        try:
            self._receive(message)
        except Exception:
            # An exception here would end nats-py's read loop without a sign.
            logger.exception("A reply could not be handled")

    def take(self, messages: Sequence[Any]) -> None:
        """Take messages that arrived together."""
        if self._receive_all is None:
            for message in messages:
                self.set_result(message)
            return
        try:
            self._receive_all(messages)
        except Exception:
            logger.exception("Replies could not be handled")


def run_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that does not wait; a task for each request would cost more than the request."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    message = "nats-py waited where it should not"
    raise NotConnected(message)
