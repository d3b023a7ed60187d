"""Mode "invalidate" of a local cache: what was read is kept until somebody changes it.

Owns the way that a read takes, and the watch that brings changes without their values. Knows nothing of what may be
kept how long: the store decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from django_natskv.kv._core import Core
from django_natskv.kv._feed import STALLED, Feed, Source
from django_natskv.kv._kept import Clock, Keeper
from django_natskv.kv._lru import Lru, Reading
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import Flow
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._replay import check_same
from django_natskv.kv._session import Session
from django_natskv.kv.entries import Entry
from django_natskv.kv.local import LocalCache, LocalCacheStatus
from django_natskv.kv.names import check_key
from django_natskv.kv.runner import Operation


class InvalidatingCache(LocalCache["InvalidatingFeed"]):
    """A local cache that keeps what was read lately, absence included, until somebody changes it.

    ``get()`` and ``value()`` read the bucket for what is not held, with the errors of ``Bucket.get()``; a read waits
    for nothing else. While the watch is interrupted nothing is held and every read goes to the bucket. ``keys()`` and
    ``items()`` give what is held now. When more than MAX_BYTES was read, what was not used lately goes first.
    """

    def get(self, key: str) -> Entry | None:
        """Return the entry of ``key``, held or read from the bucket, or None when it is absent."""
        feed = self._running()
        now = time.monotonic()
        if feed.is_on(now) and (held := feed.lru.find(key, now)) is not None:
            return feed.lru.hand_out(held)
        return self._source.requesting.call(feed.read(key))

    async def aget(self, key: str) -> Entry | None:
        """See get()."""
        feed = self._running()
        now = time.monotonic()
        if feed.is_on(now) and (held := feed.lru.find(key, now)) is not None:
            return feed.lru.hand_out(held)
        return await self._source.requesting.acall(feed.read(key))

    def peek(self, keys: Iterable[str]) -> list[Entry | None] | None:
        """Return the entries of ``keys`` as held, None for what is absent: for who keeps what was made of them.

        None unless all of them are held: use ``get()`` then. The entries are not the reader's own and must not be
        changed; those that have expired may still be among them.
        """
        feed = self._feed
        now = time.monotonic()
        return feed.lru.peek(keys, now) if feed is not None and feed.is_on(now) else None

    def keys(self) -> list[str]:
        """Return the keys of the entries that are held now, in no particular order."""
        return list(self.items())

    def items(self) -> dict[str, Entry]:
        """Return the entries that are held now, by key."""
        feed = self._running()
        now = time.monotonic()
        return feed.lru.items(now) if feed.is_on(now) else {}

    def wrote(self, key: str, revision: int, headers: dict[str, str], data: bytes) -> None:  # noqa: ARG002
        """Take an acknowledged write of this process."""
        feed = self._feed
        if feed is not None:
            feed.lru.changed(key, revision)

    def _new_feed(self) -> InvalidatingFeed:
        return InvalidatingFeed(self._source, self.max_bytes)

    def _measured(self, feed: InvalidatingFeed) -> LocalCacheStatus:
        lru = feed.lru
        return LocalCacheStatus(
            feed.state, feed.age, lru.revision, len(lru), lru.bytes, lag=feed.lag, reason=feed.reason
        )


class InvalidatingFeed(Feed):
    """One run of an invalidating cache in this process."""

    def __init__(self, source: Source, max_bytes: int) -> None:
        super().__init__(source)
        self._core: Core | None = None  # for requests, once the bucket was looked at
        self._keeper = Keeper(source.core(source.watches), Clock())
        self.lru = Lru(self._keeper, max_bytes)
        self.lag = 0

    def is_on(self, now: float) -> bool:
        """Tell whether what is held may be believed: whether a change would have been heard of."""
        return self._live and now - self.heard < STALLED

    def read(self, key: str) -> Operation[Entry | None]:
        """Read ``key`` from the bucket, and keep what was read if nothing can have overtaken it."""
        check_key(key)
        core = self._core
        if core is None:
            core = self._core = yield from self._opened_for_requests()
        reading = self.lru.begin(key, time.monotonic())
        try:
            stored = yield from core.wire.last(core.info, core.prefix + key, f"reading {key!r} in bucket {core.name!r}")
            entry = None if stored is None or not stored.is_live else self._keeper.entry(key, stored)
        except BaseException:
            self.lru.give_up(reading)
            raise
        return self._keep(reading, entry)

    def _opened_for_requests(self) -> Operation[Core]:
        requests = self.source.requests
        info = yield from requests.info(self.source.bucket)
        requests.note_mirror(info)
        return self.source.core(requests, info)

    def _keep(self, reading: Reading, entry: Entry | None) -> Entry | None:
        self.lru.end(reading, entry)
        return self._keeper.hand_out(entry)

    # --- the sink of the session, on the loop ---

    def replace(self, replay: Sequence[Stored]) -> None:
        """See Sink."""
        self.lru.switch(on=True)
        super().replace(replay)

    def apply(self, stored: Stored) -> None:
        """See Sink."""
        self.lag = max(0, stored.pending)
        self.lru.changed(self._keeper.core.key(stored), stored.revision)

    def forget(self, gone: Stored) -> None:
        """See Sink."""
        self.apply(gone)

    def stale(self, error: Exception) -> None:
        """See Sink."""
        self.lru.switch(on=False)
        # The bucket may be made anew, as another kind.
        self._core = None
        super().stale(error)

    async def _fall_back(self) -> None:
        """See Feed: nothing is served but what was read."""

    def _dropped(self) -> None:
        self.lru.switch(on=False)

    def _make(self, info: BucketInfo) -> Session:
        self._keeper.core = core = self.source.core(self.source.watches, info)
        return _Changes(core, self.source.watching, self.source.patterns, self, history=False, looked=self._looked)

    def _looked(self, info: BucketInfo, asked: float) -> None:
        core = self._core
        if core is not None and core.info.direct is not info.direct:
            # It has got replicas, and what any of them said since may have been out of date (F18).
            self._core = None
            self.lru.switch(on=self._live)
        self.lru.looked(info, asked, time.monotonic())


class _Changes(Session):
    """A session without a replay and without values: it tells which keys have moved on since it began."""

    def _consumer(self, name: str) -> dict[str, Any]:
        # By number, and not "new": nothing can pass between the look at the bucket and the consumer.
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._survey.seen.last_revision + 1}
        return {**super()._consumer(name), **start, "headers_only": True}

    async def _replay(self, info: BucketInfo, flow: Flow, pending: int) -> Sequence[Stored]:  # noqa: ARG002
        flow.newest = info.last_revision
        return []

    async def _audit(self, flow: Flow) -> None:
        before = self._survey.seen
        info = await self._survey.look()
        check_same(before, info)
        await self._check_progress(flow, info)

    def _remember_expiry(self, stored: Stored) -> None:
        """What expires is not believed beyond that: see Keeper."""
