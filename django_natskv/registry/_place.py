"""Places: the bucket that classes are kept in, as this process reaches it.

Owns the way to its local cache and to its handle, and that the first write makes it as it is declared. Knows nothing of
objects: it reads and writes bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django_natskv import kv
from django_natskv.connections import connections
from django_natskv.exceptions import BucketExists, BucketNotFound, OperationalError
from django_natskv.registry._declaring import DEFAULT_HISTORY, Declaration, declared, flag_sets
from django_natskv.registry._steps import Operation, ask

logger = logging.getLogger("django_natskv.registry")

CODEC = "bytes"  # not JSON: a copy hands bytes out as they are, and what cannot be read is told field by field


class Place:
    """One bucket of one connection."""

    def __init__(self, connection: str, bucket: str) -> None:
        self.alias = connection
        self.bucket = bucket
        self._copy: tuple[Any, Any] | None = None  # a connection and its local cache, which stays the same object
        self._opened: tuple[Any, kv.Bucket] | None = None
        self._complained = ""
        self._undecodable: tuple[Any, dict[str, Any]] = (None, {})  # the copy, and by key what was told of it

    @property
    def connection(self) -> Any:
        """The connection, as it is configured now."""
        return connections[self.alias]

    @property
    def cache(self) -> Any:
        """The copy of the bucket in this process."""
        connection, known = self.connection, self._copy
        if known is None or known[0] is not connection:
            self._copy = known = (connection, connection.local_cache(self.bucket, codec=CODEC))
        return known[1]

    # --- read from memory ---

    def entry(self, key: str, otherwise: Any = None) -> Any:
        """Return the entry of ``key``, or None; ``otherwise`` when the copy was refused."""
        try:
            return self.cache.get(key)
        except OperationalError as error:
            self.complain(error)
            return otherwise

    def entries(self, otherwise: dict[str, Any]) -> dict[str, Any]:
        """Return all entries, of one moment; ``otherwise`` when the copy was refused."""
        try:
            found: dict[str, Any] = self.cache.items()
        except OperationalError as error:
            self.complain(error)
            return otherwise
        return found

    def complain(self, error: object) -> bool:
        """Log that nothing can be read because of ``error``, unless that was told; return whether it was not."""
        if str(error) == self._complained:
            return False  # once, and not at every read
        self._complained = str(error)
        logger.error("What is declared stands in for what is stored: %s", error)
        return True

    def note(self, key: str, entry: Any) -> bool:
        """Take that ``entry`` cannot be read, None that ``key`` can; return whether that is to be told."""
        cache, known = self._undecodable
        if cache is not self.cache:  # another connection than before
            cache, known = self._undecodable = (self.cache, {})
        if entry is None:
            known.pop(key, None)
            return False
        last = known.get(key)
        known[key] = entry
        return last is None or (last.revision, last.value) != (entry.revision, entry.value)

    def status(self) -> kv.LocalCacheStatus:
        """Return what the copy is worth now, with what was found in it that no class can read."""
        found: kv.LocalCacheStatus = self.cache.status()
        cache, known = self._undecodable
        return replace(found, undecodable=found.undecodable + (len(known) if cache is self.cache else 0))

    # --- read from the server ---

    def get(self, key: str, revision: int | None = None) -> Operation[Any]:
        """Read the entry of ``key``, or None, from the server."""
        return self._read("get", key, revision=revision)

    def history(self, key: str) -> Operation[list[Any]]:
        """Read all that is kept of ``key``, oldest first."""
        found = yield from self._read("history", key)
        return found or []

    def below(self, key: str) -> Operation[dict[str, Any]]:
        """Read the entries of all keys one word below ``key``."""
        return (yield from self.several((yield from self.keys(f"{key}.*"))))

    def keys(self, pattern: str | None = None) -> Operation[list[str]]:
        """Read the live keys of the bucket, or those that match."""
        return sorted((yield from self._read("keys", pattern)) or ())

    def several(self, keys: list[str]) -> Operation[dict[str, Any]]:
        """Read the entries of those of ``keys`` that there are, in their order."""
        found = (yield from self._read("get_many", keys)) if keys else None
        return {key: found[key] for key in keys if key in found} if found else {}

    def some(self, keys: list[str]) -> Operation[dict[str, Any]]:
        """Read the entries of ``keys``, those that there are."""
        found = (yield from self._read("get_many", sorted(keys))) or {}
        return {key: entry for key, entry in found.items() if entry is not None}

    def kept(self) -> Operation[int]:
        """Read how many revisions of a key the bucket keeps."""
        context = yield ask(self.connection, "kv")
        status = yield ask(context, "bucket_status", self.bucket)
        return int(status.history)

    def _read(self, name: str, *arguments: Any, **options: Any) -> Operation[Any]:
        try:
            handle = yield from self._handle()
            return (yield ask(handle, name, *arguments, **options))
        except BucketNotFound:
            self._opened = None
            return None

    # --- written to the server ---

    def write(self, change: kv.Change, *, makes: bool) -> Operation[int]:
        """Carry out a change and return its revision; make a missing bucket where ``makes`` allows it."""
        return (yield from self.write_all([change], makes=makes))[0]

    def write_all(self, changes: list[kv.Change], *, makes: bool) -> Operation[list[int]]:
        """As ``write``, for several changes: all or nothing."""
        try:
            return (yield from self._write(changes))
        except BucketNotFound:
            self._opened = None
            if not (makes and self.connection.settings.registry.create):
                message = (
                    f"There is no bucket {self.bucket!r} for {changes[0].key!r}, which does not make it (CREATE is "
                    "False): make it with `manage.py natskv_bucket sync`."
                )
                raise BucketNotFound(message, bucket=self.bucket) from None
        yield from self._make()
        return (yield from self._write(changes))

    def _write(self, changes: list[kv.Change]) -> Operation[list[int]]:
        handle = yield from self._handle()
        # One alone needs no server that can do several as one.
        results: list[Any] = yield ask(handle, "write_many", changes, atomic=len(changes) > 1)
        for result in results:
            if isinstance(result, OperationalError):
                raise result
        return results

    def delete(self, change: kv.Change) -> Operation[None]:
        """Carry out a deletion, which makes no bucket."""
        yield from self._write([change])

    def _handle(self) -> Operation[kv.Bucket]:
        connection = self.connection
        opened = self._opened
        if opened is None or opened[0] is not connection:
            context = yield ask(connection, "kv")
            handle = yield ask(context, "open_bucket", self.bucket, codec=CODEC)
            self._opened = opened = (connection, handle)
        return opened[1]

    def _make(self) -> Operation[None]:
        context = yield ask(self.connection, "kv")
        try:
            yield ask(context, "create_bucket", declared_bucket(self.alias, self.bucket), codec=CODEC)
        except BucketExists:
            # Another process was faster, with another declaration: `natskv_bucket sync` tells.
            logger.warning("The bucket %s was made by another process, not as it is declared here.", self.bucket)


def longest_history(alias: str, bucket: str) -> int:
    """Return how many revisions a bucket is to keep for the class that wants the most of all in it."""
    wanted = [
        cls._declaration.history or DEFAULT_HISTORY
        for cls in (*declared, *flag_sets)
        if (cls._declaration.connection, cls._declaration.bucket) == (alias, bucket)
    ]
    return max(wanted, default=DEFAULT_HISTORY)


def declared_bucket(alias: str, bucket: str) -> dict[str, Any]:
    """Return how a bucket of the registry is to be made: as the settings say, with the longest history of a class."""
    said: Mapping[str, Any] = connections[alias].settings.buckets.get(bucket, {})
    return {"history": longest_history(alias, bucket), **said, "bucket": bucket}


_places: dict[tuple[str, str], Place] = {}


def place_of(declaration: Declaration) -> Place:
    """Return the place of a class."""
    return place_at(declaration.connection, declaration.bucket)


def place_at(connection: str, bucket: str) -> Place:
    """Return the place of a bucket, one a process."""
    name = (connection, bucket)
    found = _places.get(name)
    return found if found is not None else _places.setdefault(name, Place(*name))


def places() -> list[Place]:
    """Return the places of all classes that are declared."""
    return list(
        {id(place): place for place in (place_of(cls._declaration) for cls in (*declared, *flag_sets))}.values()
    )
