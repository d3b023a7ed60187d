"""The connection to the server: one nats-py client at a time, its replacement, and the requests in flight on it.

Owns the life of the connection and the lean request path. Knows nothing of buckets: subjects and bytes go out,
replies come back.

nats-py is used for connecting, publishing and subscribing only, and never left to reconnect by itself: a client that
lost its connection is thrown away and a new one made (ADR 0005). Its own reconnection closes for good after some
errors (F9), may send later what was published meanwhile (F10) and comes back late (F11).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from nats.errors import Error

from django_natskv.exceptions import (
    AuthInvalid,
    ConnectFailed,
    NotConnected,
    OperationalError,
)
from django_natskv.kv import spread
from django_natskv.kv._nats.dial import Dialled, parse_violation, refused
from django_natskv.kv._nats.errors import too_large
from django_natskv.kv._nats.exchange import ConnectionLost, Exchange
from django_natskv.kv._nats.lean import LeanClient, block_of
from django_natskv.kv._nats.servers import Servers, as_operational
from django_natskv.kv._nats.sink import Sink, run_through
from django_natskv.kv._nats.volley import Volley
from django_natskv.kv.driver import Driver
from django_natskv.kv.settings import ConnectionSettings

logger = logging.getLogger("django_natskv.connection")

PATIENCE = 0.5  # seconds that a request which may be repeated waits for a lost connection to come back

_ANSWERS = "answers to requests"  # what is refused to who may not subscribe

Listener = Callable[[str, OperationalError | None], None]


class State(StrEnum):
    """Where a connection stands now."""

    IDLE = "idle"  # never used, or given up: the next request connects
    CONNECTING = "connecting"  # the first attempt: requests wait for its outcome
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # coming back in the background: requests fail at once
    CLOSED = "closed"


class Client:
    """One connection, made on first use and restored whenever it is lost, until ``close()``.

    ``listener`` is told of each change of state, with the error that led to it; it is called on the loop's thread and
    must neither block nor raise. ``resolve`` is asked before each round of attempts for the settings to use.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        role: str = "requests",
        resolve: Callable[[ConnectionSettings], ConnectionSettings] | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.settings = settings
        self._resolve = resolve
        self._listener = listener
        self.driver = Driver(
            f"natskv-{role}", on_fork=self._after_fork, on_interrupt=self._interrupted, on_turn=self._flush
        )
        self._fresh()

    def _fresh(self) -> None:
        self.state = State.IDLE
        self.last_error: OperationalError | None = None
        self._dialled: Dialled | None = None
        self._spawned: set[asyncio.Task[None]] = set()
        self._tokens = itertools.count(1)
        self._in_flight: dict[str, Exchange] = {}
        self._waiting: list[Exchange] = []
        self._prefix = ""
        self._supervisor: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None  # held, because a loop holds its tasks weakly
        self._wake: asyncio.Event | None = None
        self._servers = Servers()
        # Random in each process: with the same ids in two, the server would drop the writes of one as repetitions.
        self._origin = secrets.token_hex(6)
        self._ids = itertools.count(1)
        self.generation = 0  # how many times a connection was made
        self.max_payload = 2**20

    def _after_fork(self) -> Any:
        kept = (self._dialled, self._spawned, self._supervisor, self._in_flight, self._waiting)
        if self._dialled is not None:
            self._dialled.cut_off()
        self._fresh()
        return kept

    def _interrupted(self) -> None:
        """Throw the connection away: an exception broke into its loop, and the next request begins anew."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            self._supervisor = None
        dialled = self._dialled
        self._lose(NotConnected("The connection was interrupted."))
        self._fail_waiting()
        self._enter(State.IDLE, None)
        if dialled is not None:
            self._closing = asyncio.get_running_loop().create_task(dialled.close())

    # --- called from any thread ---

    def submit(self, exchange: Exchange) -> None:
        """Send a request as soon as the loop turns."""
        self.driver.post(partial(self._admit, exchange))

    def submit_all(self, exchanges: Sequence[Exchange]) -> None:
        """Send several requests as soon as the loop turns, in one write."""
        self.driver.post(partial(self._admit_all, exchanges))

    def new_id(self) -> str:
        """Return an id that no other write anywhere has."""
        return f"{self._origin}.{next(self._ids)}"

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``coroutine`` on the loop until it ends or the connection is closed. On the loop."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    def forget(self, exchange: Exchange) -> None:
        """Stop waiting for the reply to a request."""
        self.driver.mention(partial(self._forget, exchange))

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have ``callback()`` called on the loop's thread after ``seconds``."""

        def start() -> None:
            asyncio.get_running_loop().call_later(seconds, callback)

        self.driver.post(start)

    def close(self) -> None:
        """Close the connection and end its thread. Requests in flight fail; a later request connects anew."""
        self.driver.stop(self._shut)

    # --- on the loop's thread ---

    def _admit(self, exchange: Exchange) -> None:
        if exchange.over:
            return
        if self.state is State.CONNECTED:
            self._send(exchange)
            return
        if self.state in (State.IDLE, State.CLOSED):
            self._enter(State.CONNECTING, None)
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())
            self._supervisor.add_done_callback(self._unsupervised)
        if self.state is State.CONNECTING:
            self._waiting.append(exchange)
        elif exchange.patient:
            self._waiting.append(exchange)
            asyncio.get_running_loop().call_later(PATIENCE, self._impatient, exchange)
            self._hurry()
        else:
            exchange.finish(self._unavailable(exchange))
            self._hurry()

    def _admit_all(self, exchanges: Sequence[Exchange]) -> None:
        for exchange in exchanges:
            self._admit(exchange)

    def _flush(self) -> None:
        if self._dialled is not None:
            self._dialled.client.uncork()

    def _impatient(self, exchange: Exchange) -> None:
        if not exchange.sent:
            exchange.finish(self._unavailable(exchange))

    def _send(self, exchange: Exchange) -> None:
        exchange.token = str(next(self._tokens))
        exchange.sent = True
        self._in_flight[exchange.token] = exchange
        try:
            self.nats.corked = True  # until all that was posted has been published
            if isinstance(exchange, Volley):
                exchange.publish(self.nats, f"{self._prefix}{exchange.token}-", self.max_payload)
            else:
                self._publish(exchange)
        except Exception as error:  # noqa: BLE001 - whatever nats-py refuses, this request fails and no other
            exchange.sent = False
            reason = str(error) or type(error).__name__
            exchange.finish(NotConnected(f"The connection is not usable, {exchange.what} was not sent: {reason}."))
        if exchange.over:
            self._in_flight.pop(exchange.token, None)

    def _publish(self, exchange: Exchange) -> None:
        block = block_of(exchange.headers)
        size = len(exchange.payload) + len(block or b"")
        if size > self.max_payload:
            # The server closes the connection for a message whose headers and payload exceed the limit (F9).
            exchange.finish(too_large(exchange.what, size, self.max_payload))
            return
        reply = exchange.inbox.attach(exchange) if exchange.inbox else self._prefix + exchange.token
        if block is None:
            run_through(self.nats.publish(exchange.subject, exchange.payload, reply, exchange.headers))
        else:
            self.nats.publish_now(exchange.subject, reply, exchange.payload, block)

    @property
    def nats(self) -> LeanClient:
        """The nats-py client in use; ``NotConnected`` when there is none. On the loop's thread."""
        if self._dialled is None:
            message = "The connection is down."
            raise NotConnected(message)
        return self._dialled.client

    @property
    def _inboxes(self) -> str:
        """The subjects of all addresses that answers may come to: what a user must be allowed to hear."""
        return f"{self.settings.inbox_prefix or '_INBOX'}.>"

    def new_inbox(self) -> str:
        """Return a new reply address under the configured prefix."""
        return f"{self._prefix.rpartition('.')[0].rpartition('.')[0]}.{secrets.token_hex(8)}"

    def _receive(self, message: Any) -> None:
        self._receive_all((message,))

    def _receive_all(self, messages: Sequence[Any]) -> None:
        start, position = len(self._prefix), 0
        while position < len(messages):
            subject = messages[position].subject
            token, _, number = subject[start:].partition("-")
            exchange = self._in_flight.get(token)
            begin, position = position, position + 1
            if isinstance(exchange, Volley):
                exchange.settle(int(number), messages[begin])
                if exchange.over:
                    self._in_flight.pop(token, None)
                continue
            while position < len(messages) and messages[position].subject == subject:
                position += 1
            if exchange is not None:
                self.deliver_all(exchange, messages[begin:position])

    def deliver(self, exchange: Exchange, message: Any) -> None:
        """Give a reply to its exchange, and let go of it when that was the last."""
        exchange.receive(message)
        if exchange.over:
            self._in_flight.pop(exchange.token, None)

    def deliver_all(self, exchange: Exchange, messages: Sequence[Any]) -> None:
        """Give replies that came together to their exchange, and let go of it when the last was among them."""
        exchange.receive_all(messages)
        if exchange.over:
            self._in_flight.pop(exchange.token, None)

    def _forget(self, exchange: Exchange) -> None:
        if self._in_flight.get(exchange.token) is exchange:
            del self._in_flight[exchange.token]
        with contextlib.suppress(ValueError):
            self._waiting.remove(exchange)

    def _unavailable(self, exchange: Exchange) -> OperationalError:
        error = self.last_error
        if self.generation == 0 and error is not None:
            # Never connected yet: the reason is the news.
            return type(error)(str(error), **error.__dict__)
        if isinstance(error, AuthInvalid):
            return AuthInvalid(str(error), reason=error.reason)
        because = f" {error}" if error is not None else ""
        return NotConnected(f"The connection is down and being restored; {exchange.what} was not sent.{because}")

    def _enter(self, state: State, error: OperationalError | None) -> None:
        self.state = state
        self.last_error = error
        if self._listener is not None:
            self._listener(state.value, error)

    def _hurry(self) -> None:
        if self._wake is not None:
            self._wake.set()

    # --- the life of the connection ---

    async def _supervise(self) -> None:
        """Connect, wait until the connection is lost, and begin again: for ever, or as often as RECONNECT allows."""
        self._wake = asyncio.Event()
        failures = 0
        while True:
            try:
                dialled, lost = await self._connect()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next request needs a next attempt
                failures += 1
                reason = as_operational(error)
                self._enter(State.DISCONNECTED, reason)
                self._fail_waiting()
                if 0 <= self.settings.reconnect.max < failures:
                    self._enter(State.IDLE, reason)
                    return
                await self._back_off(failures)
            else:
                failures = 0
                self._lose(await lost)
                dialled.abort()
                await dialled.close()

    def _unsupervised(self, supervisor: asyncio.Task[None]) -> None:
        """Take that the loop ended under the supervisor: a request had come to it when all else was closed."""
        if supervisor.cancelled() and supervisor is self._supervisor:
            self._enter(State.CLOSED, NotConnected("The connection was closed."))
            self._fail_waiting()

    async def _connect(self) -> tuple[Dialled, asyncio.Future[OperationalError]]:
        settings = self.settings
        if self._resolve is not None:
            settings = await asyncio.get_running_loop().run_in_executor(None, self._resolve, settings)
        dialled = await self._servers.dial_any(settings)
        lost: asyncio.Future[OperationalError] = asyncio.get_running_loop().create_future()
        try:
            self._prefix = await self._open_prefix(dialled, settings)
        except BaseException:
            await dialled.close()
            raise
        dialled.watch(partial(self._on_error, dialled, lost), partial(self._on_end, dialled, lost))
        if dialled.closed:
            await dialled.close()
            message = "The server closed the connection as soon as it was made."
            raise ConnectFailed(message)
        self._dialled = dialled
        self.max_payload = dialled.client.max_payload
        self._servers.learn(dialled)
        self.generation += 1
        self._enter(State.CONNECTED, None)
        waiting, self._waiting = self._waiting, []
        for exchange in waiting:
            self._admit(exchange)
        self._flush()
        return dialled, lost

    async def _open_prefix(self, dialled: Dialled, settings: ConnectionSettings) -> str:
        root = f"{settings.inbox_prefix or '_INBOX'}.{secrets.token_hex(8)}"
        try:
            await dialled.client.subscribe(f"{root}.*", future=Sink(self._receive, self._receive_all))  # type: ignore[arg-type]
            # Twice: nats-py sends a ping past what it has yet to send, and only the second is behind the subscription.
            for _ in range(2):
                await asyncio.wait_for(dialled.client.flush(), settings.connect_timeout)
        except (Error, OSError, TimeoutError) as error:
            if not dialled.violations:
                message = f"The server did not answer after connecting: {str(error) or type(error).__name__}."
                raise ConnectFailed(message) from None
        if dialled.violations:
            raise refused(dialled.violations[0], self._inboxes, _ANSWERS)
        return f"{root}."

    async def _back_off(self, failures: int) -> None:
        """Wait, longer after each failure and with jitter; a request that comes meanwhile shortens it."""
        reconnect = self.settings.reconnect
        ceiling = min(reconnect.max_wait, reconnect.wait * 2 ** min(failures - 1, 16))
        delay = spread.between(ceiling / 2, ceiling)
        floor = min(delay, reconnect.wait * spread.between(0.5, 1))
        assert self._wake is not None  # noqa: S101 - set by _supervise
        await asyncio.sleep(floor)
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), delay - floor)

    def _lose(self, error: OperationalError) -> None:
        """Fail what is in flight, as what it is: lost reads and writes are told apart by the operation."""
        if self._dialled is not None:
            self._servers.learn(self._dialled)
        self._dialled = None
        self._enter(State.DISCONNECTED, error)
        in_flight, self._in_flight = self._in_flight, {}
        for exchange in in_flight.values():
            exchange.finish(ConnectionLost(f"The connection was lost during {exchange.what}."))

    def _fail_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for exchange in waiting:
            exchange.finish(self._unavailable(exchange))

    async def _on_error(self, dialled: Dialled, lost: asyncio.Future[OperationalError], error: Exception) -> None:
        violation = parse_violation(str(error), dialled.client.line)
        if violation is None:
            logger.debug("nats-py reports: %s", error)
            return
        action, subject = violation.action, violation.small

        def refusal(needed: str, what: str) -> OperationalError:
            return refused(violation, needed if action == "publish" else self._inboxes, what)

        in_flight = list(self._in_flight.items())
        matching = [pair for pair in in_flight if pair[1].refuse(action, violation.concerns, refusal)]
        for token, exchange in matching:
            if exchange.over:
                self._in_flight.pop(token, None)
        if action == "subscription" and self._prefix.lower().startswith(subject.removesuffix("*")) and not lost.done():
            # The permission to hear replies was taken away: nothing can be answered on this connection any more.
            lost.set_result(refused(violation, self._inboxes, _ANSWERS))
        elif not matching:
            logger.warning("The server refused to %s %s", action, violation.subject or subject)

    def _on_end(self, dialled: Dialled, lost: asyncio.Future[OperationalError]) -> None:
        if not lost.done():
            reason = str(dialled.client.last_error or "the server closed the connection").removeprefix("nats: ")
            lost.set_result(NotConnected(f"The connection was lost: {reason}."))

    async def _shut(self) -> None:
        """Close for good, on the loop's thread, as its last act."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            self._supervisor = None
        spawned = list(self._spawned)
        for task in spawned:
            task.cancel()
        await asyncio.gather(*spawned, return_exceptions=True)
        dialled = self._dialled
        self._lose(NotConnected("The connection was closed."))
        self._fail_waiting()
        if dialled is not None:
            await dialled.close()
        self._fail_waiting()  # what came meanwhile
        self._fresh()
        self._enter(State.CLOSED, None)
