"""Bucket: the operations on entries, blocking and awaited.

Owns the two faces and what they promise. Knows nothing of how an operation is carried out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, overload

from django_natskv.exceptions import OperationalError
from django_natskv.kv._core import Core
from django_natskv.kv._reading import Reading
from django_natskv.kv.changes import Change
from django_natskv.kv.entries import BucketConfig, Deliver, Entry
from django_natskv.kv.runner import Runner
from django_natskv.kv.watch import Handler, OnError, Watch, Watcher

Filter = str | Iterable[str]
Headers = Mapping[str, str] | None


class Bucket:
    """A named key-value store, through one codec.

    Each operation has two faces: the plain name blocks, the ``a`` name is awaited, from any event loop. Both may be
    used side by side, from any number of threads and loops. Made by ``KVContext``; holds nothing to close.

    All operations may raise ``OperationalError``: ``NotConnected`` at once while the connection is down,
    ``OperationTimedOut`` after REQUEST_TIMEOUT, ``PermissionsViolation``, ``BucketNotFound`` when the bucket was
    deleted. Those that take a key raise ``InvalidKey`` before anything is sent, those that code a value
    ``CodecError``. A write that raises ``OperationTimedOut`` may have been applied
    (``error.may_have_been_applied``); after every other error nothing was written.
    """

    def __init__(self, core: Core, runner: Runner, watcher: Watcher) -> None:
        self._core = core
        self._runner = runner
        self._watcher = watcher

    def __repr__(self) -> str:
        return f"<Bucket {self.name}>"

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._core.name

    @property
    def config(self) -> BucketConfig:
        """How the bucket is made, as the server said when this handle was opened. What was unset has its default."""
        return self._core.config()

    def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        """Return the newest entry of ``key``, or None when it is absent: never written, deleted, purged or expired.

        With ``revision`` the read is pinned to that very revision, and does not hide markers: one of them comes back
        as an entry with its ``operation`` and no value. None for a revision that was never assigned, is no longer
        kept, or belongs to another key. A stored null is an entry whose value is None.
        """
        return self._runner.call(self._core.get(key, revision))

    async def aget(self, key: str, *, revision: int | None = None) -> Entry | None:
        """See get()."""
        return await self._runner.acall(self._core.get(key, revision))

    def put(self, key: str, value: Any, *, ttl_ms: int | None = None, headers: Headers = None) -> int:
        """Write ``value`` under ``key``, whatever is there, and return the new revision.

        With ``ttl_ms`` (milliseconds, at least 1,000, rounded up to whole seconds, in which the server counts) the
        entry expires by itself; in a bucket that keeps history and has no ``limit_marker_ttl_ms``, the revision before
        it shows again then. ``headers`` are kept with the value: printable ASCII under names of the application's
        own, not "Nats-", "KV-", "Status" or "Description". Raises ``ValueTooLarge``, ``BucketFull``, ``InvalidTTL``
        and ``UsageError`` for headers.
        """
        return self._runner.call(self._core.write(Change.put(key, value, ttl_ms=ttl_ms, headers=headers)))

    async def aput(self, key: str, value: Any, *, ttl_ms: int | None = None, headers: Headers = None) -> int:
        """See put()."""
        return await self._runner.acall(self._core.write(Change.put(key, value, ttl_ms=ttl_ms, headers=headers)))

    def create(self, key: str, value: Any, *, ttl_ms: int | None = None, headers: Headers = None) -> int:
        """Write ``value`` under ``key`` only if the key is absent, and return the new revision.

        Works over any marker. ``ttl_ms`` and ``headers`` as in ``put``. Raises ``WrongRevision`` when the key is live.
        """
        return self._runner.call(self._core.write(Change.create(key, value, ttl_ms=ttl_ms, headers=headers)))

    async def acreate(self, key: str, value: Any, *, ttl_ms: int | None = None, headers: Headers = None) -> int:
        """See create()."""
        return await self._runner.acall(self._core.write(Change.create(key, value, ttl_ms=ttl_ms, headers=headers)))

    def update(self, key: str, value: Any, revision: int, *, ttl_ms: int | None = None, headers: Headers = None) -> int:
        """Write ``value`` under ``key`` only if ``revision`` is still its newest, and return the new revision.

        ``ttl_ms`` and ``headers`` as in ``put``: those of the revision before do not stay. Raises ``WrongRevision``
        when the key has moved on.
        """
        return self._runner.call(self._core.write(Change.update(key, value, revision, ttl_ms=ttl_ms, headers=headers)))

    async def aupdate(
        self, key: str, value: Any, revision: int, *, ttl_ms: int | None = None, headers: Headers = None
    ) -> int:
        """See update()."""
        return await self._runner.acall(
            self._core.write(Change.update(key, value, revision, ttl_ms=ttl_ms, headers=headers))
        )

    def delete(
        self, key: str, *, revision: int | None = None, marker_ttl_ms: int | None = None, headers: Headers = None
    ) -> None:
        """Write a tombstone over ``key``: it reads as absent, and its history stays readable.

        With ``revision`` only if that is still the key's newest, else ``WrongRevision``. With ``marker_ttl_ms``
        (milliseconds, at least 1,000, rounded up to whole seconds) the tombstone itself expires; a server that is
        killed before it has written that down may bring an older value back, unless that had expired by then too.
        Deleting what is absent is no error.
        """
        return self._runner.call(
            self._core.erasing(Change.delete(key, revision=revision, marker_ttl_ms=marker_ttl_ms, headers=headers))
        )

    async def adelete(
        self, key: str, *, revision: int | None = None, marker_ttl_ms: int | None = None, headers: Headers = None
    ) -> None:
        """See delete()."""
        return await self._runner.acall(
            self._core.erasing(Change.delete(key, revision=revision, marker_ttl_ms=marker_ttl_ms, headers=headers))
        )

    def purge(
        self, key: str, *, revision: int | None = None, marker_ttl_ms: int | None = None, headers: Headers = None
    ) -> None:
        """Erase the history of ``key`` down to one purge marker.

        ``revision``, ``marker_ttl_ms`` and ``headers`` as in ``delete``.
        """
        return self._runner.call(
            self._core.erasing(Change.purge(key, revision=revision, marker_ttl_ms=marker_ttl_ms, headers=headers))
        )

    async def apurge(
        self, key: str, *, revision: int | None = None, marker_ttl_ms: int | None = None, headers: Headers = None
    ) -> None:
        """See purge()."""
        return await self._runner.acall(
            self._core.erasing(Change.purge(key, revision=revision, marker_ttl_ms=marker_ttl_ms, headers=headers))
        )

    @overload
    def write_many(self, changes: Iterable[Change], *, atomic: Literal[True]) -> list[int]: ...

    @overload
    def write_many(
        self, changes: Iterable[Change], *, atomic: bool = False, deduplicate: bool = True
    ) -> list[int | OperationalError]: ...

    def write_many(self, changes: Iterable[Change], *, atomic: bool = False, deduplicate: bool = True) -> Any:
        """Carry out several changes side by side; return, in their order, each new revision, or the error instead.

        There is no order among them: changes of one key belong into calls of their own. What is wrong with a change
        itself (``UsageError``, ``CodecError``) is raised before anything is sent. An error in the result is one that
        the operation alone would have raised, ``WrongRevision`` for instance.

        With ``atomic`` all are carried out, at one moment, or none: then the first error is raised instead,
        ``WrongRevision`` with the key. At most 1,000 changes, one a key (``UsageError``). Needs nats-server 2.12, else
        ``JetStreamApiError`` before anything is sent; a bucket that was made by another program is changed to allow it
        by the first such call. After ``OperationTimedOut`` all may have been applied.

        Without ``deduplicate`` the server does not remember the changes that have no guard, which saves it a fifth of
        the time (ADR 10). One whose answer was lost with the connection is then written again, even if it had been
        written: over what somebody else has written meanwhile, too. With a guard or ``atomic`` nothing changes.
        """
        return self._runner.call(self._core.write_many(changes, atomic=atomic, deduplicate=deduplicate))

    @overload
    async def awrite_many(self, changes: Iterable[Change], *, atomic: Literal[True]) -> list[int]: ...

    @overload
    async def awrite_many(
        self, changes: Iterable[Change], *, atomic: bool = False, deduplicate: bool = True
    ) -> list[int | OperationalError]: ...

    async def awrite_many(self, changes: Iterable[Change], *, atomic: bool = False, deduplicate: bool = True) -> Any:
        """See write_many()."""
        return await self._runner.acall(self._core.write_many(changes, atomic=atomic, deduplicate=deduplicate))

    def erase(
        self,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        *,
        before: int | None = None,
    ) -> int:
        """Remove every revision of every key under ``filter``, live or not, and return how many there were.

        ``filter`` as in ``keys``; None means the whole bucket. With ``before`` only revisions older than that one.
        Leaves no marker: watches and local caches learn of it by their audit, some seconds later, and a server of
        one replica that is killed before it has written this down may bring older values back. Raises
        ``InvalidKeys``.
        """
        return self._runner.call(self._core.erase(filter, before))

    async def aerase(
        self,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        *,
        before: int | None = None,
    ) -> int:
        """See erase()."""
        return await self._runner.acall(self._core.erase(filter, before))

    def keys(self, filter: Filter | None = None) -> list[str]:  # noqa: A002 - the contract's name
        """Return the live keys, in no particular order; every key that was live throughout the call is among them.

        ``filter`` restricts them on the server: a pattern such as "user.*" (one word) or "user.>" (one or more), or
        a list of patterns. Raises ``InvalidKeys``.
        """
        return self._runner.call(self._core.keys(filter))

    async def akeys(self, filter: Filter | None = None) -> list[str]:  # noqa: A002
        """See keys()."""
        return await self._runner.acall(self._core.keys(filter))

    def history(self, key: str) -> list[Entry]:
        """Return the kept revisions of ``key``, oldest to newest, markers included; [] when there is none.

        ``delta`` counts back from the newest, which has 0.
        """
        return self._runner.call(self._core.history(key))

    async def ahistory(self, key: str) -> list[Entry]:
        """See history()."""
        return await self._runner.acall(self._core.history(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Return the newest entries of ``keys`` by key, in that order, absent ones left out.

        One request for 1,024 keys where the bucket is not replicated; side by side otherwise.
        """
        return self._runner.call(self._core.get_many(keys))

    async def aget_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """See get_many()."""
        return await self._runner.acall(self._core.get_many(keys))

    def entries(
        self,
        filter: Filter | None = None,  # noqa: A002 - the contract's name
        *,
        history: bool = False,
    ) -> Iterator[Entry]:
        """Iterate over the newest entry of each live key, or with ``history`` over all that is kept, markers included.

        In the order of revisions, and without holding more than a page of them, so that a bucket of any size can be
        gone through. ``filter`` as in ``keys``. Every key that is live throughout is among them. What is written
        meanwhile may come too: the same key again with its newer value, or with a marker. Takes up again where it was
        when the connection is lost for a moment, or the reader takes long; raises ``OperationalError`` when the bucket
        is made anew meanwhile, ``InvalidKeys``, ``CodecError``.
        """
        reading = Reading(self._core, filter, history=history)
        try:
            while page := self._runner.call(reading.page()):
                for entry in page:  # noqa: UP028 - the twin cannot yield from
                    yield entry
        finally:
            reading.close()

    async def aentries(
        self,
        filter: Filter | None = None,  # noqa: A002
        *,
        history: bool = False,
    ) -> AsyncIterator[Entry]:
        """See entries()."""
        reading = Reading(self._core, filter, history=history)
        try:
            while page := await self._runner.acall(reading.page()):
                for entry in page:
                    yield entry
        finally:
            reading.close()

    def server_time(self) -> datetime:
        """Ask the server for its time, by which entries are created and expire; aware, in UTC."""
        return self._runner.call(self._core.server_time())

    async def aserver_time(self) -> datetime:
        """See server_time()."""
        return await self._runner.acall(self._core.server_time())

    def purge_deletes(self) -> None:
        """Remove everything that is kept of deleted and purged keys, their markers included, at once.

        Live keys are untouched, also those written again meanwhile. Watches hear nothing of it. A server of one
        replica that is killed before it has written this down may bring an older value back.
        """
        return self._runner.call(self._core.purge_deletes())

    async def apurge_deletes(self) -> None:
        """See purge_deletes()."""
        return await self._runner.acall(self._core.purge_deletes())

    def watch(
        self,
        handler: Handler,
        *,
        deliver: Deliver | str = Deliver.LATEST,
        keys: Filter | None = None,
        ignore_deletes: bool = False,
        on_error: OnError | None = None,
    ) -> Watch:
        """Call ``handler`` with each change as an entry, one after another, until the watch is stopped.

        ``deliver``: "latest" begins with each key's newest entry, "history" with all that is kept, "updates" with
        nothing. ``keys`` restricts the watch to one pattern or the union of several; ``ignore_deletes`` leaves out
        tombstones and purge markers. The next entry waits until the handler has returned, and what it returned,
        if that is awaitable, has settled. A plain handler runs on a thread of the watch's own, may block, and may
        call the bucket. Awaitables are awaited on the event loop that runs where the watch was begun, else on that
        thread.

        An entry that does not decode, an exception of the handler, and a permission that the server refuses to the
        watch, which goes on trying, goes to ``on_error``, else to the log and
        the connection's status, and the watch goes on. It survives lost connections, restarts of the server and a
        bucket that is deleted and made anew; what changed meanwhile is delivered afterwards: the newest revision of
        each key that changed, and a purge for each that is gone. A key that vanishes without a marker (an expiry, for
        instance) is delivered as a purge of its last revision.

        Raises ``InvalidDeliver``, ``InvalidKeys`` and ``UsageError`` before anything is sent, ``BucketNotFound``.
        """
        return self._runner.call(self._watcher.watch(handler, deliver, keys, ignore_deletes, on_error))

    async def awatch(
        self,
        handler: Handler,
        *,
        deliver: Deliver | str = Deliver.LATEST,
        keys: Filter | None = None,
        ignore_deletes: bool = False,
        on_error: OnError | None = None,
    ) -> Watch:
        """See watch()."""
        return await self._runner.acall(self._watcher.watch(handler, deliver, keys, ignore_deletes, on_error))
