"""KVContext: the life of buckets, blocking and awaited.

Owns creating, opening, changing, listing and deleting buckets. Knows nothing of entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_natskv.exceptions import BucketExists, BucketNotFound, JetStreamApiError
from django_natskv.kv import codecs
from django_natskv.kv._core import Core, Wrote
from django_natskv.kv._nats.config import ATOMIC, BucketInfo, changes, from_stream, health_of, to_stream, updated
from django_natskv.kv._nats.verbs import ATOMIC_API_LEVEL, Wire
from django_natskv.kv.bucket import Bucket
from django_natskv.kv.entries import BucketConfig, BucketHealth, BucketStatus
from django_natskv.kv.names import check_name
from django_natskv.kv.runner import Operation, Runner
from django_natskv.kv.watch import Report, Watcher, log_error

Config = Mapping[str, Any] | BucketConfig
_NOT_APPLIED = 0


class KVContext:
    """What every bucket is made and managed through. Got from a connection, which verified JetStream for it.

    All methods may raise ``OperationalError``; see ``Bucket``. Names are checked before anything is sent
    (``InvalidName``), configurations too (``UnknownConfigKey``, ``MissingRequiredKey``, ``UsageError``). What the
    server refuses is a ``JetStreamApiError`` with its code and description.
    """

    def __init__(
        self,
        requests: Wire,
        runner: Runner,
        watches: Wire,
        watching: Runner,
        report: Report | None,
        wrote: Wrote | None = None,
        failed: Report | None = None,
    ) -> None:
        self._wire = requests
        self._runner = runner
        self._watches = watches
        self._watching = watching
        self._report = report
        self._wrote = wrote
        self._failed = failed

    def create_bucket(self, config: Config, *, codec: Any = None) -> Bucket:
        """Create a bucket and return its handle, bound to ``codec`` or else to the connection's.

        Creating it again with the same configuration is no error; with another one it is ``BucketExists``.
        """
        return self._runner.call(self._create(config, self._codec(codec)))

    async def acreate_bucket(self, config: Config, *, codec: Any = None) -> Bucket:
        """See create_bucket()."""
        return await self._runner.acall(self._create(config, self._codec(codec)))

    def open_bucket(self, name: str, *, codec: Any = None) -> Bucket:
        """Return a handle on an existing bucket, bound to ``codec`` or else to the connection's; ``BucketNotFound``."""
        return self._runner.call(self._open(name, self._codec(codec)))

    async def aopen_bucket(self, name: str, *, codec: Any = None) -> Bucket:
        """See open_bucket()."""
        return await self._runner.acall(self._open(name, self._codec(codec)))

    def update_bucket(self, config: Config) -> BucketStatus:
        """Change the options that ``config`` gives, leave the others, and return the status; ``BucketNotFound``."""
        return self._runner.call(self._update(config))

    async def aupdate_bucket(self, config: Config) -> BucketStatus:
        """See update_bucket()."""
        return await self._runner.acall(self._update(config))

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket with every entry in it; ``BucketNotFound``."""
        return self._runner.call(self._delete(name))

    async def adelete_bucket(self, name: str) -> None:
        """See delete_bucket()."""
        return await self._runner.acall(self._delete(name))

    def bucket_names(self) -> list[str]:
        """Return the names of all buckets, sorted."""
        return self._runner.call(self._names())

    async def abucket_names(self) -> list[str]:
        """See bucket_names()."""
        return await self._runner.acall(self._names())

    def list_buckets(self) -> list[BucketStatus]:
        """Return the status of all buckets, sorted by name."""
        return self._runner.call(self._list())

    async def alist_buckets(self) -> list[BucketStatus]:
        """See list_buckets()."""
        return await self._runner.acall(self._list())

    def bucket_status(self, name: str) -> BucketStatus:
        """Return a bucket's configuration as the server applied it, with its counters; ``BucketNotFound``.

        Counting the live entries reads the head of every key.
        """
        return self._runner.call(self._status(name))

    async def abucket_status(self, name: str) -> BucketStatus:
        """See bucket_status()."""
        return await self._runner.acall(self._status(name))

    def bucket_health(self, name: str) -> BucketHealth:
        """Return how a bucket is kept: its leader and replicas in a cluster, and how far behind they are.

        Reads no entries. Raises ``BucketNotFound``.
        """
        return self._runner.call(self._health(name))

    async def abucket_health(self, name: str) -> BucketHealth:
        """See bucket_health()."""
        return await self._runner.acall(self._health(name))

    # --- the operations behind both faces ---

    def _handle(self, info: BucketInfo, codec: codecs.Codec) -> Bucket:
        self._wire.note_mirror(info)
        watched = Core(self._watches, info, codec)
        watcher = Watcher(watched, self._watching, self._report or log_error(info.bucket, self._failed))
        return Bucket(Core(self._wire, info, codec, self._wrote), self._runner, watcher)

    def _codec(self, codec: Any) -> codecs.Codec:
        return codecs.resolve(self._wire.client.settings.codec if codec is None else codec)

    # A codec is made before its operation begins: the first one imports much, and that time is not the request's.

    def _create(self, config: Config, codec: codecs.Codec) -> Operation[Bucket]:
        checked = BucketConfig.parse(config)
        asked = to_stream(checked, atomic=self._wire.level >= ATOMIC_API_LEVEL)
        try:
            info = yield from self._wire.create_bucket(checked.bucket, asked)
        except BucketExists:
            if not asked.pop(ATOMIC, False):
                raise
            # It may have been made by an older server, and differ in nothing but that.
            info = yield from self._wire.create_bucket(checked.bucket, asked)
        _compare(asked, info)
        return self._handle(info, codec)

    def _open(self, name: str, codec: codecs.Codec) -> Operation[Bucket]:
        check_name(name)
        return self._handle((yield from self._wire.info(name)), codec)

    def _update(self, config: Config) -> Operation[BucketStatus]:
        checked = BucketConfig.parse(config)
        info = yield from self._wire.info(checked.bucket, f"updating the bucket {checked.bucket!r}")
        info = yield from self._wire.update_bucket(checked.bucket, updated(info.config, checked))
        _compare(changes(checked), info)
        return (yield from self._status_of(info))

    def _delete(self, name: str) -> Operation[None]:
        return self._wire.delete_bucket(check_name(name))

    def _names(self) -> Operation[list[str]]:
        return sorted((yield from self._wire.names()))

    def _list(self) -> Operation[list[BucketStatus]]:
        infos = yield from self._wire.infos()
        statuses = []
        for info in infos:
            try:
                status = yield from self._status_of(info)
            except BucketNotFound:  # deleted since it was listed
                continue
            statuses.append(status)
        return sorted(statuses, key=lambda status: status.bucket)

    def _status(self, name: str) -> Operation[BucketStatus]:
        check_name(name)
        info = yield from self._wire.info(name, f"reading the status of bucket {name!r}")
        return (yield from self._status_of(info))

    def _health(self, name: str) -> Operation[BucketHealth]:
        check_name(name)
        return health_of((yield from self._wire.info(name, f"reading the health of bucket {name!r}")))

    def _status_of(self, info: BucketInfo) -> Operation[BucketStatus]:
        live = 0
        if info.subjects:
            live = yield from Core(self._wire, info, codecs.resolve("bytes")).count()
        return BucketStatus(**from_stream(info), values=live, bytes=info.bytes)


def _compare(asked: Mapping[str, Any], info: BucketInfo) -> None:
    """Raise when the server left out something that it was asked for, as an older one does in silence (F14)."""
    for name in ("allow_msg_ttl", "subject_delete_marker_ttl", "metadata"):
        wanted, applied = asked.get(name), info.config.get(name)
        if isinstance(wanted, Mapping):
            applied = {key: value for key, value in (applied or {}).items() if key in wanted}
        if wanted and wanted != applied:
            description = f"{name} was asked for and not applied"
            message = f"The server made the bucket {info.bucket!r} without all that was asked: {description}."
            raise JetStreamApiError(message, code=_NOT_APPLIED, description=description)
