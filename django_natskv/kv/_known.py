"""What a watch knows of a bucket: for each key its newest revision. Pure decisions, no clock, no network.

Owns the difference between what was known and what a replay shows. Knows nothing of how either arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView
from dataclasses import replace
from datetime import datetime

from django_natskv.kv._nats.messages import OPERATION, Stored

Mark = tuple[int, datetime]  # a bucket made anew counts from 1 again: only with its time is a revision itself


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
        self._marks[stored.subject] = (stored.revision, stored.created)
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

    def replace(self, replay: Iterable[Stored], now: datetime) -> list[Stored]:
        """Take the whole bucket as a replay shows it; return what is news, in order, what is gone last.

        Anything but the very same revision is news, an older one too: a server that crashed may have gone back (F2).
        Of several revisions of one key those after the known one are news.
        """
        by_key: dict[str, list[Stored]] = {}
        for stored in replay:
            by_key.setdefault(stored.subject, []).append(stored)
        news = [stored for subject, revisions in by_key.items() for stored in self._news_of(subject, revisions)]
        news.sort(key=lambda stored: stored.revision)
        gone = [vanished(subject, self._marks[subject][0], now) for subject in self._live if subject not in by_key]
        self._marks = {}
        self._live = set()
        for revisions in by_key.values():
            self.apply(revisions[-1])
        return news + gone

    def _news_of(self, subject: str, revisions: list[Stored]) -> list[Stored]:
        newest = len(revisions) - 1
        revisions = [replace(stored, delta=newest - position) for position, stored in enumerate(revisions)]
        mark = self._marks.get(subject)
        if mark is None:
            return revisions
        marks = [(stored.revision, stored.created) for stored in revisions]
        if mark in marks:
            return revisions[marks.index(mark) + 1 :]
        # The known one is not kept any more: of what came after it, else whatever stands there now.
        later = [stored for stored in revisions if stored.revision > mark[0] and stored.created >= mark[1]]
        return later or revisions[-1:]


def vanished(subject: str, revision: int, now: datetime) -> Stored:
    """Return a purge of ``revision``, for a key that is gone and left no marker (F15)."""
    return Stored(subject, revision, now, {OPERATION: "PURGE"}, b"", delta=0)
