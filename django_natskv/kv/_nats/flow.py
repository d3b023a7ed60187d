"""An open-ended flow of deliveries: pull after pull from one consumer.

Owns the pulls, their heartbeats and the order of deliveries. Knows nothing of what the deliveries mean.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from django_natskv.exceptions import OperationalError, PermissionsViolation
from django_natskv.kv._breath import breathe
from django_natskv.kv._nats.client import Client
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv._nats.inbox import Inbox
from django_natskv.kv._nats.messages import Stored, from_deliveries, status_of

BATCH = 1_000  # deliveries a pull asks for: bounded, so that a slow reader is never cut off (F23)
HEARTBEAT = 0.5  # seconds; the server says so when it has nothing to say
SILENCE = 2.5 * HEARTBEAT  # seconds without a word after which the consumer counts as dead
_LISTEN = HEARTBEAT / 2  # seconds of it that are counted at once, however long a process stood still meanwhile
FEW = 64  # deliveries that are taken at once; more of them are left to the one who waits, who lets others breathe
_PART = 128  # deliveries that are parsed at once
EXPIRES = 30  # seconds that a pull stays open
_NS = 1_000_000_000
_AGAIN = ("404", "408")  # nothing there, or the pull's time is up: pull again

_REQUEST = json.dumps({"batch": BATCH, "expires": EXPIRES * _NS, "idle_heartbeat": int(HEARTBEAT * _NS)}).encode()

Take = Callable[[list[Stored]], bool]


class Interrupted(OperationalError):  # noqa: N818 - never seen outside the session
    """The flow cannot go on: something was lost, or the consumer is gone. Begin again from the bucket itself."""


class Flow:
    """The deliveries of one consumer, in order and without gaps, or ``Interrupted``. Lives on the client's loop.

    ``what`` says in words what they are for, for errors.
    """

    def __init__(self, client: Client, subject: str, what: str) -> None:
        self._client = client
        self._subject = subject
        self._what = what
        self._inbox = Inbox(client)
        self._pull: _Pull | None = None
        self._arrived = asyncio.Event()
        self._messages: list[Any] = []
        self._take: Take | None = None  # while somebody waits
        self._failure: Exception | None = None
        self._expected = 1
        self._heard = 0.0
        self._quiet = 0.0  # seconds since then in which somebody listened
        self._arrival = 0.0  # of the oldest delivery that nobody has taken yet
        self._handing = False  # next() has returned some, and the loop has not turned since
        self.newest = 0  # the revision of the last delivery
        self.pending = 0  # what was to follow it

    async def next(self, patience: float, take: Take | None = None) -> list[Stored]:
        """Return what has arrived, at once, or wait for it up to ``patience`` seconds; [] when nothing came.

        While it waits ``take`` is called with a few deliveries as they come, which saves them two turns of the loop,
        and tells whether the wait goes on. Raises ``Interrupted``, ``PermissionsViolation``, and what ``take`` raised.
        """
        self._handing = False
        if self._pull is None:
            self._ask()
        assert self._pull is not None  # noqa: S101 - asked just now
        if not self._messages and not self._pull.over:
            await self._listen(patience, take)
        self._handing = bool(self._messages)  # before they go: other threads look
        messages, self._messages = self._messages, []
        if self._pull.over:
            self._check(self._pull)
            self._ask()  # the server need not wait until these are taken
        elif self._quiet >= SILENCE:
            message = "The server fell silent."
            raise Interrupted(message)
        news: list[Stored] = []
        for start in range(0, len(messages), _PART):
            news += self._in_order(messages[start : start + _PART])
            breathe()
        return news

    async def _listen(self, patience: float, take: Take | None) -> None:
        """Wait until something has arrived, for ``patience`` seconds, or until the server has been silent for too long.

        A process that stood still, or was kept busy, has not listened: what was said meanwhile is unread. Each part of
        the wait is a turn of the loop at least, in which it is read, and counts for no more than its length.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        part = min(_LISTEN, patience)
        timer: asyncio.TimerHandle

        def passed() -> None:
            nonlocal part, timer
            now = loop.time()
            self._quiet += min(part, now - self._heard)
            if now >= until or self._quiet >= SILENCE:
                self._arrived.set()
                return
            part = min(_LISTEN, until - now)
            timer = loop.call_later(part, passed)

        self._arrived.clear()
        self._take = take
        timer = loop.call_later(part, passed)
        try:
            await self._arrived.wait()
        finally:
            self._take = None
            timer.cancel()
        if self._failure is not None:
            raise self._failure

    @property
    def heard(self) -> float:
        """When the server gave the last sign of life that was looked after, on the monotonic clock.

        What has arrived and is not taken counts against it: whoever holds it up knows no more than before.
        """
        return self._arrival if self._messages or self._handing else self._heard

    def hear(self, messages: Sequence[Any]) -> None:
        """Take deliveries, or with none of them only a sign of life."""
        self._handing = False
        self._heard, self._quiet = asyncio.get_running_loop().time(), 0.0
        if not messages:
            return
        if self._take is not None and len(messages) <= FEW and not self._arrived.is_set():
            self._take_now(self._take, messages)
            return
        if not self._messages:
            self._arrival = self._heard
        self._messages.extend(messages)
        self._arrived.set()
        breathe()  # many of them take a while to parse

    def _take_now(self, take: Take, messages: Sequence[Any]) -> None:
        try:
            goes_on = take(self._in_order(messages))
        except Exception as error:  # noqa: BLE001 - for whoever waits in next()
            self._failure = error
            goes_on = False
        if not goes_on:
            self._arrived.set()

    def wake(self) -> None:
        """Let ``next`` see that the pull is over."""
        self._arrived.set()

    def close(self) -> None:
        """Stop listening."""
        if self._pull is not None:
            self._pull.abandon()
        self._inbox.close()

    def _ask(self) -> None:
        self._heard, self._quiet = asyncio.get_running_loop().time(), 0.0
        self._pull = _Pull(self._client, self._subject, self._inbox, self, self._what)
        self._client.submit(self._pull)

    def _check(self, pull: _Pull) -> None:
        if isinstance(pull.error, PermissionsViolation):
            raise pull.error
        if pull.error is not None:
            raise Interrupted(str(pull.error)) from pull.error
        if pull.status and pull.status not in _AGAIN:
            reason = pull.description or "its consumer is not there any more"
            raise Interrupted(f"The server ended the flow: {reason} ({pull.status}).")

    def _in_order(self, messages: Sequence[Any]) -> list[Stored]:
        if not messages:
            return []
        news = from_deliveries(messages)
        expected = range(self._expected, self._expected + len(news))
        for number, stored in zip(expected, news, strict=True):
            if stored.delivery != number:
                message = f"Delivery {number} is missing: {stored.delivery} came instead."
                raise Interrupted(message)
        self._expected = expected.stop
        self.newest, self.pending = news[-1].revision, news[-1].pending
        return news


class _Pull(Exchange):
    """One pull of a flow."""

    __slots__ = ("count", "description", "flow", "status")

    def __init__(self, client: Client, subject: str, inbox: Inbox, flow: Flow, what: str) -> None:
        super().__init__(client, subject, _REQUEST, what=what, many=True, inbox=inbox)
        self.flow = flow
        self.count = 0
        self.status = ""
        self.description = ""

    def receive(self, message: Any) -> None:
        """Take a delivery, a heartbeat or the end of the pull."""
        status = status_of(message)
        if status is None:
            self.flow.hear((message,))
            self.count += 1
            if self.count >= BATCH:
                self.finish()
        elif status == "100":
            self.flow.hear(())
        else:
            self.status = status
            self.description = message.headers.get("Description", "")
            self.finish()

    def receive_all(self, messages: Sequence[Any]) -> None:
        """Take what came together: deliveries and nothing else, mostly, none of which is looked at one by one."""
        if any(status_of(message) is not None for message in messages):
            self.receive_each(messages)
            return
        self.flow.hear(messages)
        self.count += len(messages)
        if self.count >= BATCH:
            self.finish()

    def finish(self, error: Exception | None = None) -> None:
        """End the pull, once."""
        super().finish(error)
        self.flow.wake()
