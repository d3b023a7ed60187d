"""The store of a local cache in mode "mirror": every entry of a bucket, or of a part of it, in memory.

Owns what a reader sees, and that a whole new state is swapped in at once. Knows nothing of connections: a session gives
it revisions, a clock the time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, KeysView, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django_natskv.exceptions import CodecError
from django_natskv.kv._breath import breathe, paced
from django_natskv.kv._kept import Keeper, Kept, revision_of, weight
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import Interrupted
from django_natskv.kv._nats.messages import Stored, moment
from django_natskv.kv._session import Refused
from django_natskv.kv._state import MARKER, State
from django_natskv.kv.entries import Entry

logger = logging.getLogger("django_natskv.local")

OWN_FOR = 5.0  # seconds of a live copy after which a write that never came by it is forgotten
_PART = 64  # entries after which others may have the interpreter

Changed = Callable[[str, Entry | None, Entry | None, int], None]
Report = Callable[[Exception], None]


@dataclass(frozen=True, slots=True)
class Own:
    """A write of this process, shown to its readers until the watch has come by it."""

    entry: Entry | None
    revision: int
    since: float  # on the monotonic clock


class TooLarge(Refused):
    """The bucket does not fit within the bound."""


class Mirror:
    """The entries of a bucket by key: written on the loop of the watch, one key is read from any thread without a lock.

    ``wanted`` tells the keys that it keeps; ``changed`` is called with key, old entry, new entry and revision for each
    change after the first state; ``report`` with the error of each value that does not decode; ``swapped`` with the new
    entries before the changes that they are. Within one unbroken watch a key only gets newer; a new state replaces
    everything. ``TooLarge`` when it would grow beyond ``most`` bytes.
    """

    def __init__(
        self,
        keeper: Keeper,
        bucket: str,
        wanted: Callable[[str], Any],
        most: int,
        *,
        changed: Changed,
        report: Report,
        swapped: Callable[[dict[str, Kept]], None],
    ) -> None:
        self._keeper = keeper
        self._bucket = bucket
        self._wanted = wanted
        self._most = most
        self._changed = changed
        self._report = report
        self._swapped = swapped
        # Between the loop, threads that write themselves and those that read all. A thread may come to it again: in a
        # signal's handler, or where somebody who is told of what does not decode reads this very copy.
        self._writing = threading.RLock()
        self._state = State()
        self.own: dict[str, Own] = {}
        self._own_bytes = 0
        self.filled = False
        # Replaced, never counted up: two threads that count at once could end where a reader has been before.
        self.moment = object()
        self.lag = 0
        self._next: State | None = None  # what a replay has brought so far
        self._opened: float | None = None  # when the bucket was looked at before the replay that comes or came
        self._following = False
        self._seen = (0.0, 0)  # when the bucket was last looked at, and the newest revision that it had

    # --- read, from any thread ---

    @property
    def entries(self) -> dict[str, Kept]:
        """What is held, by key."""
        return self._state.entries

    @property
    def revision(self) -> int:
        """The newest revision that was seen."""
        return self._state.revision

    @property
    def bytes(self) -> int:
        """What all of it is counted with, writes of this process that the watch has not come by included."""
        return self._state.bytes + self._own_bytes

    @property
    def undecodable(self) -> int:
        """How many keys have a newest value that does not decode."""
        return len(self._state.undecodable)

    def look_up(self, key: str) -> Entry | None:
        """Return the entry of ``key``: this process's own write where that is newer, None for what has expired."""
        # Each is looked at once, in this order: a write of ours is let go only after what replaces it can be seen, and
        # a marker is noted before what it removes goes.
        own, state = self.own.get(key), self._state
        other = state.others.get(key, 0) if own is not None else 0
        kept = state.entries.get(key)
        if own is not None and own.revision > max(other, revision_of(kept) if kept is not None else 0):
            return self._keeper.hand_out(own.entry)
        return self._keeper.hand_out(self._unpacked(key, kept) if isinstance(kept, tuple) else kept)

    def peek(self, key: str) -> Entry | None:
        """Return the entry of ``key`` as it is held, expired or not, and without writes of ours on their way."""
        kept = self.entries.get(key)
        return self._unpacked(key, kept) if isinstance(kept, tuple) else kept

    def _unpacked(self, key: str, kept: Kept) -> Entry:
        """Make the entry of a key, once: whoever reads it next finds it made."""
        entry = self._keeper.unpack(kept)
        with self._writing:
            if self.entries.get(key) is kept:  # and nothing newer
                self.entries[key] = entry
        return entry

    def items(self) -> dict[str, Entry]:
        """Return all entries of one moment, by key."""
        keeper = self._keeper
        found = {key: keeper.hand_out(keeper.unpack(kept)) for key, kept in self._shown().items()}
        return {key: entry for key, entry in found.items() if entry is not None}

    def whole(self) -> Iterator[Entry]:
        """Return all that is in the bucket, expired or not: entries that are not to be handed out."""
        with self._writing:
            entries = self.entries.copy()
        return (self._keeper.unpack(kept) for kept in entries.values())

    def keys(self) -> list[str]:
        """Return the live keys of one moment."""
        entries = self._shown()
        return [key for key, entry in entries.items() if not self._keeper.has_expired(entry)]

    def _shown(self) -> dict[str, Kept]:
        with self._writing:  # or the writes of ours would be of another moment than the rest
            entries = self.entries.copy()
            for key, write in self.own.items():
                if write.revision > (self._state.revision_of(key) or 0):
                    entries.pop(key, None)
                    if write.entry is not None:
                        entries[key] = write.entry
        return entries

    # --- written by this process, in the thread that writes ---

    def wrote(self, key: str, stored: Stored, now: float) -> None:
        """Take an acknowledged write of this process. ``TooLarge`` when the watch has not come by too many of them."""
        if not self._wanted(key):
            return
        try:
            entry = self._keeper.entry(key, stored) if stored.is_live else None
        except CodecError:
            return  # the handle's codec and this one differ
        with self._writing:
            known = self.own.get(key)
            newest = max(known.revision if known is not None else 0, self._state.revision_of(key) or 0)
            if stored.revision > newest:
                self._let_go(key)
                own = self.own[key] = Own(entry, stored.revision, now)
                self._own_bytes += _weight_of_own(key, own)
                self.moment = object()
            if self._own_bytes > self._most:
                raise self._too_large()

    # --- the sink of a session, on the loop ---

    def looked(self, info: BucketInfo, asked: float, now: float) -> None:
        """Take what the server says of the bucket, asked for at ``asked``."""
        lives_changed = self._keeper.learn(info)
        if not self._following:
            if info.origin == info.bucket:  # a mirror is behind that bucket, and proves nothing
                self._seen = (asked, info.last_revision)
            # A later look, during the replay, would be too late: what was written since may still be on its way.
            self._opened = now if self._opened is None else self._opened
            return
        with self._writing:
            for key, write in list(self.own.items()):
                if write.since < now - OWN_FOR:
                    # Written and removed without a marker before the watch came by (F15).
                    self._let_go(key)
                    self.moment = object()
        if lives_changed:
            message = "The bucket's time to live was changed."
            raise Interrupted(message)

    def lost(self) -> None:
        """Take that a new replay is to come."""
        self._following, self._opened, self._seen = False, None, (0.0, 0)

    def begin(self) -> None:
        """Take that a replay begins, from nothing."""
        self._next = State()

    def arriving(self, news: Sequence[Stored]) -> None:
        """Take revisions of a replay, aside."""
        if self._next is None:
            self.begin()
        into = self._next
        assert into is not None  # noqa: S101 - begun above
        for start in range(0, len(news), _PART):
            some = news[start : start + _PART]
            if not into.take_together(self._keeper, some, self._wanted):
                for stored in some:
                    key = self._keeper.core.key(stored)
                    into.place(key, stored, self._kept(key, stored, into))
            if into.bytes > self._most:
                break
            breathe()
        self.lag = news[-1].pending if news else 0
        self._bound(into.bytes)

    def subjects(self) -> KeysView[str]:
        """Return the subjects of all keys that are known, those of markers included."""
        return self._state.subjects(self._keeper.core.prefix)

    def revision_of(self, subject: str) -> int | None:
        """Return the newest known revision of a key."""
        return self._state.revision_of(subject[len(self._keeper.core.prefix) :])

    def replace(self, replay: Sequence[Stored]) -> None:
        """Take a whole new state at once."""
        self.begin()
        self.arriving(replay)
        self.arrived()

    def arrived(self, seen: Callable[[], None] = lambda: None) -> None:
        """Swap in what arrived, call ``seen`` now that readers see it, and tell what it changes."""
        came, self._next = self._next or State(), None
        before, told = self.entries, self.filled
        with self._writing:
            self._state = came
            self.filled = self._following = True
            self._swapped(came.entries)
            for key, own in list(self.own.items()):
                if not self._outlives(key, own):
                    self._let_go(key)
            self.moment = object()
        self.lag = 0
        seen()
        if told:
            self._tell_difference(before, came.entries)

    def apply(self, stored: Stored) -> None:
        """Take a new revision."""
        key = self._keeper.core.key(stored)
        with self._writing:
            kept = self._kept(key, stored, self._state)
            old = self.entries.get(key)
            self._state.place(key, stored, kept)
            self._confirm(key, stored.revision)
            new = self.entries.get(key)
            self.moment = object()
        self.lag = max(0, stored.pending)
        self._bound(self._state.bytes)
        if new is not old:
            self._tell(key, old, new, stored.revision)

    def forget(self, gone: Stored) -> None:
        """Take that nothing is kept of a key any more."""
        key = self._keeper.core.key(gone)
        with self._writing:
            self._confirm(key, gone.revision)
            old = self._state.drop(key)
            self.moment = object()
        if old is not None:
            self._tell(key, old, None, gone.revision)

    def restore(self, entries: dict[str, Kept]) -> bool:
        """Take entries that are older than what the server has, to begin with; tell whether they fit and are wanted."""
        state = State(entries)
        if self.filled or state.bytes > self._most:
            return False
        self.filled = True
        self._state = state
        self._swapped(entries)
        self.moment = object()
        return True

    # --- placing ---

    def _kept(self, key: str, stored: Stored, into: State) -> Kept | None:
        """Return what is to be held of a key from a revision on."""
        is_live = not stored.headers or stored.is_live
        return self._decoded(key, stored, into) if is_live and self._wanted(key) else None

    def _decoded(self, key: str, stored: Stored, into: State) -> Kept | None:
        """Return the entry of a value, or the last good one of its key."""
        try:
            kept = self._keeper.keep(key, stored)
        except CodecError as error:
            if self._state.undecodable.get(key) != stored.revision:
                logger.error("%s The last good value, if any, stays in use.", error)  # noqa: TRY400 - told, not traced
                self._report(error)
            into.undecodable[key] = stored.revision
            return into.entries.get(key) or self.entries.get(key)
        if into.undecodable:
            into.undecodable.pop(key, None)
        return kept

    def _bound(self, size: int) -> None:
        if size > self._most:
            self._next = None
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"Bucket {self._bucket!r} takes more than the {self._most:,} bytes that a local cache may have "
            "(MAX_BYTES): raise them, keep a part of its keys, or use mode 'invalidate'."
        )

    def _confirm(self, key: str, revision: int) -> None:
        own = self.own.get(key)
        if own is not None and own.revision <= revision:
            self._let_go(key)

    def _let_go(self, key: str) -> None:
        own = self.own.pop(key, None)
        if own is not None:
            self._own_bytes -= _weight_of_own(key, own)

    def _outlives(self, key: str, own: Own) -> bool:
        # What was written before the bucket was looked at is in the new state, or lost with a server that went back.
        written_before = self._opened is not None and own.since < self._opened
        lost = written_before or self._is_lost(own)
        return not lost and own.revision > (self._state.revision_of(key) or 0)

    def _is_lost(self, own: Own) -> bool:
        """Tell whether a write was acknowledged before a look that has shown the bucket without it.

        It was of a bucket that was made anew since, or of a server that went back. On a busy machine an answer may be
        read long after it was given: ``since`` alone does not tell.
        """
        asked, last_revision = self._seen
        return own.since < asked and own.revision > last_revision

    def _tell(self, key: str, old: Kept | None, new: Kept | None, revision: int) -> None:
        before = None if old is None else self._keeper.unpack(old)
        after = None if new is None else self._keeper.unpack(new)
        self._changed(key, before, after, revision)

    def _tell_difference(self, before: dict[str, Kept], after: dict[str, Kept]) -> None:
        for key, new in paced(after.copy().items()):
            old = before.get(key)
            if old is None or _mark(old) != _mark(new):
                self._tell(key, old, new, revision_of(new))
        for key, old in paced(before.items()):
            if key not in after:
                self._tell(key, old, None, self._state.others.get(key, revision_of(old)))


def _weight_of_own(key: str, own: Own) -> int:
    return MARKER + len(key) if own.entry is None else weight(own.entry)


def _mark(kept: Kept) -> tuple[int, datetime]:
    return (kept[2], moment(kept[3])) if isinstance(kept, tuple) else (kept.revision, kept.created)
