"""The replay of a session: everything that was in the bucket throughout, from the first delivery to the last.

Owns when a replay is complete (NATS-FACTS, "A watch that was proven", 3). Knows nothing of what is done with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol

from django_natskv.kv._breath import breathe
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import HEARTBEAT, Flow, Interrupted
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._survey import Survey

STUCK = 3.0  # seconds without a delivery after which what is in the bucket will not come
_PART = 64  # deliveries after which others may have the interpreter
_MOMENT = 0.02  # seconds

_subject, _headers = attrgetter("subject"), attrgetter("headers")


class Gatherer(Protocol):
    """A sink that takes a replay as it comes, so that no more of it is held than the sink holds. May raise Refused."""

    def begin(self) -> None:
        """Take that a replay begins, from nothing."""

    def arriving(self, news: Sequence[Stored]) -> None:
        """Take what came, in order of revision."""

    def arrived(self) -> None:
        """Take that what came since ``begin`` is the whole bucket."""


def check_same(before: BucketInfo, now: BucketInfo) -> None:
    """Raise ``Interrupted`` when it is another bucket now, or an earlier state of it."""
    if now.created != before.created:
        message = "The bucket was made anew."
        raise Interrupted(message)
    if now.last_revision < before.last_revision:
        message = "The server has gone back to an earlier state of the bucket."
        raise Interrupted(message)


class Replay:
    """One replay. ``gatherer`` takes it as it comes, if there is one; with ``history`` all revisions are wanted."""

    def __init__(self, survey: Survey, flow: Flow, gatherer: Gatherer | None, *, history: bool) -> None:
        self._survey = survey
        self._flow = flow
        self._gatherer = gatherer
        self._history = history
        self._latest: dict[str, Stored | None] = {}  # in order of delivery
        self._revisions: list[Stored] = []
        self._overdue: float | None = None  # since when nothing moved, where that was found to be too long

    async def whole(self, opened: BucketInfo, pending: int) -> list[Stored]:
        """Return all that was in the bucket throughout, and what came meanwhile, in order.

        What a gatherer has taken is not held here as well, but for what has a time to live. ``opened`` is the bucket as
        it was before, ``pending`` what the server says is to come.
        """
        awaited: set[str] | None = None
        count, due = 0, pending
        moved = time.monotonic()
        if self._gatherer is not None:
            self._gatherer.begin()
        while pending or (awaited := await self._awaited(opened, awaited)):
            # With nothing pending wait only a moment: a key may just be on its way to a new revision.
            news = await self._flow.next(HEARTBEAT if pending else _MOMENT)
            for start in range(0, len(news), _PART):
                self._take(news[start : start + _PART])
                breathe()
            count += len(news)
            moved = time.monotonic() if news else moved
            if not news and not pending and awaited:
                awaited = await self._still_awaited(awaited, moved)
            # What was pending may have vanished meanwhile; and in a busy bucket something is always pending.
            pending = news[-1].pending if news and count < due else 0
        if self._history:
            return self._revisions
        return [stored for stored in self._latest.values() if stored is not None]

    def _take(self, news: Sequence[Stored]) -> None:
        latest = self._latest
        if self._gatherer is not None:
            self._gatherer.arriving(news)
            if not any(map(_headers, news)):
                latest.update(dict.fromkeys(map(_subject, news)))
                return
        elif self._history:
            self._revisions.extend(news)
        for stored in news:
            latest.pop(stored.subject, None)  # deliveries come in order, and so the values are
            held = self._gatherer is not None and not stored.time_to_live
            latest[stored.subject] = None if held else stored

    async def _awaited(self, opened: BucketInfo, awaited: set[str] | None) -> set[str]:
        """Return the keys that have yet to be delivered before the replay is over."""
        flow = self._flow
        if awaited is None:
            info = await self._survey.look()
            check_same(opened, info)
            if not info.subjects or (flow.newest == info.last_revision and not flow.pending):
                # Asked after the newest revision of all was delivered: deliveries come in order, so nothing is left.
                return set()
            awaited = await self._survey.there()
        return {subject for subject in awaited if subject not in self._latest} or await self._behind()

    async def _still_awaited(self, awaited: set[str], moved: float) -> set[str]:
        """Return those that are there still: what is not will not come."""
        if time.monotonic() - moved > STUCK:
            if self._overdue == moved:
                # From a replica that does not follow any more, yet sends heartbeats: perhaps another one has more.
                message = f"{min(awaited)} is in the bucket and was not delivered."
                raise Interrupted(message)
            # Once more: a process that stood still has yet to read what came, and has done so with the next answer.
            self._overdue = moved
        return awaited & await self._survey.there()

    async def _behind(self) -> set[str]:
        """Return the keys of what is newer than all deliveries: a replica that lags has all keys, but as they were."""
        survey, newest = self._survey, self._flow.newest
        if newest >= survey.seen.last_revision:
            return set()
        return {stored.subject for stored in await survey.present(survey.filters) if stored.revision > newest}
