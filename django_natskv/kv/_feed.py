"""What feeds a local cache: the bucket is opened, as often as it takes, and then a session goes on until it is stopped.

Owns the states of a local cache and what its readers wait for. Knows nothing of how entries are kept.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, KeysView, Sequence
from concurrent.futures import Future, InvalidStateError, TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from django_natskv.exceptions import BucketNotFound, NatsKVError, OperationalError
from django_natskv.kv import spread
from django_natskv.kv._core import Core
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv._session import Session
from django_natskv.kv.codecs import Codec
from django_natskv.kv.listener import Listener
from django_natskv.kv.runner import Runner

logger = logging.getLogger("django_natskv.local")

STALLED = 3.0  # seconds without a sign of life from the server, after which a copy is stale
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between two attempts to open the bucket, with jitter
_START_OF_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class State(StrEnum):
    """What a local cache is worth now."""

    WARMING = "warming"  # the first replay is not complete
    LIVE = "live"  # equal to the bucket, but for what is on its way
    STALE = "stale"  # cut off: the last known values are served
    STOPPED = "stopped"  # not in use, closed, or refused: see ``reason``


@dataclass(frozen=True, slots=True)
class Source:
    """What a local cache reads a bucket through: the connection of watches, and that of requests."""

    bucket: str
    patterns: tuple[str, ...]
    codec: Codec
    watches: Wire
    watching: Runner
    requests: Wire
    requesting: Runner
    wait: float
    listener: Listener | None

    def core(self, wire: Wire, info: BucketInfo | None = None) -> Core:
        """Return the bucket's operations over ``wire``, before it was looked at too."""
        unseen = BucketInfo(self.bucket, {}, _START_OF_TIME, 0, 0, 0, 0)
        return Core(wire, info or unseen, self.codec)


class Gate:
    """Something that happens once and that threads and event loops wait for."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._awaiting: set[Callable[[], None]] = set()  # not callbacks of the future, which nobody can take back

    @property
    def is_open(self) -> bool:
        """Whether it has happened."""
        return self._future.done()

    def open(self) -> None:
        """Let everybody through, for good."""
        with contextlib.suppress(InvalidStateError):
            self._future.set_result(None)
        for tell in list(self._awaiting):
            tell()

    def wait_open(self, timeout: float) -> bool:
        """Block up to ``timeout`` seconds; tell whether it has happened."""
        with contextlib.suppress(FutureTimeoutError):
            self._future.result(max(0.0, timeout))
        return self.is_open

    async def await_open(self, timeout: float) -> bool:  # noqa: ASYNC109 - the twin of wait_open()
        """See wait_open()."""
        if self.is_open or timeout <= 0:
            return self.is_open
        loop = asyncio.get_running_loop()
        opened = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed by now
                loop.call_soon_threadsafe(opened.set)

        self._awaiting.add(tell)
        try:
            if not self.is_open:  # not since it was looked at, before anybody would have told this one
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await opened.wait()
        finally:
            self._awaiting.discard(tell)
        return self.is_open


class Feed(abc.ABC):
    """One run of a local cache in this process, from its start to its end. A sink of the session that it makes.

    ``ready`` opens when the first replay is complete, ``settled`` when that or the first failure has happened:
    readers wait for it, at most until ``deadline``. Both open at the end too.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.ready = Gate()
        self.settled = Gate()
        self.begun = time.monotonic()
        self.deadline = self.begun + source.wait
        self.refusal: OperationalError | None = None
        self.over = False
        self._live = False
        self._serves_old = False  # something from before this run
        self._since = 0.0  # when the last replay was complete
        self._equal: float | None = None  # when it was last known to be equal, while it is not live
        self._error: Exception | None = None
        self._reported: set[str] = set()
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._rescue: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None

    # --- from any thread ---

    def start(self) -> None:
        """Begin, on the loop."""
        self.source.watching.driver.post(self._begin)

    def stop(self) -> None:
        """End. Returns at once; safe to repeat."""
        self.over = True
        self._let_through()
        self.source.watching.driver.mention(self._end)

    @property
    def heard(self) -> float:
        """When the server gave its last sign of life, on the monotonic clock."""
        return max(self._since, self._session.heard if self._session is not None else 0.0)

    def is_live(self) -> bool:
        """Tell whether it is live now."""
        if not self._live or self.over:
            return False
        # Asked at every read: the last sign of life first, and then when the replay was complete.
        now, session = time.monotonic(), self._session
        return (session is not None and now - session.heard < STALLED) or now - self._since < STALLED

    @property
    def state(self) -> State:
        """What it is worth now."""
        if self.over or self.refusal is not None:
            return State.STOPPED
        if self.is_live():
            return State.LIVE
        return State.STALE if self.settled.is_open or self._live or self._serves_old else State.WARMING

    @property
    def age(self) -> float | None:
        """The seconds since it was last known to be equal to the bucket: 0 while it is live, None if it never was."""
        if self.state is State.LIVE:
            return 0.0
        equal = self.heard if self._live else self._equal
        return None if equal is None else max(0.0, time.monotonic() - equal)

    @property
    def reason(self) -> str:
        """Why it is not live; empty while it is, and while it is warming."""
        state = self.state
        if self.refusal is not None:
            return str(self.refusal)
        if state in (State.LIVE, State.WARMING):
            return ""
        if self.over:
            return "It was closed."
        if self._live:
            return f"The server has not been heard for {time.monotonic() - self.heard:.0f} seconds."
        return str(self._error or "It begins again.")

    # --- what the modes add ---

    @abc.abstractmethod
    def _make(self, info: BucketInfo) -> Session:
        """Return the session, now that the bucket is there."""

    @abc.abstractmethod
    async def _fall_back(self) -> None:
        """Find something to serve until the bucket is there."""

    @abc.abstractmethod
    def _dropped(self) -> None:
        """Let go of everything: it was refused, or is over."""

    # --- the sink of the session, on the loop ---

    def subjects(self) -> KeysView[str]:
        """See Sink."""
        return dict[str, None]().keys()

    def revision(self, subject: str) -> int | None:  # noqa: ARG002
        """See Sink."""
        return None

    def replace(self, replay: Sequence[Stored]) -> None:  # noqa: ARG002
        """See Sink."""
        self._since = time.monotonic()
        self._live, self._error = True, None
        self._reported.clear()
        first = not self.ready.is_open
        self._let_through()
        if first and self.source.listener is not None:
            self.source.listener.initialized(self.source.bucket)

    def stale(self, error: Exception) -> None:
        """See Sink."""
        if self._live:
            self._equal = self.heard
        self._live, self._error = False, error
        if not self.settled.is_open:
            # In the middle of the first replay.
            self._settling = self.source.watches.client.spawn(self._settle())

    def is_busy(self) -> bool:
        """See Sink."""
        return False

    def ended(self) -> None:
        """See Sink."""
        self.over = True
        self._live = False
        if self.refusal is None:
            self._dropped()
        self._let_through()

    def refuse(self, error: Exception) -> None:
        """Give up for good, with a reason for the readers."""
        self.refusal = OperationalError(str(error))
        logger.error("The local cache of bucket %s is stopped: %s", self.source.bucket, error)
        self._live = False
        self._dropped()
        self._let_through()

    def _let_through(self) -> None:
        self.ready.open()
        self.settled.open()

    # --- opening, on the loop ---

    def _begin(self) -> None:
        if not self.over:
            self._task = self.source.watches.client.spawn(self._open())
            self._task.add_done_callback(self._opened)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._session is not None:
            self._session.stop()

    def _opened(self, task: asyncio.Task[None]) -> None:
        if self._session is None:
            # Cancelled by the end of the connection, or broken off by what a signal handler raised.
            if not task.cancelled():
                task.exception()
            self.ended()

    async def _open(self) -> None:
        patience = asyncio.get_running_loop().call_later(self.source.wait / 2, self._spawn_fall_back)
        failures = 0
        while (info := await self._look()) is None:
            patience.cancel()
            failures += 1
            ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
            await asyncio.sleep(spread.between(ceiling / 2, ceiling))
        if not self.over:
            self._session = self._make(info)
            self._session.start()

    async def _look(self) -> BucketInfo | None:
        try:
            return await self.source.watching.acall(self.source.watches.info(self.source.bucket))
        except Exception as error:  # noqa: BLE001 - whatever it is, a later attempt may do better
            await self._failed(error)
            return None

    def _absent(self) -> None:
        """Serve nothing from before: of a bucket that is not there the truth is that it is empty."""
        self.settled.open()
        if self._serves_old:
            self._serves_old, self._equal = False, None
            self._dropped()

    def _spawn_fall_back(self) -> None:
        # The first attempt takes long: a half-open line, or a large bucket.
        if not self.settled.is_open and self._rescue is None:
            self._rescue = self.source.watches.client.spawn(self._fall_back())

    async def _settle(self) -> None:
        if not self.settled.is_open:
            self._spawn_fall_back()
            if self._rescue is not None:
                await asyncio.wait([self._rescue])
            self.settled.open()

    async def _failed(self, error: Exception) -> None:
        self._error = error
        if isinstance(error, BucketNotFound):
            self._absent()
        await self._settle()
        kind = error.type if isinstance(error, NatsKVError) else type(error).__name__
        if kind not in self._reported:
            # Once for each kind of trouble, not once an attempt.
            self._reported.add(kind)
            text = "The local cache of bucket %s cannot begin yet, and goes on trying: %s"
            logger.warning(text, self.source.bucket, error)
