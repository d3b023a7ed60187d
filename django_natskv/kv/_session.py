"""The session behind a watch: replay a bucket, follow it, notice every way in which that can fail, begin again.

Owns when a replay is complete and when a copy cannot be trusted any more (NATS-FACTS, "A watch that was proven").
Knows nothing of who is told: a sink is given the whole bucket, then one revision after another.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import secrets
import time
from collections.abc import KeysView, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from django_natskv.exceptions import BucketNotFound, OperationalError
from django_natskv.kv._core import Core
from django_natskv.kv._known import vanished
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import HEARTBEAT, Flow, Interrupted
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv.driver import Operation, Runner
from django_natskv.kv.names import disjoint

logger = logging.getLogger("django_natskv.watch")

T = TypeVar("T")

AUDIT = 3.0  # seconds between two looks at the bucket's counters
INACTIVE = 30  # seconds after which the server lets go of a consumer that nobody pulls from
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0  # seconds between two attempts, with jitter
STEADY = 5.0  # seconds after which an attempt counts as a success, and the next failure as the first
BREATH = 256  # revisions after which the interpreter lock is let go
EXPIRY_GRACE = 0.5  # seconds that a server may be late with an expiry (F14)
_AT_ONCE = 256
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


class Session:
    """Keeps a sink equal to a bucket, or to the part of it under ``patterns``, until it is stopped."""

    def __init__(self, core: Core, runner: Runner, patterns: Sequence[str], sink: Sink, *, history: bool) -> None:
        self._core = core
        self._runner = runner
        self._filters = [core.prefix + pattern for pattern in disjoint(patterns)]
        self._sink = sink
        self._policy = "all" if history else "last_per_subject"
        self._what = f"watching bucket {core.name!r}"
        self._task: asyncio.Task[None] | None = None
        self._expiries: list[tuple[float, str, int]] = []
        self._failing = ""

    def start(self) -> None:
        """Begin, on the loop."""
        self._runner.driver.post(self._begin)

    def stop(self) -> None:
        """End. Returns at once, from any thread; safe to repeat."""
        self._runner.driver.mention(self._end)

    def _begin(self) -> None:
        self._task = self._core.wire.client.spawn(self._run())

        self._task.add_done_callback(lambda _task: self._sink.ended())

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        failures = 0
        while True:
            begun = time.monotonic()
            try:
                await self._follow()
            except BucketNotFound as error:
                # The truth about a bucket that is not there is that it is empty.
                self._sink.replace([])
                self._report(error)
            except OperationalError as error:
                self._report(error)
            except Exception as error:
                logger.exception("A watch failed in a way that it should not, and begins again")
                self._sink.stale(error)
            failures = 1 if time.monotonic() - begun > STEADY else failures + 1
            ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 10))
            await asyncio.sleep(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - jitter, not a secret

    def _report(self, error: OperationalError) -> None:
        self._sink.stale(error)
        if self._failing != error.type:
            # Once for each kind of trouble, not once an attempt.
            self._failing = error.type
            logger.warning("The watch on bucket %s was interrupted and goes on by itself: %s", self._core.name, error)

    async def _ask(self, operation: Operation[T]) -> T:
        return await self._runner.acall(operation)

    async def _follow(self) -> None:
        core = self._core
        info = await self._ask(core.wire.info(core.name))
        name = f"natskv-{secrets.token_hex(8)}"
        made = await self._ask(core.wire.create_consumer(core.name, self._consumer(name), self._what))
        flow = Flow(core.wire.client, core.wire.pull_subject(core.name, name))
        try:
            replay = await self._replay(info, flow, made.get("num_pending", 0))
            self._sink.replace(replay)
            self._remember_expiries(replay)
            if self._failing:
                self._failing = ""
                logger.info("The watch on bucket %s is complete again", core.name)
            await self._stay(info, flow)
        finally:
            flow.close()
            core.wire.drop_consumer(core.name, name)

    def _consumer(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "deliver_policy": self._policy,
            "ack_policy": "none",
            "filter_subjects": self._filters,
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": INACTIVE * _NS,
        }

    async def _replay(self, info: BucketInfo, flow: Flow, pending: int) -> list[Stored]:
        """Return all that was in the bucket throughout, and what came meanwhile."""
        replay: list[Stored] = []
        seen: set[str] = set()
        while pending or not await self._ask(self._core.is_complete(info, self._filters, seen, self._what)):
            # With nothing pending wait only a moment: a key may just be on its way to a new revision.
            news = await flow.next(HEARTBEAT if pending else 0.02)
            if not news:
                pending = 0  # or what was pending has vanished meanwhile
            for stored in news:
                replay.append(stored)
                seen.add(stored.subject)
                pending = stored.pending
                if not len(replay) % BREATH:
                    breathe()
        if self._policy == "all":
            return replay
        return list({stored.subject: stored for stored in replay}.values())

    async def _stay(self, info: BucketInfo, flow: Flow) -> None:
        """Pass on what comes, and look after what does not come by itself."""
        audit = time.monotonic() + AUDIT * random.uniform(0.5, 1)  # noqa: S311 - spreads the watches of many processes
        while True:
            news = [] if self._sink.is_busy() else await flow.next(self._patience(audit))
            for position, stored in enumerate(news, 1):
                self._sink.apply(stored)
                if not position % BREATH:
                    breathe()
            self._remember_expiries(news)
            await self._check_expiries()
            if self._sink.is_busy():
                await asyncio.sleep(0.02)
            elif time.monotonic() >= audit:
                begun = time.monotonic()
                await self._audit(info, flow)
                # A look that takes long is taken less often.
                audit = time.monotonic() + max(AUDIT, 20 * (time.monotonic() - begun)) * random.uniform(0.8, 1)  # noqa: S311

    def _patience(self, audit: float) -> float:
        due = min(audit, self._expiries[0][0]) if self._expiries else audit
        return max(0.0, due - time.monotonic())

    async def _audit(self, opened: BucketInfo, flow: Flow) -> None:
        """Hold what is known against the bucket's counters: nothing else tells of what left no marker (F15)."""
        core = self._core
        info = await self._ask(core.wire.info(core.name))
        if info.created != opened.created:
            message = "The bucket was made anew."
            raise Interrupted(message)
        if info.last_revision < opened.last_revision:
            message = "The server has gone back to an earlier state of the bucket."
            raise Interrupted(message)
        whole = core.covers_all(self._filters, info)
        if whole and info.subjects == len(self._sink.subjects()):
            return
        there = await self._ask(core.wire.subjects_under(info, self._filters, self._what))
        for stored in await flow.next(0.05):  # what was on its way while the list was made
            self._sink.apply(stored)
        known = set(self._sink.subjects())
        missing, gone = there - known, known - there
        if missing and set(await self._present(missing)) - set(self._sink.subjects()):
            message = "Keys are in the bucket that were never delivered."
            raise Interrupted(message)
        await self._read_again(sorted(gone))

    async def _present(self, subjects: set[str]) -> list[str]:
        found = await self._ask(self._core.wire.each_of_leader(self._core.name, _last(sorted(subjects)), self._what))
        return [stored.subject for stored in found if stored is not None]

    def _remember_expiries(self, news: Sequence[Stored]) -> None:
        """A value may lie beneath one that expires (F15): what has a time to live is read again after it."""
        for stored in news:
            seconds = stored.time_to_live
            if seconds:
                age = (datetime.now(UTC) - stored.created) / timedelta(seconds=1)
                due = time.monotonic() + max(0.0, seconds - age) + EXPIRY_GRACE
                heapq.heappush(self._expiries, (due, stored.subject, stored.revision))

    async def _check_expiries(self) -> None:
        now = time.monotonic()
        due: list[str] = []
        while self._expiries and self._expiries[0][0] <= now and len(due) < _AT_ONCE:
            _, subject, revision = heapq.heappop(self._expiries)
            if self._sink.revision(subject) == revision:
                due.append(subject)
        await self._read_again(due)

    async def _read_again(self, subjects: list[str]) -> None:
        for start in range(0, len(subjects), _AT_ONCE):
            chunk = subjects[start : start + _AT_ONCE]
            before = {subject: self._sink.revision(subject) for subject in chunk}
            found = await self._ask(self._core.wire.each_of_leader(self._core.name, _last(chunk), self._what))
            for subject, stored in zip(chunk, found, strict=True):
                known = self._sink.revision(subject)
                if known is None or known != before[subject]:
                    continue  # something newer was delivered meanwhile
                if stored is None:
                    self._sink.forget(vanished(subject, known, datetime.now(UTC)))
                elif stored.revision < known:
                    self._sink.apply(stored)


def _last(subjects: list[str]) -> list[dict[str, Any]]:
    return [{"last_by_subj": subject} for subject in subjects]


def breathe() -> None:
    """Let the other threads of the process have the interpreter for a moment: a replay must not starve them."""
    time.sleep(0.00005)
