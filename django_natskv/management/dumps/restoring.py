"""A bucket filled from the lines of a dump.

Owns what is written, left out or refused, and in which order. Must not know files or the terminal.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from django_natskv.exceptions import UsageError, WrongRevision
from django_natskv.kv import Bucket, BucketConfig, Change, Entry, Operation
from django_natskv.kv.entries import MAX_TTL_MS
from django_natskv.kv.names import check_key
from django_natskv.management.dumps.lines import Header, Line

WINDOW = 4_096  # lines that are held at a time
WINDOW_BYTES = 2**22  # of their values, at the least one value
_SECOND = 1_000  # milliseconds
_NAMED = 10  # keys that are told by name, of those that were not restored


class Mode(StrEnum):
    """What becomes of a key that the bucket has already."""

    EMPTY = "empty"  # there is none
    REPLACE = "replace"
    SKIP_EXISTING = "skip-existing"
    IF_REVISION = "if-revision"


@dataclass(slots=True)
class Outcome:
    """How many entries were written, and why others were not; some of their keys."""

    written: int = 0
    skipped: int = 0  # the key exists, or holds this already
    expired: int = 0
    conflicts: int = 0  # the key has moved on since the dump
    unfit: int = 0  # another program's key or header, which the facade does not write
    named: list[str] = field(default_factory=list)

    def name(self, key: str) -> None:
        """Remember a key of an entry that should have been restored and was not."""
        if len(self.named) < _NAMED:
            self.named.append(key)


class Seen:
    """The keys that a run has begun with, outside of memory: there may be millions."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)  # a file of its own, which nobody else sees
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = FILE;"
            "CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID;"
        )

    def is_new(self, key: str) -> bool:
        """Tell whether ``key`` is asked for the first time."""
        return self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1

    def close(self) -> None:
        """Let go of them."""
        self._database.close()


class Clock:
    """The server's time, asked for once: it alone says what has expired."""

    def __init__(self, told: datetime) -> None:
        self._told = told
        self._at = time.monotonic()

    def now(self) -> datetime:
        """Return the time."""
        return self._told + timedelta(seconds=time.monotonic() - self._at)


class Restoring:
    """One run: ``add`` takes lines in the order of the dump, ``finish`` writes what is left of them.

    ``superseded`` has, by key, the revision of its last line in a dump without history, where it was written while the
    dump was made: only that one counts. With ``dry_run`` nothing is written, and ``bucket`` may be None: one that would
    be made as the dump says.
    """

    def __init__(
        self,
        bucket: Bucket | None,
        header: Header,
        mode: Mode,
        *,
        clock: Clock,
        superseded: Mapping[str, int],
        dry_run: bool = False,
        tell: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.outcome = Outcome()
        self._bucket = bucket
        self._history = header.history
        self._dumped = BucketConfig.parse({**header.config, "bucket": header.bucket})
        self._ttl_ms = (bucket.config if bucket else self._dumped).ttl_ms or 0
        self._mode = mode
        self._clock = clock
        self._superseded = superseded
        self._dry_run = dry_run
        self._tell = tell
        self._window: list[Line] = []
        self._size = 0
        self._seen = Seen() if mode is Mode.REPLACE and header.history else None

    def add(self, line: Line) -> None:
        """Restore a line, soon."""
        if self._superseded.get(line.key, line.revision) != line.revision:
            return
        self._window.append(line)
        self._size += len(line.value or b"")
        if len(self._window) >= WINDOW or self._size >= WINDOW_BYTES:
            self.finish()

    def finish(self) -> None:
        """Restore what was added."""
        window, self._window, self._size = self._window, [], 0
        for together in _rounds(line for line in window if self._is_fit(line)):
            changes = [change for line in self._chosen(together) if (change := self._change(line)) is not None]
            if self._dry_run or self._bucket is None:
                self.outcome.written += len(changes)
            else:
                self._write(self._bucket, changes)
        self._tell(self.outcome.written)

    def close(self) -> None:
        """Let go of what was remembered for the run."""
        if self._seen is not None:
            self._seen.close()

    # --- which ---

    def _is_fit(self, line: Line) -> bool:
        try:
            check_key(line.key)
            Change.put(line.key, b"", headers=line.headers).wire_headers()
        except UsageError:
            self.outcome.unfit += 1
            self.outcome.name(line.key)
            return False
        return True

    def _chosen(self, lines: Sequence[Line]) -> Iterator[Line]:
        """Yield the lines of different keys that the mode does not rule out."""
        if self._mode in (Mode.EMPTY, Mode.REPLACE):
            yield from lines
            return
        there = self._bucket.get_many(line.key for line in lines) if self._bucket else {}
        for line in lines:
            present = there.get(line.key)
            if _says_the_same(line, present) or (self._mode is Mode.SKIP_EXISTING and present is not None):
                self.outcome.skipped += 1
            elif self._mode is Mode.IF_REVISION and (present is None or present.revision != line.revision):
                self._conflict(line.key)
            else:
                yield line

    def _conflict(self, key: str) -> None:
        self.outcome.conflicts += 1
        self.outcome.name(key)

    # --- how ---

    def _change(self, line: Line) -> Change | None:
        """Return what restores a line, or None when nothing is left of it."""
        left = self._left(line)
        if left is not None and left <= 0:
            self.outcome.expired += 1
            return self._expiry(line)
        # A purge erases by itself, and is remembered like the rest: what follows it must not.
        erases = self._mode is Mode.REPLACE and (self._seen is None or self._seen.is_new(line.key))
        # The bucket's own limit sees to it where it is no longer than what is left.
        ttl_ms = None if left is None or 0 < self._ttl_ms <= left else max(_SECOND, left)
        if line.operation is Operation.PURGE:
            return Change.purge(line.key, marker_ttl_ms=ttl_ms, headers=line.headers)
        guard = line.revision if self._mode is Mode.IF_REVISION else None
        if line.operation is Operation.DELETE:
            return Change.delete(
                line.key, revision=guard, marker_ttl_ms=ttl_ms, headers=line.headers, erases_history=erases
            )
        if self._mode is Mode.SKIP_EXISTING:
            return Change.create(line.key, line.value, ttl_ms=ttl_ms, headers=line.headers)
        if guard is not None:
            return Change.update(line.key, line.value, guard, ttl_ms=ttl_ms, headers=line.headers)
        return Change.put(line.key, line.value, ttl_ms=ttl_ms, headers=line.headers, erases_history=erases)

    def _expiry(self, line: Line) -> Change | None:
        """Return what the server would have done: its marker takes the history along, where the bucket has one."""
        marker_ttl_ms = self._dumped.limit_marker_ttl_ms
        if not (self._history and marker_ttl_ms and line.operation is Operation.PUT):
            return None
        return Change.purge(line.key, marker_ttl_ms=marker_ttl_ms)

    def _left(self, line: Line) -> int | None:
        """Return the milliseconds that an entry has left to live, None for ever."""
        given, config = line.ttl_ms, self._dumped
        if given == 0:
            return None  # it outlives its bucket's limit
        if given is not None and (config.history or 1) > 1:
            given = max(given, config.limit_marker_ttl_ms or 0)  # the least that the server lets it live (F15)
        lives = min((each for each in (given, config.ttl_ms) if each), default=None)
        if lives is None:
            return None
        # It was made by another clock, which may go ahead; other programs may ask for more than the facade does.
        age = max(0, (self._clock.now() - line.created) // timedelta(milliseconds=1))
        return min(lives - age, MAX_TTL_MS)

    def _write(self, bucket: Bucket, changes: Sequence[Change]) -> None:
        results = bucket.write_many(changes)
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, int):
                self.outcome.written += 1
            elif not isinstance(result, WrongRevision):
                raise result
            elif self._mode is Mode.SKIP_EXISTING:
                self.outcome.skipped += 1
            else:
                self._conflict(change.key)


def _rounds(lines: Iterable[Line]) -> list[list[Line]]:
    """Return lists without a key twice, to be written one after the other: in the first each key's first line."""
    rounds: list[list[Line]] = []
    met: dict[str, int] = {}
    for line in lines:
        number = met.get(line.key, 0)
        met[line.key] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(line)
    return rounds


def _says_the_same(line: Line, present: Entry | None) -> bool:
    """Tell whether the key is as the line wants it: a rerun finds what was written before."""
    if present is None:
        return line.operation is not Operation.PUT
    return line.operation is Operation.PUT and (present.value, present.headers) == (line.value, line.headers)
