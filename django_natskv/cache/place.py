"""Places: what the caches of one process share that keep their values in one bucket with the same options.

Owns the bucket's handle, made at first use and again when that is needed, and the time of the server. Knows nothing of
keys and values.

Django makes a cache object for each thread and each task; a place is what these have in common.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from django.core.signals import setting_changed

from django_natskv import conf
from django_natskv.cache.backoff import ContendedError
from django_natskv.cache.options import Options, parse
from django_natskv.cache.steps import Call, Operation
from django_natskv.cache.values import Values
from django_natskv.connections import Connection, connections
from django_natskv.exceptions import (
    AuthInvalid,
    BucketExists,
    BucketNotFound,
    ConnectFailed,
    NotConnected,
    OperationalError,
    OperationTimedOut,
)
from django_natskv.kv import Bucket, Change

AWAY = (AuthInvalid, ConnectFailed, NotConnected, OperationTimedOut)  # the server was not reached, or said nothing
RELEARN = 60.0  # seconds after which the server is asked for its time again
SLOW = 0.05  # seconds for the answer, after which the time is asked for again soon, unless PATIENT answers took so long
RELEARN_SOON, PATIENT = 5.0, 4


class Clock:
    """The time of the server, in seconds since 1970, as far as this process knows it."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()
        self._due = 0.0
        self._slow = 0  # answers in a row that took long

    def now(self) -> float:
        """Return the server's time."""
        return time.monotonic() + self._ahead

    def is_due(self) -> bool:
        """Tell, to one caller only, that it is time to ask the server."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + RELEARN
        return True

    def learn(self, told: datetime, asked: float) -> None:
        """Take the answer of the server to a question ``asked`` at that time of the monotonic clock."""
        now = time.monotonic()
        self._ahead = told.timestamp() - (asked + now) / 2
        # Half of what it took is the error, and a process may have been held up while it asked.
        self._slow = self._slow + 1 if now - asked > SLOW else 0
        self._due = now + (RELEARN_SOON if 0 < self._slow < PATIENT else RELEARN)


class Place:
    """A bucket as the caches of this process use it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.values = Values(options.codec, compress=options.compress, compress_min=options.compress_min)
        self.clock = Clock()
        self.stores: dict[str, Any] = {}  # by KEY_PREFIX
        self.outages: Any = None  # what is known of them
        self._connection: Connection | None = None
        self._bucket: Bucket | None = None
        self.lives: float | None = None  # seconds that the bucket keeps anything
        self.room: int | None = None  # bytes that the bucket holds, where it is bounded
        self.goes_back = False  # whether what was removed may come back when the server crashes (F1)

    @property
    def connection(self) -> Connection:
        """The connection; made anew when the settings have changed."""
        if self.options.url:
            return _connection_of(self.options.url)
        return connections[self.options.connection]

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self.options.bucket

    def ask(self, name: str, *args: Any, **options: Any) -> Operation[Any]:
        """Return what an operation of the bucket returns; a bucket that is gone is made anew, if it may be."""
        bucket = self._bucket
        if bucket is None or self._connection is not self.connection:
            bucket = yield from self._open()
        try:
            return (yield Call(bucket, name, *args, **options))
        except BucketNotFound:
            # A bucket in memory is gone whenever its server restarts (F1, F17).
            self._gone(bucket)
            bucket = yield from self._open()
            return (yield Call(bucket, name, *args, **options))

    def ask_many(self, changes: Sequence[Change]) -> Operation[list[int | OperationalError]]:
        """Return what ``write_many`` returns; those that met a bucket that is gone are sent again, to a new one.

        A value that is cached twice was cached: the server need not remember each write (ADR 10).
        """
        if not changes:
            return []
        results: list[int | OperationalError] = yield from self.ask("write_many", changes, deduplicate=False)
        again = [place for place, result in enumerate(results) if isinstance(result, BucketNotFound)]
        if again:
            self._gone(self._bucket)
            repeated = yield from self.ask("write_many", [changes[place] for place in again], deduplicate=False)
            for place, result in zip(again, repeated, strict=True):
                results[place] = result
        return results

    def _gone(self, bucket: Bucket | None) -> None:
        """Take that ``bucket`` is gone: what local caches hold is of another one than what is written from now on."""
        if self._bucket is bucket:
            self._bucket = None
            for store in list(self.stores.values()):
                store.begin_anew()

    @property
    def is_open(self) -> bool:
        """Whether the bucket was opened."""
        return self._bucket is not None

    def opened(self) -> Operation[None]:
        """Make sure that the bucket was opened once, so that it is known how it is made."""
        if self._bucket is None:
            yield from self._open()

    def now(self) -> Operation[float]:
        """Return the time of the server, having asked for it lately."""
        if self.clock.is_due():
            asked = time.monotonic()
            told = yield from self.ask("server_time")
            self.clock.learn(told, asked)
        return self.clock.now()

    def _open(self) -> Operation[Bucket]:
        connection = self.connection
        context = yield Call(connection, "kv")
        bucket: Bucket
        try:
            bucket = yield Call(context, "open_bucket", self.name, codec="bytes")
        except BucketNotFound as error:
            if not self.options.create:
                message = (
                    f"There is no bucket {self.name!r} for the cache, which may not make it (CREATE is False): "
                    f"manage.py natskv_bucket create {self.name} makes it."
                )
                raise BucketNotFound(message, bucket=self.name) from error
            bucket = yield from self._create(context)
        asked = time.monotonic()
        self.clock.learn((yield Call(bucket, "server_time")), asked)
        ttl_ms = bucket.config.ttl_ms
        self.lives = ttl_ms / 1_000 if ttl_ms else None
        size = bucket.config.max_bucket_size
        self.room = size if size and size > 0 else None
        self.goes_back = bucket.config.storage == "file"  # with several copies too, if they all crash
        self._connection, self._bucket = connection, bucket
        return bucket

    def _create(self, context: Any) -> Operation[Bucket]:
        bucket: Bucket
        try:
            bucket = yield Call(context, "create_bucket", self.options.config, codec="bytes")
        except BucketExists:  # someone else made it meanwhile, otherwise
            bucket = yield Call(context, "open_bucket", self.name, codec="bytes")
        return bucket


_places: dict[Any, Place] = {}
_connections: dict[str, Connection] = {}


def place_of(location: object, params: Mapping[str, Any]) -> Place:
    """Return the place of a cache with these settings; ``ImproperlyConfigured``."""
    identity = repr((location, params.get("OPTIONS")))
    place = _places.get(identity)
    if place is None:
        place = _places.setdefault(identity, Place(parse(location, params)))
    return place


def _connection_of(url: str) -> Connection:
    connection = _connections.get(url)
    if connection is None:
        settings = conf.settings_from({"SERVERS": url}, "the LOCATION of a cache")
        connection = _connections.setdefault(url, Connection(settings.servers[0], settings))
    return connection


def is_away(error: BaseException) -> bool:
    """Tell whether ``error`` says that the server is away, and not that a key is much in demand."""
    return isinstance(error, AWAY) and not isinstance(error, ContendedError)


def close_all() -> None:
    """Close the connections that are the caches' own; the next use of each connects anew."""
    for connection in list(_connections.values()):
        connection.close()


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting in ("CACHES", "NATSKV"):
        _places.clear()
        close_all()
        _connections.clear()


setting_changed.connect(_settings_changed, dispatch_uid="django_natskv.cache.place")
atexit.register(close_all)
