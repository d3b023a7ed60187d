"""The session behind a watch: replay a bucket, follow it, notice every way in which that can fail, begin again.

Owns when a copy cannot be trusted any more (NATS-FACTS, "A watch that was proven"). Knows nothing of who is told: a
sink is given the whole bucket, then one revision after another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, KeysView, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from django_natskv.exceptions import BucketNotFound, OperationalError
from django_natskv.kv import spread
from django_natskv.kv._breath import paced
from django_natskv.kv._core import Core
from django_natskv.kv._known import Expiries, vanished
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import Flow, Interrupted
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._replay import Gatherer, Replay, check_same
from django_natskv.kv._survey import Looked, Survey
from django_natskv.kv.runner import Runner

logger = logging.getLogger("django_natskv.watch")

AUDIT = 3.0  # seconds between two looks at the bucket's counters
OVERDUE = 1.0  # seconds that a delivery is given that a look has found to be missing
INACTIVE = 30  # seconds after which the server lets go of a consumer that nobody pulls from
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between two attempts, with jitter
STEADY = 5.0  # seconds after which an attempt counts as a success, and the next failure as the first
EXPIRY_GRACE = 0.5  # seconds that a server may be late with an expiry (F14)
MANY = 4_096  # keys gone at once from which a replay costs less than to ask for each
_AT_ONCE = 256  # requests sent side by side
_MOMENT = 0.02  # seconds
_PER_KEY = 30e-6  # seconds that each key which a look had listed puts off the next: some 20 times what it cost
_NS = 1_000_000_000


class Sink(Protocol):
    """Who is told. All of it on the loop, so nothing may block."""

    def subjects(self) -> KeysView[str]:
        """Return the subjects of all keys that are known, those of markers included."""

    def revision(self, subject: str) -> int | None:
        """Return the newest known revision of a key."""

    def replace(self, replay: Sequence[Stored]) -> None:
        """Take the whole bucket, in order of revision."""

    def apply(self, stored: Stored) -> None:
        """Take a new revision."""

    def forget(self, gone: Stored) -> None:
        """Take that nothing is kept of a key any more."""

    def stale(self, error: Exception) -> None:
        """Take that what is known may be out of date, until the next ``replace``."""

    def is_busy(self) -> bool:
        """Tell whether to wait before more is given."""

    def ended(self) -> None:
        """Take that nothing more will come: the session was stopped, or its connection closed."""


class Refused(Exception):  # noqa: N818 - not an error, but an answer
    """The sink cannot take what is there: the session ends."""


class Session:
    """Keeps a sink equal to a bucket, or to the part of it under ``patterns``, until it is stopped.

    ``opened`` is told, before each ``replace``, when the bucket that was found was made; ``looked`` each time what the
    server says of it. ``gatherer`` takes replays as they come; it may raise ``Refused``, and so may the sink.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, and who is told what
        self,
        core: Core,
        runner: Runner,
        patterns: Sequence[str],
        sink: Sink,
        *,
        history: bool,
        opened: Callable[[datetime], None] | None = None,
        looked: Looked | None = None,
        gatherer: Gatherer | None = None,
    ) -> None:
        self._core = core
        self._runner = runner
        self._survey = Survey(core, runner, patterns, looked)
        self._sink = sink
        self._opened = opened
        self._gatherer = gatherer
        self._flow: Flow | None = None
        self._history = history
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._expiries = Expiries()
        self._reported: set[str] = set()  # kinds of trouble since the sink was last complete
        self._absent = False
        self._consumers: set[str] = set()  # those that the server may still have
        self._clean: tuple[int, ...] = ()  # its counters when last nothing was amiss
        self._overdue: tuple[int, int] = (0, 0)  # the newest delivery, and a revision that should have followed

    @property
    def heard(self) -> float:
        """When the server gave its last sign of life, on the monotonic clock, or 0."""
        return 0.0 if self._flow is None else self._flow.heard

    def start(self) -> None:
        """Begin, on the loop."""
        self._runner.driver.post(self._begin)

    def stop(self) -> None:
        """End. Returns at once, from any thread; safe to repeat."""
        self._stopped = True
        self._runner.driver.mention(self._end)

    def _begin(self) -> None:
        if self._stopped:  # by a thread that did not have to wait for another one to wake the loop
            self._sink.ended()
            return
        self._task = self._core.wire.client.spawn(self._run())
        self._task.add_done_callback(self._over)

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _over(self, task: asyncio.Task[None]) -> None:
        if self._stopped or task.cancelled():
            self._sink.ended()
            return
        # Nothing ends it but an exception that broke into the thread of the loop, such as a KeyboardInterrupt.
        broken = type(task.exception()).__name__
        logger.warning("The watch on bucket %s was broken off by %s and begins again", self._core.name, broken)
        self._begin()

    async def _run(self) -> None:
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                await self._follow()
            except BucketNotFound as error:
                if not self._absent:
                    # The truth about a bucket that is not there is that it is empty.
                    self._absent = True
                    self._replace([])
                self._report(error)
            except Refused:
                self._stopped = True
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the watch goes on
                self._report(error)
            failures = 1 if time.monotonic() - begun > STEADY else failures + 1
            ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
            await asyncio.sleep(spread.between(ceiling / 2, ceiling))

    def _report(self, error: Exception) -> None:
        """Tell the sink, and the log: once for each kind of trouble until all is well again, not once an attempt."""
        expected = isinstance(error, OperationalError)
        kind = error.type if isinstance(error, OperationalError) else type(error).__name__
        if kind not in self._reported:
            self._reported.add(kind)
            text = "The watch on bucket %s was interrupted and goes on by itself: %s"
            logger.log(
                logging.WARNING if expected else logging.ERROR,
                text,
                self._core.name,
                error if expected else "it failed in a way that it should not",
                exc_info=None if expected else error,
            )
        try:
            self._sink.stale(error)
        except Exception:
            logger.exception("The sink of the watch on bucket %s failed", self._core.name)

    async def _follow(self) -> None:
        core = self._core
        survey = self._survey
        info = await survey.look()
        self._absent = False
        self._drop_consumers()
        name = f"natskv-{secrets.token_hex(8)}"
        self._consumers.add(name)
        flow = self._flow = Flow(core.wire.client, core.wire.pull_subject(core.name, name), survey.what)
        try:
            made = await survey.ask(core.wire.create_consumer(core.name, self._consumer(name), survey.what))
            replay = await self._replay(info, flow, made.get("num_pending", 0))
            if self._opened is not None:
                self._opened(info.created)
            self._replace(replay, self._gatherer)
            del replay  # it would be held as long as the watch goes on
            if self._reported:
                self._reported.clear()
                logger.info("The watch on bucket %s is complete again", core.name)
            await self._stay(flow)
        finally:
            flow.close()
            self._drop_consumers()
            # Whether it was made, or heard of its end, is not known when the connection was lost: see above.
            self._consumers.add(name)

    def _drop_consumers(self) -> None:
        for name in self._consumers:
            self._core.wire.drop_consumer(self._core.name, name)
        self._consumers.clear()

    async def _replay(self, info: BucketInfo, flow: Flow, pending: int) -> Sequence[Stored]:
        return await Replay(self._survey, flow, self._gatherer, history=self._history).whole(info, pending)

    def _consumer(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "deliver_policy": "all" if self._history else "last_per_subject",
            "ack_policy": "none",
            "filter_subjects": self._survey.filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE * _NS,
        }

    # --- afterwards ---

    async def _stay(self, flow: Flow) -> None:
        """Pass on what comes, and look after what does not come by itself."""
        audit = time.monotonic() + AUDIT * spread.between(0.5, 1)  # spreads the watches of many processes
        while True:
            busy = self._sink.is_busy()
            if busy:
                self._overdue = (0, 0)  # nothing is missed that was not asked for
                await asyncio.sleep(_MOMENT)
            else:
                self._take(await flow.next(self._patience(audit), self._take_at_once))
            await self._check_expiries()
            if not busy and time.monotonic() >= audit:
                self._survey.listed = 0
                await self._audit(flow)
                # Not by the time that it took: a server that hung for a second would not be looked at for long.
                pause = max(min(AUDIT, OVERDUE) if self._overdue[1] else AUDIT, self._survey.listed * _PER_KEY)
                audit = time.monotonic() + pause * spread.between(0.8, 1)

    def _patience(self, audit: float) -> float:
        expiry = self._expiries.next()
        due = audit if expiry is None else min(audit, expiry)
        return max(0.0, due - time.monotonic())

    def _replace(self, replay: Sequence[Stored], gatherer: Gatherer | None = None) -> None:
        self._clean, self._overdue = (), (0, 0)
        self._expiries.clear()
        if gatherer is None:
            self._sink.replace(replay)
        else:
            gatherer.arrived()
        for stored in paced(replay):
            self._remember_expiry(stored)

    def _take(self, news: Iterable[Stored]) -> None:
        for stored in paced(news):
            self._sink.apply(stored)
            self._remember_expiry(stored)

    def _take_at_once(self, news: list[Stored]) -> bool:
        """Take what comes while nothing else is done; tell whether that may go on."""
        self._take(news)
        return not any(stored.headers for stored in news) and not self._sink.is_busy()

    def _remember_expiry(self, stored: Stored) -> None:
        """A value may lie beneath one that expires (F15): what has a time to live is read again after it."""
        seconds = stored.time_to_live
        if not seconds:
            self._expiries.set(stored.subject, stored.revision, None)
            return
        age = (datetime.now(UTC) + self._survey.skew - stored.created) / timedelta(seconds=1)
        left = min(seconds, max(0.0, seconds - age))
        self._expiries.set(stored.subject, stored.revision, time.monotonic() + left + EXPIRY_GRACE)

    async def _check_expiries(self) -> None:
        now = time.monotonic()
        due = self._expiries.pop(now, _AT_ONCE)
        await self._read_again([subject for subject, _ in due])
        for subject, revision in due:
            if self._sink.revision(subject) == revision:
                # Not yet: a limit marker's time is the least that the server lets a key live (F15).
                self._expiries.set(subject, revision, time.monotonic() + AUDIT)

    async def _audit(self, flow: Flow) -> None:
        """Hold what is known against the bucket's counters: nothing else tells of what left no marker (F15)."""
        before = self._survey.seen
        info = await self._survey.look()
        check_same(before, info)
        await self._check_progress(flow, info)
        counters = (info.last_revision, info.bytes, info.subjects)
        if self._core.covers_all(self._survey.filters, info):
            if info.subjects == len(self._sink.subjects()):
                return
        elif counters == self._clean:
            return
        there = await self._survey.there()
        self._take(await flow.next(0))  # what was on its way while the list was made
        if await self._compare(there, info, flow):
            self._clean = counters

    async def _check_progress(self, flow: Flow, info: BucketInfo) -> None:
        """Make sure that the deliveries keep up: a replica that lags behind for ever still sends heartbeats."""
        newest, missed = self._overdue
        self._overdue = (0, 0)
        if info.last_revision <= flow.newest:
            return
        last = await self._survey.present(self._survey.filters)
        there = max((stored.revision for stored in last), default=0)
        if there <= flow.newest:
            return
        if missed and newest == flow.newest:
            message = f"Revision {missed} is in the bucket and was not delivered."
            raise Interrupted(message)
        self._overdue = (flow.newest, there)

    async def _compare(self, there: set[str], info: BucketInfo, flow: Flow) -> bool:
        """Hold the keys that are known against those that were there a moment ago; tell whether they are the same."""
        known = set(self._sink.subjects())
        # What was written after the bucket was looked at may be missing from the list, or be on its way.
        gone = [subject for subject in known - there if (self._sink.revision(subject) or 0) <= info.last_revision]
        if len(gone) > MANY:
            message = f"{len(gone):,} keys have vanished."
            raise Interrupted(message)
        await self._read_again(gone)
        missing = there - known
        for stored in await self._survey.present(sorted(missing)[:_AT_ONCE]):
            if stored.revision <= flow.newest and self._sink.revision(stored.subject) is None:
                message = f"Revision {stored.revision} was passed over and not delivered."
                raise Interrupted(message)
        return not gone and not missing

    async def _read_again(self, subjects: list[str]) -> None:
        for start in range(0, len(subjects), _AT_ONCE):
            chunk = subjects[start : start + _AT_ONCE]
            before = {subject: self._sink.revision(subject) for subject in chunk}
            found = await self._survey.newest(chunk)
            older = [stored for stored in found if stored and stored.revision < (before[stored.subject] or 0)]
            if older:
                # Uncovered (F15), or of a bucket that was made anew meanwhile, which the flow has yet to tell.
                check_same(self._survey.seen, await self._survey.look())
            for subject, stored in zip(chunk, found, strict=True):
                known = self._sink.revision(subject)
                if known is None or known != before[subject]:
                    continue  # something newer was delivered meanwhile
                if stored is None:
                    self._sink.forget(vanished(subject, known, datetime.now(UTC)))
                    self._expiries.set(subject, known, None)
                elif stored.revision < known:
                    self._take([stored])
