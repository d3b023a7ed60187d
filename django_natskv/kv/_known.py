"""What a watch knows of a bucket: for each key its newest revision. Pure decisions, no clock, no network.

Owns the difference between what was known and what a replay shows, and which keys are to be looked at when. Knows
nothing of how any of it arrived.
"""

from __future__ import annotations

import heapq
from collections.abc import KeysView, Sequence
from datetime import datetime
from operator import attrgetter

from django_natskv.kv._breath import breathe, paced
from django_natskv.kv._nats.messages import Stored, moment
from django_natskv.kv.changes import OPERATION

_subject, _revision, _written = map(attrgetter, ("subject", "revision", "written"))
_PART = 64  # revisions that are taken at once
_SLACK = 1_000  # dates left behind before they are cleared away

# A bucket made anew counts from 1 again: only with its time is a revision itself. The time is as it came: ``moment``.
Mark = tuple[int, datetime | int]


class Known:
    """The newest revision of each key that a watch has passed on, markers included."""

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._live: set[str] = set()

    def subjects(self) -> KeysView[str]:
        """Return the subjects of all keys, those of markers included."""
        return self._marks.keys()

    def revision(self, subject: str) -> int | None:
        """Return the newest revision of a key, or None."""
        mark = self._marks.get(subject)
        return None if mark is None else mark[0]

    def apply(self, stored: Stored) -> None:
        """Take a new revision."""
        self._marks[stored.subject] = (stored.revision, stored.written)
        if stored.is_live:
            self._live.add(stored.subject)
        else:
            self._live.discard(stored.subject)

    def forget(self, subject: str) -> bool:
        """Take that nothing is kept of a key any more; tell whether it was live."""
        self._marks.pop(subject, None)
        was_live = subject in self._live
        self._live.discard(subject)
        return was_live

    def replace(self, replay: Sequence[Stored], now: datetime) -> list[Stored]:
        """Take the whole bucket as a replay shows it; return what is news, in order, what is gone last.

        Anything but the very same revision is news, an older one too: a server that crashed may have gone back (F2).
        Of several revisions of one key those after the known one are news.
        """
        if not self._marks and self._begin(replay):
            return list(replay)
        by_key: dict[str, list[Stored]] = {}
        for stored in paced(replay):
            by_key.setdefault(stored.subject, []).append(stored)
        news: list[Stored] = []
        for subject, revisions in paced(by_key.items()):
            news += self._news_of(subject, revisions)
        news.sort(key=_revision)  # of what is nearly in order
        gone = [vanished(subject, self._marks[subject][0], now) for subject in self._live if subject not in by_key]
        self._marks = {}
        self._live = set()
        for revisions in paced(by_key.values()):
            self.apply(revisions[-1])
        return news + gone

    def _begin(self, replay: Sequence[Stored]) -> bool:
        """Take the first replay, in which each key is there once as a rule; tell if that is so."""
        marks: dict[str, Mark] = {}
        for start in range(0, len(replay), _PART):
            some = replay[start : start + _PART]
            marks.update(
                zip(map(_subject, some), zip(map(_revision, some), map(_written, some), strict=True), strict=True)
            )
            breathe()
        if len(marks) != len(replay):
            return False
        self._marks = marks
        self._live = {stored.subject for stored in paced(replay) if not stored.headers or stored.is_live}
        return True

    def _news_of(self, subject: str, revisions: list[Stored]) -> list[Stored]:
        newest = len(revisions) - 1
        if newest:  # the usual one revision is left as it is: copying costs more than all the rest
            revisions = [stored._replace(delta=newest - position) for position, stored in enumerate(revisions)]
        mark = self._marks.get(subject)
        if mark is None:
            return revisions
        known, created = mark[0], moment(mark[1])
        for position, stored in enumerate(revisions):
            if stored.revision == known and stored.created == created and stored.is_live is (subject in self._live):
                return revisions[position + 1 :]
        # The known one is not kept any more: what came after it, else whatever stands there now. In a bucket made anew
        # what came after has lower revisions, and where clocks differ an earlier time.
        later = [stored for stored in revisions if stored.revision > known or stored.created > created]
        return later or revisions[-1:]


class Expiries:
    """When keys are to be looked at again because their newest revision has a time to live. One date a key."""

    def __init__(self) -> None:
        # The same tuples in both: there is one for each key that has a time to live of its own.
        self._dates: dict[str, tuple[float, str, int]] = {}
        self._heap: list[tuple[float, str, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def clear(self) -> None:
        """Forget all dates."""
        self._dates.clear()
        self._heap.clear()

    def set(self, subject: str, revision: int, due: float | None) -> None:
        """Take the date of a key's newest revision, which replaces any other; None: it has none."""
        if due is None:
            self._dates.pop(subject, None)
            return
        date = self._dates[subject] = (due, subject, revision)
        heapq.heappush(self._heap, date)
        if len(self._heap) > 2 * len(self._dates) + _SLACK:
            # A key that is written again and again leaves a date behind each time.
            self._heap = list(self._dates.values())
            heapq.heapify(self._heap)

    def next(self) -> float | None:
        """Return the earliest date, or None."""
        while self._heap and self._dates.get(self._heap[0][1]) is not self._heap[0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float, limit: int) -> list[tuple[str, int]]:
        """Return the keys, with revision, whose date has come, at most ``limit``, and forget their dates."""
        due: list[tuple[str, int]] = []
        while len(due) < limit and (date := self.next()) is not None and date <= now:
            _, subject, revision = heapq.heappop(self._heap)
            del self._dates[subject]
            due.append((subject, revision))
        return due


def vanished(subject: str, revision: int, now: datetime) -> Stored:
    """Return a purge of ``revision``, for a key that is gone and left no marker (F15)."""
    return Stored(subject, revision, now, {OPERATION: "PURGE"}, b"", delta=0)
