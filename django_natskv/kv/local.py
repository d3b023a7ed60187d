"""LocalCache: a bucket, or a part of it, in this process's memory, kept equal to it by a watch.

Owns the faces and what they promise, and that each process has a copy of its own. Knows nothing of how entries are kept
or come.
"""

from __future__ import annotations

import abc
import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django_natskv.kv._feed import Feed, Source, State
from django_natskv.kv.entries import Entry

FeedT = TypeVar("FeedT", bound=Feed)


@dataclass(frozen=True, slots=True)
class LocalCacheStatus:
    """A moment of a local cache.

    ``age``: seconds since the copy was last known to be equal to the bucket, 0 while it is live, None if it never was.
    ``revision``: the newest that was seen. ``entries``: how many are held. ``bytes``: what is counted against
    MAX_BYTES: keys, encoded values and 300 bytes an entry. ``lag``: changes that the server has ready and this copy has
    not taken yet. ``undecodable``: keys whose newest value does not decode. ``reason``: why it is not live.
    """

    state: State
    age: float | None
    revision: int = 0
    entries: int = 0
    bytes: int = 0
    lag: int = 0
    undecodable: int = 0
    reason: str = ""


class LocalCache(abc.ABC, Generic[FeedT]):
    """A copy of a bucket in this process, made by ``Connection.local_cache()``. Safe to use from any thread and loop.

    The first use starts it: then a thread of the connection's watches keeps it equal to the bucket, whatever happens to
    the server meanwhile. Within one unbroken watch a key only gets newer; after an interruption the copy becomes the
    bucket's state in one step. A process reads its own writes. In a forked child it begins anew by itself.

    Mutable values are the reader's own: each read gives a new copy.
    """

    def __init__(self, source: Source, max_bytes: int) -> None:
        self._source = source
        self._starting = threading.RLock()  # a signal's handler may read, or close, what its thread was just starting
        self._feed: FeedT | None = None
        self._closed = False
        self.max_bytes = max_bytes
        _caches.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.bucket}: {self.status().state}>"

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._source.bucket

    @property
    def is_live(self) -> bool:
        """Whether it is live now: what ``status().state`` says, for less. Starts nothing and never waits."""
        feed = self._feed
        return feed is not None and feed.is_live()

    @property
    def moment(self) -> object:
        """An object that is the same one for as long as reads give what they gave: compare it by identity.

        What expires by its time to live is not noticed; a copy that cannot tell gives another one each time. Look at
        it before the read that it is to stand for. Starts nothing and never waits.
        """
        return object()

    @abc.abstractmethod
    def get(self, key: str) -> Entry | None:
        """Return the entry of ``key``, or None when it is absent."""

    @abc.abstractmethod
    async def aget(self, key: str) -> Entry | None:
        """See get()."""

    @abc.abstractmethod
    def keys(self) -> list[str]:
        """Return the keys that are held, in no particular order."""

    @abc.abstractmethod
    def items(self) -> dict[str, Entry]:
        """Return the entries that are held, by key."""

    @abc.abstractmethod
    def wrote(self, key: str, revision: int, headers: dict[str, str], data: bytes) -> None:
        """Take an acknowledged write of this process."""

    @abc.abstractmethod
    def _new_feed(self) -> FeedT:
        """Return a feed that is not started yet."""

    @abc.abstractmethod
    def _measured(self, feed: FeedT) -> LocalCacheStatus:
        """Return the status of ``feed``."""

    def value(self, key: str, default: Any = None) -> Any:
        """Return the value of ``key``, or ``default`` when it is absent. See get()."""
        entry = self.get(key)
        return default if entry is None else entry.value

    async def avalue(self, key: str, default: Any = None) -> Any:
        """See value()."""
        entry = await self.aget(key)
        return default if entry is None else entry.value

    def was_made_with(self, max_bytes: int | None, snapshot: str | os.PathLike[str] | None) -> bool:
        """Tell whether these arguments, as far as they are given, are those that it was made with."""
        return max_bytes in (None, self.max_bytes) and snapshot is None

    def start(self) -> None:
        """Begin to copy, if it has not begun yet. Returns at once; any other use does this too."""
        self._running()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Start, and wait until the first replay is complete; tell whether it is.

        At most ``timeout`` seconds, by default LOCAL_CACHE["WAIT"]. Once complete, it stays so for the life of the
        copy: see ``status()`` for what it is worth now. Raises ``OperationalError`` when the copy was refused.
        """
        feed = self._running()
        feed.ready.wait_open(self._source.wait if timeout is None else timeout)
        return self._is_ready(feed)

    async def await_ready(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as wait_ready()
        """See wait_ready()."""
        feed = self._running()
        await feed.ready.await_open(self._source.wait if timeout is None else timeout)
        return self._is_ready(feed)

    def status(self) -> LocalCacheStatus:
        """Return what the copy is worth now. Starts nothing and never waits."""
        feed = self._feed
        if feed is not None:
            return self._measured(feed)
        if self._closed:
            return LocalCacheStatus(State.STOPPED, None, reason="It was closed.")
        return LocalCacheStatus(State.WARMING, None)

    def close(self) -> None:
        """Stop, and forget everything. Returns at once; safe to repeat. A later use begins anew.

        A read that it overtakes finds what was held; one that still waited for something to read begins anew too.
        """
        with self._starting:
            feed, self._feed = self._feed, None
            self._closed = True
            self._cool()
        if feed is not None:
            feed.stop()

    def forked(self) -> None:
        """Take, in a forked child, that the feed belongs to the parent: the next use starts one of the child's own."""
        self._starting = threading.RLock()
        self._feed, self._closed = None, False
        self._cool()

    # --- for the modes ---

    def _cool(self) -> None:
        """Make the next read take the slow way, on which it starts what is to be started."""

    def _running(self) -> FeedT:
        feed = self._feed
        if feed is not None and (not feed.over or feed.refusal is not None):
            return feed
        with self._starting:
            feed = self._feed
            if feed is None or (feed.over and feed.refusal is None):
                self._cool()
                new = self._new_feed()
                if self._feed is not feed:
                    return self._running()  # a signal's handler was faster
                feed = self._feed = new
                self._closed = False
                feed.start()
            return feed

    @staticmethod
    def _served(feed: FeedT) -> FeedT:
        if feed.refusal is not None:
            raise type(feed.refusal)(*feed.refusal.args)
        return feed

    def _is_ready(self, feed: FeedT) -> bool:
        self._served(feed)
        return feed.ready.is_open and not feed.over


_caches: weakref.WeakSet[LocalCache[Any]] = weakref.WeakSet()


def _forked() -> None:
    for cache in list(_caches):
        cache.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
