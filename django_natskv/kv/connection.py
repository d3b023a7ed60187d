"""Connection: from settings to the KV context.

Owns the composition of client, runner, context and local caches for one server or cluster. Knows nothing of Django: the
settings are given.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django_natskv.exceptions import OperationalError, UsageError
from django_natskv.kv import codecs
from django_natskv.kv._feed import Source
from django_natskv.kv._invalidating import InvalidatingCache
from django_natskv.kv._mirroring import MirrorCache
from django_natskv.kv._nats.client import Client, State
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv._snapshot import SnapshotFile, path_in
from django_natskv.kv.bucket import Filter
from django_natskv.kv.context import KVContext
from django_natskv.kv.listener import Listener
from django_natskv.kv.local import LocalCache
from django_natskv.kv.names import check_name, check_patterns
from django_natskv.kv.runner import Runner
from django_natskv.kv.settings import ConnectionSettings
from django_natskv.kv.watch import Report

Resolve = Callable[[ConnectionSettings], ConnectionSettings]

# Of two that are in use the worse one says where the connection stands.
_WORST_FIRST = (State.DISCONNECTED, State.CONNECTING, State.CONNECTED, State.CLOSED, State.IDLE)


class Connection:
    """One connection, to one server or cluster.

    Nothing connects before the first request. Safe to use from any thread, from any number of event loops, and in
    forked children, each of which connects for itself. ``resolve`` is called, off the event loops, before each round
    of attempts, and returns the settings to use in it: for a server whose address is not known beforehand. ``report``
    takes the errors of watches that have no ``on_error``, on the watch's thread; without it they are logged.
    ``listener`` is told where the connection stands and what changes in its local caches.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        resolve: Resolve | None = None,
        report: Report | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.settings = settings
        self._resolve = resolve
        self._report = report
        self._listener = listener
        self._told: tuple[str, type[Exception] | None] = (State.IDLE.value, None)
        self._telling = threading.Lock()
        _connections.add(self)
        self._caches: dict[tuple[Any, ...], LocalCache[Any]] = {}
        self._requests = Client(settings, resolve=resolve, listener=self._state_changed)
        # Watches have a connection and a thread of their own: a replay must never hold up a request.
        self._watches = Client(settings, role="watches", resolve=resolve, listener=self._state_changed)
        self._runner = Runner(self._requests.driver, settings.request_timeout)
        self._watching = Runner(self._watches.driver, settings.request_timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings.name or ', '.join(self.settings.servers)}: {self.status}>"

    @property
    def status(self) -> str:
        """Where the connection stands now: "idle", "connecting", "connected", "disconnected" or "closed"."""
        return min(self._requests.state, self._watches.state, key=_WORST_FIRST.index).value

    def kv(self) -> KVContext:
        """Return the KV context, having made sure by a round trip that JetStream is there.

        Raises ``JetStreamNotEnabled``, ``ConnectFailed``, ``AuthInvalid``, ``NotConnected``, ``OperationTimedOut``.
        """
        if self._resolve is not None:
            # Finding, or starting, a server may take longer than a request may: that time is not the request's.
            self._resolve(self.settings)
        wire = Wire(self._requests)
        self._runner.call(wire.verify())
        return self._context(wire)

    async def akv(self) -> KVContext:
        """See kv()."""
        if self._resolve is not None:
            await asyncio.to_thread(self._resolve, self.settings)
        wire = Wire(self._requests)
        await self._runner.acall(wire.verify())
        return self._context(wire)

    def local_cache(
        self,
        bucket: str,
        *,
        codec: Any = None,
        keys: Filter | None = None,
        mode: str = "mirror",
        max_bytes: int | None = None,
        snapshot: str | os.PathLike[str] | None = None,
    ) -> LocalCache[Any]:
        """Return the copy of ``bucket`` in this process. The same arguments give the same object; nothing is sent yet.

        ``mode`` "mirror" holds everything, "invalidate" what was read lately. ``codec``: else the connection's.
        ``keys``: one pattern or several, of the part to hold. ``max_bytes``: the most that it may hold, counted as
        ``LocalCacheStatus.bytes``; else LOCAL_CACHE["MAX_BYTES"]. ``snapshot``: the path of a file that keeps the
        entries of a mirror for a process that starts while NATS is down; else one in LOCAL_CACHE["SNAPSHOT_DIR"], if
        that is set.

        Raises ``InvalidName``, ``InvalidKeys`` and ``UsageError``: for a mode or codec that there is not, and for
        bounds or a file other than those that the copy was made with.
        """
        patterns = (">",) if keys is None else tuple(sorted(set(check_patterns(keys))))
        chosen = codecs.resolve(self.settings.codec if codec is None else codec)
        if mode not in ("mirror", "invalidate"):
            message = f"mode is 'mirror' or 'invalidate', not {mode!r}."
            raise UsageError(message)
        if max_bytes is not None and (type(max_bytes) is not int or max_bytes < 1):
            message = f"max_bytes is a whole number of bytes from 1, not {max_bytes!r}."
            raise UsageError(message)
        name = check_name(bucket)
        identity = (name, patterns, mode, id(chosen))
        made = self._caches.get(identity)
        if made is None:
            # Without a lock, which a fork could leave locked. Of two made at once one is dropped, unused.
            new = self._new_cache(name, patterns, chosen, mode, max_bytes, snapshot)
            made = self._caches.setdefault(identity, new)
        if not made.was_made_with(max_bytes, snapshot):
            message = f"The local cache of bucket {bucket!r} was made before, with another max_bytes or snapshot."
            raise UsageError(message)
        return made

    def _new_cache(
        self,
        bucket: str,
        patterns: tuple[str, ...],
        codec: codecs.Codec,
        mode: str,
        max_bytes: int | None,
        snapshot: str | os.PathLike[str] | None,
    ) -> LocalCache[Any]:
        settings = self.settings.local_cache
        requests, watches = Wire(self._requests), Wire(self._watches)
        source = Source(
            bucket, patterns, codec, watches, self._watching, requests, self._runner, settings.wait, self._listener
        )
        most = settings.max_bytes if max_bytes is None else max_bytes
        if mode == "invalidate":
            return InvalidatingCache(source, most)
        return MirrorCache(source, most, self._snapshot(bucket, patterns, codec, snapshot))

    def _snapshot(
        self,
        bucket: str,
        patterns: tuple[str, ...],
        codec: codecs.Codec,
        given: str | os.PathLike[str] | None,
    ) -> SnapshotFile | None:
        directory = self.settings.local_cache.snapshot_dir
        settings = self.settings
        where = [settings.name, *settings.servers, settings.domain, settings.api_prefix, settings.user]
        identity = repr([where, bucket, patterns, f"{type(codec).__module__}.{type(codec).__qualname__}"])
        if given is not None:
            return SnapshotFile(Path(given), identity)
        return None if directory is None else SnapshotFile(path_in(directory, bucket, identity), identity)

    def _wrote(self, info: BucketInfo, key: str, revision: int, headers: dict[str, str], data: bytes) -> None:
        """Let this process's local caches show what it has written."""
        for cache in list(self._caches.values()):
            if cache.bucket in (info.bucket, info.origin):
                cache.wrote(key, revision, headers, data)

    def _state_changed(self, _state: str, error: OperationalError | None) -> None:
        if self._listener is None:
            return
        with self._telling:  # two threads: what one looked up must not be told after what the other found later
            told = (self.status, None if error is None else type(error))
            if told != self._told:
                # Two connections come and go together, and each of many attempts fails alike: that is told once.
                self._told = told
                self._listener.connection_status(told[0], error)

    def forked(self) -> None:
        """Take, in a forked child, that nobody is telling anything there, whatever a thread of the parent was."""
        self._telling = threading.Lock()

    def _failed(self, error: Exception) -> None:
        if self._listener is not None:
            self._listener.connection_status("error", error)

    def _context(self, wire: Wire) -> KVContext:
        return KVContext(
            wire,
            self._runner,
            Wire(self._watches),
            self._watching,
            self._report,
            wrote=self._wrote,
            failed=self._failed,
        )

    def close(self) -> None:
        """Close the connection, stop its watches and local caches and end its threads.

        Requests in flight fail; the next use connects anew.
        """
        for cache in list(self._caches.values()):
            cache.close()
        self._watches.close()
        self._requests.close()


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _forked() -> None:
    for connection in list(_connections):
        connection.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
