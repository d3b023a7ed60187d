"""Mode "mirror" of a local cache: everything is kept, a read is a look-up in a dict.

Owns the way that a read takes, and what is served before the server was reached. Knows nothing of when a replay is
complete (a session) nor of what is seen when (the store).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, KeysView, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django_natskv.exceptions import BucketNotFound
from django_natskv.kv._feed import Feed, Source, State
from django_natskv.kv._kept import Clock, Keeper, Kept, plain
from django_natskv.kv._mirror import Mirror, Own, TooLarge
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._session import Session
from django_natskv.kv._snapshot import Saver, SnapshotFile
from django_natskv.kv.entries import Entry
from django_natskv.kv.local import LocalCache, LocalCacheStatus
from django_natskv.kv.names import check_key, matcher

FIRST_SAVE = 0.5  # seconds from the end of a replay to the snapshot file
SAVE = 5.0  # seconds from a change to the snapshot file


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a parent process held when this one was forked from it."""

    entries: dict[str, Kept]
    equal: float | None  # when it was last known to be equal, on the monotonic clock, which a machine's processes share


class MirrorCache(LocalCache["MirrorFeed"]):
    """A local cache that holds all of its bucket, or of its part of it.

    ``get()``, ``value()``, ``keys()`` and ``items()`` never use the network: what is not held is absent. The first of
    them in a process waits for the first replay, at most LOCAL_CACHE["WAIT"] seconds, and only as long as nothing has
    failed; afterwards nothing waits. They raise ``OperationalError`` when the bucket was too large for MAX_BYTES.
    """

    def __init__(self, source: Source, max_bytes: int, snapshot: SnapshotFile | None) -> None:
        self._entries: dict[str, Kept] = {}
        self._own: dict[str, Own] = {}
        self._inherited: Inherited | None = None
        self._snapshot = snapshot
        super().__init__(source, max_bytes)

    @property
    def moment(self) -> object:
        """See LocalCache."""
        feed = self._feed
        return object() if feed is None or feed.over else feed.mirror.moment

    def get(self, key: str) -> Entry | None:
        """Return the entry of ``key``, or None when it is absent; keys outside of the part that is held are."""
        # In this order: a write of ours is let go only when the entries show it.
        if not self._own and type(entry := self._entries.get(key)) is Entry:
            return entry
        return self._settled(key).look_up(key)

    async def aget(self, key: str) -> Entry | None:
        """See get()."""
        # In this order: a write of ours is let go only when the entries show it.
        if not self._own and type(entry := self._entries.get(key)) is Entry:
            return entry
        return (await self._asettled(key)).look_up(key)

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` when it is absent. See get()."""
        if self._own or type(entry := self._entries.get(key)) is not Entry:
            entry = self._settled(key).look_up(key)
        return default if entry is None else entry.value

    async def avalue(self, key: str, default: Any = None) -> Any:
        """See value()."""
        if self._own or type(entry := self._entries.get(key)) is not Entry:
            entry = (await self._asettled(key)).look_up(key)
        return default if entry is None else entry.value

    def view(self) -> Callable[[str], Entry | None] | None:
        """Return what gives the entry of a key as it is held: for who keeps what was made of it.

        None unless the copy is live, and while a write of this process has not come by its watch: use ``get()`` then.
        The entries are not the reader's own and must not be changed; those that have expired may still be among them.
        """
        feed = self._feed
        if feed is None or self._own or not feed.is_live():
            return None
        return feed.mirror.peek

    def keys(self) -> list[str]:
        """Return the live keys, in no particular order."""
        return self._settled().keys()

    def items(self) -> dict[str, Entry]:
        """Return all entries by key, as they were at one moment."""
        return self._settled().items()

    def was_made_with(self, max_bytes: int | None, snapshot: str | os.PathLike[str] | None) -> bool:
        """See LocalCache."""
        same = snapshot is None or (self._snapshot is not None and self._snapshot.path == Path(snapshot))
        return max_bytes in (None, self.max_bytes) and same

    def close(self) -> None:
        """Stop, write what is to be written to the snapshot file, and forget everything. See LocalCache."""
        feed = self._feed
        if feed is not None:
            feed.save_now()
        super().close()

    def wrote(self, key: str, revision: int, headers: dict[str, str], data: bytes) -> None:
        """Take an acknowledged write of this process."""
        feed = self._feed
        if feed is not None and not feed.over:
            stored = Stored(key, revision, feed.clock.now(), headers, data)
            try:
                feed.mirror.wrote(key, stored, time.monotonic())
            except TooLarge as error:
                feed.overflow(error)

    def forked(self) -> None:
        """See LocalCache."""
        feed = self._feed
        if feed is not None and feed.mirror.filled:
            self._inherited = Inherited(feed.mirror.entries, feed.equal)
        super().forked()

    def publish(self, feed: MirrorFeed, entries: dict[str, Kept], own: dict[str, Own]) -> None:
        """Let readers see a new state of ``feed``, if that is still the one in use."""
        with self._starting:
            if self._feed is feed:
                self._own = own
                self._entries = entries

    def _settled(self, key: str | None = None) -> Mirror:
        """Return what is to be read, when there is something to serve or no more reason to wait; check ``key``."""
        if key is not None:
            check_key(key)
        feed = self._running()
        deadline = feed.deadline
        while True:
            if not feed.settled.is_open and not self._source.watching.driver.is_driven_here():
                feed.settled.wait_open(deadline - time.monotonic())
            mirror = self._readable(feed, deadline)
            if mirror is not None:
                return mirror
            feed = self._running()

    async def _asettled(self, key: str) -> Mirror:
        check_key(key)
        feed = self._running()
        deadline = feed.deadline
        while True:
            await feed.settled.await_open(deadline - time.monotonic())
            mirror = self._readable(feed, deadline)
            if mirror is not None:
                return mirror
            feed = self._running()

    def _readable(self, feed: MirrorFeed, deadline: float) -> Mirror | None:
        """Return what ``feed`` holds; None if it ended with nothing, while there is time to wait for the next one.

        What it held stands for the moment before its end. "Nothing" would be neither that nor what comes after it.
        """
        mirror = feed.mirror  # first: once it is over this is taken away
        self._served(feed)
        return None if feed.over and not mirror.filled and time.monotonic() < deadline else mirror

    def _cool(self) -> None:
        self._entries, self._own = {}, {}

    def _new_feed(self) -> MirrorFeed:
        inherited, self._inherited = self._inherited, None
        return MirrorFeed(self, self._source, self._snapshot, inherited)

    def _measured(self, feed: MirrorFeed) -> LocalCacheStatus:
        mirror = feed.mirror
        return LocalCacheStatus(
            feed.state,
            feed.age,
            mirror.revision,
            len(mirror.entries),
            mirror.bytes,
            mirror.lag,
            mirror.undecodable,
            feed.reason,
        )


class MirrorFeed(Feed):
    """One run of a mirror in this process."""

    def __init__(
        self, cache: MirrorCache, source: Source, snapshot: SnapshotFile | None, inherited: Inherited | None
    ) -> None:
        super().__init__(source)
        self._cache = cache
        self._snapshot = snapshot
        self._inherited = inherited
        self._saver = None if snapshot is None else Saver(self._save)
        self.clock = Clock()
        core = source.core(source.watches)
        self._keeper = Keeper(core, self.clock)
        self.mirror = self._new_mirror()

    def _new_mirror(self) -> Mirror:
        return Mirror(
            self._keeper,
            self.source.bucket,
            matcher(self.source.patterns),
            self._cache.max_bytes,
            changed=self._changed,
            report=self._report,
            swapped=self._swapped,
        )

    @property
    def equal(self) -> float | None:
        """When it was last known to be equal to the bucket, on the monotonic clock."""
        return self.heard if self._live else self._equal

    def save_now(self) -> None:
        """Write what is to be written to the snapshot file."""
        if self._saver is not None:
            self._saver.flush()

    def overflow(self, error: TooLarge) -> None:
        """Give up for good, soon: this process has written more than fits while the watch was interrupted."""
        self.source.watching.driver.mention(partial(self._overflow, error))

    def _overflow(self, error: TooLarge) -> None:
        if self.refusal is None and not self.over:
            self.refuse(error)
            self._end()

    # --- the sink of the session, on the loop ---

    def subjects(self) -> KeysView[str]:
        """See Sink."""
        return self.mirror.subjects()

    def revision(self, subject: str) -> int | None:
        """See Sink."""
        return self.mirror.revision_of(subject)

    def replace(self, replay: Sequence[Stored]) -> None:
        """See Sink."""
        self.begin()
        self.arriving(replay)
        self.arrived()

    def begin(self) -> None:
        """See Gatherer."""
        self.mirror.begin()

    def arriving(self, news: Sequence[Stored]) -> None:
        """See Gatherer."""
        try:
            self.mirror.arriving(news)
        except TooLarge as error:
            self.refuse(error)
            raise

    def arrived(self) -> None:
        """See Gatherer."""
        # It is live before its changes are told, which takes a while: no reader sees the new state as a stale one.
        self.mirror.arrived(self._completed)

    def _completed(self) -> None:
        super().replace(())
        self._mark(FIRST_SAVE)

    def apply(self, stored: Stored) -> None:
        """See Sink."""
        try:
            self.mirror.apply(stored)
        except TooLarge as error:
            self.refuse(error)
            raise

    def forget(self, gone: Stored) -> None:
        """See Sink."""
        self.mirror.forget(gone)

    def stale(self, error: Exception) -> None:
        """See Sink."""
        super().stale(error)
        self.mirror.lost()

    def _looked(self, info: BucketInfo, asked: float) -> None:
        self.mirror.looked(info, asked, time.monotonic())

    # --- what the store tells ---

    def _changed(self, key: str, old: Entry | None, new: Entry | None, revision: int) -> None:
        self._mark(SAVE)
        listener = self.source.listener
        if listener is not None and listener.wants_entries():
            before = None if old is None else plain(old)
            after = None if new is None else plain(new)
            listener.entry_changed(self.source.bucket, key, before, after, revision)

    def _report(self, error: Exception) -> None:
        if self.source.listener is not None:
            self.source.listener.connection_status("error", error)

    def _swapped(self, entries: dict[str, Kept]) -> None:
        self._cache.publish(self, entries, self.mirror.own)

    # --- a run ---

    def _make(self, info: BucketInfo) -> Session:
        core = self.source.core(self.source.watches, info)
        self._keeper.core = core
        return Session(
            core,
            self.source.watching,
            self.source.patterns,
            self,
            history=False,
            looked=self._looked,
            gatherer=self,
        )

    def _dropped(self) -> None:
        self._cache.publish(self, {}, {})
        self.mirror = self._new_mirror()

    async def _fall_back(self) -> None:
        """Serve what the parent process held, or what the snapshot file holds."""
        if self.mirror.filled:
            return
        if self._inherited is not None:
            self._serve(self._inherited.entries, self._inherited.equal)
            self._inherited = None
        elif self._snapshot is not None:
            read = partial(self._snapshot.read, self._keeper, self._cache.max_bytes)
            found = await asyncio.get_running_loop().run_in_executor(None, read)
            if found is not None and not self.mirror.filled:
                self._serve(found.entries, time.monotonic() - self._age_of(found.taken))

    def _serve(self, entries: Mapping[str, Kept], equal: float | None) -> None:
        # Meanwhile the server may have said that there is no bucket.
        if not isinstance(self._error, BucketNotFound) and self.mirror.restore(dict(entries)):
            self._equal = equal
            self._serves_old = True

    def _age_of(self, taken: datetime) -> float:
        return max(0.0, (self.clock.now() - taken) / timedelta(seconds=1))

    def _mark(self, delay: float) -> None:
        if self._saver is not None:
            self._saver.mark(delay)

    def _save(self) -> None:
        # Only what is the bucket's state now: another process may have written what is newer than a stale copy.
        if self._snapshot is not None and self.state is State.LIVE:
            self._snapshot.write(self.mirror.whole(), self._keeper, self.clock.now())
