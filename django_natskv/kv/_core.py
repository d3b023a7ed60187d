"""The operations of a bucket, written once for both faces.

Owns what an operation means: markers, absence, guards, completeness. Knows nothing of how it is waited for: each is
an operation that a runner drives, in the caller's thread, where keys are checked and values coded too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from django_natskv.exceptions import CodecError, OperationalError, UsageError, WrongRevision
from django_natskv.kv._interrupts import from_handler
from django_natskv.kv._listing import Listing
from django_natskv.kv._nats.batches import MOST, Batches
from django_natskv.kv._nats.config import BucketInfo, from_stream
from django_natskv.kv._nats.errors import wrong_revision
from django_natskv.kv._nats.messages import Stored, own_headers
from django_natskv.kv._nats.verbs import MAX_MATCHES, Wire
from django_natskv.kv._nats.writes import Write, Writer
from django_natskv.kv.changes import ABSENT, Change, check_revision
from django_natskv.kv.codecs import Codec
from django_natskv.kv.entries import MAX_HISTORY, SECOND, BucketConfig, Entry, Operation as Did, make_entry
from django_natskv.kv.names import check_key, check_patterns, disjoint, matcher
from django_natskv.kv.runner import Operation

_AT_ONCE = 256  # requests sent side by side
_TRIES = 5  # of a create over a marker that keeps changing
_make = tuple.__new__


Wrote = Callable[[BucketInfo, str, int, dict[str, str], bytes], None]


class Core:
    """The operations of one bucket with one codec. ``wrote`` is told of each acknowledged write, in its thread."""

    def __init__(self, wire: Wire, info: BucketInfo, codec: Codec, wrote: Wrote | None = None) -> None:
        self.wire = wire
        self.info = info
        self.codec = codec
        self.name = info.bucket
        self.prefix = f"$KV.{info.origin}."
        self._writer = Writer(wire)
        self._batches = Batches(wire, info)
        self._listing = Listing(wire, info)
        self._wrote = wrote

    def config(self) -> BucketConfig:
        """See ``Bucket.config``."""
        return BucketConfig(**from_stream(self.info))

    # --- reading ---

    def get(self, key: str, revision: int | None) -> Operation[Entry | None]:
        """See ``Bucket.get``."""
        subject = self.prefix + check_key(key)
        if revision is None:
            stored = yield from self.wire.last(self.info, subject, self._what("reading", key))
            return None if stored is None or stored.operation is not Did.PUT else self.entry(stored)
        stored = yield from self.wire.at(self.info, check_revision(revision), self._what("reading", key))
        return None if stored is None or stored.subject != subject else self.entry(stored)

    def get_many(self, keys: Iterable[str]) -> Operation[dict[str, Entry]]:
        """See ``Bucket.get_many``."""
        if isinstance(keys, str) or not isinstance(keys, Iterable):
            message = f"get_many takes a list of keys, not {type(keys).__name__}: for one key call get."
            raise UsageError(message)
        subjects = [self.prefix + key for key in dict.fromkeys(check_key(key) for key in keys)]
        what = f"reading {len(subjects):,} keys in bucket {self.name!r}"
        found: dict[str, Stored] = {}
        for chunk in _chunks(subjects, self.wire.client.max_payload):
            if not (self.wire.is_direct(self.info) and (yield from self._many_direct(chunk, found, what))):
                yield from self._many_of_leader(chunk, found, what)
        return self._entries(found[subject] for subject in subjects if subject in found)

    def _entries(self, revisions: Iterable[Stored]) -> dict[str, Entry]:
        """Return the entries of those that are values; what equal headers say is worked out once."""
        entries: dict[str, Entry] = {}
        said: dict[int, tuple[Did, Mapping[str, str], int | None]] = {}
        name, start = self.name, len(self.prefix)
        for stored in revisions:
            headers = stored.headers
            known = said.get(id(headers))
            if known is None:
                known = said[id(headers)] = stored.operation, own_headers(headers), _ttl_ms(stored)
            operation, own, ttl_ms = known
            if operation is Did.PUT:
                key = stored.subject[start:]
                value = self.decode(key, stored.data)
                entries[key] = make_entry(
                    name, key, value, stored.revision, stored.created, operation, None, own, ttl_ms
                )
        return entries

    def _many_direct(self, subjects: list[str], found: dict[str, Stored], what: str) -> Operation[bool]:
        """Add what is there to ``found``; return whether it can be relied on."""
        here: dict[str, Stored] = {}
        while missing := [subject for subject in subjects if subject not in here]:
            answer = yield from self.wire.many(self.info, {"multi_last": missing}, what)
            if answer is None:
                return False
            stored, left = answer
            here.update((each.subject, each) for each in stored)
            if not left or not stored:
                break
        found.update(here)
        return True

    def _many_of_leader(self, subjects: list[str], found: dict[str, Stored], what: str) -> Operation[None]:
        for start in range(0, len(subjects), _AT_ONCE):
            queries = [{"last_by_subj": subject} for subject in subjects[start : start + _AT_ONCE]]
            stored = yield from self.wire.each_of_leader(self.name, queries, what)
            found.update((each.subject, each) for each in stored if each is not None)

    def history(self, key: str) -> Operation[list[Entry]]:
        """See ``Bucket.history``."""
        subject = self.prefix + check_key(key)
        what = self._what("reading the history of", key)
        revisions = None
        if self.wire.is_direct(self.info):
            revisions = yield from self._history_direct(subject, what)
        if revisions is None:
            revisions = yield from self._history_of_leader(subject, what)
        newest = len(revisions) - 1
        return [self.entry(stored, newest - position) for position, stored in enumerate(revisions)]

    def _history_direct(self, subject: str, what: str) -> Operation[list[Stored] | None]:
        revisions: list[Stored] = []
        while True:
            following = revisions[-1].revision + 1 if revisions else 1
            query = {"seq": following, "next_by_subj": subject, "batch": MAX_HISTORY}
            answer = yield from self.wire.many(self.info, query, what)
            if answer is None:
                return None
            found, left = answer
            revisions.extend(found)
            if not left or not found:
                return revisions

    def _history_of_leader(self, subject: str, what: str) -> Operation[list[Stored]]:
        revisions: list[Stored] = []
        while True:
            following = revisions[-1].revision + 1 if revisions else 1
            found = yield from self.wire.by_leader(self.name, {"seq": following, "next_by_subj": subject}, what)
            if found is None:
                return revisions
            revisions.append(found)

    def keys(self, patterns: object) -> Operation[list[str]]:
        """See ``Bucket.keys``."""
        checked = (">",) if patterns is None else check_patterns(patterns)
        heads = yield from self._listing.heads(checked, f"listing the keys of bucket {self.name!r}")
        wanted = matcher(checked)
        return [key for subject in heads.live if wanted(key := subject[len(self.prefix) :])]

    def count(self) -> Operation[int]:
        """Return the number of live keys."""
        return len((yield from self._listing.heads((">",), f"counting the entries of bucket {self.name!r}")).live)

    def server_time(self) -> Operation[datetime]:
        """See ``Bucket.server_time``."""
        info = yield from self.wire.info(self.name, f"asking for the time of the server of bucket {self.name!r}")
        return info.asked or datetime.now(UTC)

    def covers_all(self, filters: list[str], info: BucketInfo) -> bool:
        """See Listing."""
        return self._listing.covers_all(filters, info)

    # --- writing ---

    def write(self, change: Change) -> Operation[int]:
        """Carry out one change and return the new revision."""
        write = self._prepare(change)
        if change.revision == ABSENT:
            return (yield from self._create(write))
        revision = yield from self._writer.write(self.info, write)
        self._tell(write, revision)
        return revision

    def erasing(self, change: Change) -> Operation[None]:
        """Carry out one change whose revision nobody needs."""
        yield from self.write(change)

    def write_many(
        self, changes: object, *, atomic: bool = False, deduplicate: bool = True
    ) -> Operation[list[int | OperationalError]]:
        """See ``Bucket.write_many``."""
        writes = self._prepare_all(changes, repeats=not (deduplicate or atomic))
        if atomic:
            return (yield from self._write_all(writes))
        results = yield from self._writer.write_many(self.info, writes)
        for position, (write, result) in enumerate(zip(writes, results, strict=True)):
            if isinstance(result, int):
                self._tell(write, result)
            elif isinstance(result, WrongRevision) and write.expected == ABSENT:
                results[position] = yield from self._create_over(write)
        return results

    def _write_all(self, writes: list[Write]) -> Operation[list[int | OperationalError]]:
        keys = [write.key for write in writes]
        if len(keys) > MOST or len(set(keys)) < len(keys):
            wrong = f"{len(keys):,} changes" if len(keys) > MOST else "several changes of one key"
            message = f"Bucket {self.name!r} takes at most {MOST:,} changes, one a key, all or nothing, not {wrong}."
            raise UsageError(message)
        if not writes:
            return []
        what = f"writing {len(writes):,} keys in bucket {self.name!r}, all or nothing"
        revisions = yield from self._batches.write(self.info, writes, what)
        for write, revision in zip(writes, revisions, strict=True):
            self._tell(write, revision)
        return [*revisions]

    def _prepare_all(self, changes: object, *, repeats: bool) -> list[Write]:
        if isinstance(changes, str | bytes) or not isinstance(changes, Iterable):
            message = f"write_many takes a list of changes, not {type(changes).__name__}."
            raise UsageError(message)
        prepared: list[Write] = []
        said: tuple[Any, ...] = ()
        headers: dict[str, str] = {}
        for change in changes:
            if not isinstance(change, Change) or type(change.operation) is not Did:
                what = f"with operation {change.operation!r}" if isinstance(change, Change) else type(change).__name__
                message = f"A change is made by Change.put, create, update, delete or purge, not {what}."
                raise UsageError(message)
            # Many values of an application are written with the same headers: those are made and checked once.
            says = (change.headers, change.operation, change.ttl_ms, type(change.ttl_ms), change.erases_history)
            if says != said:
                headers = change.wire_headers()
                said = (dict(change.headers) if change.headers else change.headers, *says[1:])
            prepared.append(self._prepare(change, headers, repeats=repeats))
        return prepared

    def _prepare(self, change: Change, headers: dict[str, str] | None = None, *, repeats: bool = False) -> Write:
        """Return the bytes of a change; everything that can be wrong with it is, before anything is sent."""
        key = check_key(change.key)
        guard, operation = change.revision, change.operation
        # Checked again: a change may have been put together, or altered by dataclasses.replace().
        if guard is not None and guard is not ABSENT:
            guard = check_revision(guard)
        if type(operation) is not Did:
            message = (
                f"The operation of a change is one of kv.Operation, not {operation!r}: make it by Change.put, say."
            )
            raise UsageError(message)
        if headers is None:
            headers = change.wire_headers()
        data = self.encode(key, change.value) if operation is Did.PUT else b""
        # A guard tells a repetition from its first try by the id that was stored.
        repeats = repeats and guard is None
        return _make(Write, (key, data, headers, guard, change.doing, self.name, guard == ABSENT, repeats))

    def _create(self, write: Write) -> Operation[int]:
        for _ in range(_TRIES):
            try:
                revision = yield from self._writer.write(self.info, write)
            except WrongRevision:
                stored = yield from self.wire.last_of_leader(self.info.origin, self.prefix + write.key, write.what)
                if stored is not None and stored.operation is Did.PUT:
                    raise
                # A marker counts as a revision: what stands there must be named to be written over (F17).
                write = write._replace(expected=ABSENT if stored is None else stored.revision)
            else:
                self._tell(write, revision)
                return revision
        raise wrong_revision(write.what, self.name, write.key)

    def _create_over(self, write: Write) -> Operation[int | OperationalError]:
        try:
            return (yield from self._create(write))
        except OperationalError as error:
            return error

    def erase(self, patterns: object, before: object) -> Operation[int]:
        """See ``Bucket.erase``."""
        checked = (">",) if patterns is None else check_patterns(patterns)
        limit = None if before is None else check_revision(before)
        what = f"erasing entries of bucket {self.name!r}"
        count = 0
        # A mirror does not follow what its origin removes: both are told.
        for bucket in dict.fromkeys((self.info.origin, self.name)):
            for pattern in disjoint(checked):
                count += yield from self.wire.purge(bucket, self.prefix + pattern, limit, what)
        return count

    def purge_deletes(self) -> Operation[None]:
        """See ``Bucket.purge_deletes``."""
        heads = yield from self._listing.heads((">",), f"looking for tombstones in bucket {self.name!r}")
        # Up to the marker's own revision: a key that was written again meanwhile keeps its new value.
        found = list(heads.markers.items())
        # A mirror does not follow what its origin removes: both are told.
        for bucket in dict.fromkeys((self.info.origin, self.name)):
            for start in range(0, len(found), _AT_ONCE):
                yield from self.wire.purge_up_to(bucket, found[start : start + _AT_ONCE])

    def _tell(self, write: Write, revision: int) -> None:
        if self._wrote is not None:
            self._wrote(self.info, write.key, revision, write.headers, write.data)

    # --- values ---

    def key(self, stored: Stored) -> str:
        """Return the key of a stored revision."""
        return stored.subject[len(self.prefix) :]

    def entry(self, stored: Stored, delta: int | None = None) -> Entry:
        """Return the entry of a stored revision; ``CodecError`` when its bytes do not decode."""
        key = self.key(stored)
        if not stored.headers:
            value = self.decode(key, stored.data)
            return Entry(self.name, key, value, stored.revision, stored.created, Did.PUT, delta)
        operation = stored.operation
        value = self.decode(key, stored.data) if operation is Did.PUT else None
        headers = own_headers(stored.headers)
        return Entry(self.name, key, value, stored.revision, stored.created, operation, delta, headers, _ttl_ms(stored))

    def encode(self, key: str, value: Any) -> bytes:
        """Return the bytes for ``value``; ``CodecError``."""
        try:
            data: object = self.codec.encode(value)
        except Exception as error:
            if from_handler(error):
                raise  # a time limit is no fault of the value
            message = f"The value for {key!r} in bucket {self.name!r} cannot be encoded ({type(error).__name__})."
            raise CodecError(message, bucket=self.name, key=key) from error
        if not isinstance(data, bytes):
            message = f"The codec of bucket {self.name!r} gave {type(data).__name__} for {key!r}, and must give bytes."
            raise CodecError(message, bucket=self.name, key=key)
        return data

    def decode(self, key: str, data: bytes) -> Any:
        """Return the value of ``data``; ``CodecError``."""
        try:
            return self.codec.decode(data)
        except Exception as error:
            if from_handler(error):
                raise
            message = (
                f"What is stored under {key!r} in bucket {self.name!r} cannot be decoded ({type(error).__name__})."
            )
            raise CodecError(message, bucket=self.name, key=key) from error

    def decode_together(self, data: Iterable[bytes]) -> list[Any] | None:
        """Return the value of each, or None when one does not decode: ``decode`` tells of it then."""
        try:
            return list(map(self.codec.decode, data))
        except Exception as error:
            if from_handler(error):
                raise
            return None

    def _what(self, doing: str, key: str) -> str:
        return f"{doing} {key!r} in bucket {self.name!r}"


def _ttl_ms(stored: Stored) -> int | None:
    return stored.time_to_live * SECOND if "Nats-TTL" in stored.headers else None


def _chunks(subjects: list[str], max_payload: int) -> Iterable[list[str]]:
    """Cut ``subjects`` into lists that one request can ask for."""
    chunk: list[str] = []
    size = 0
    for subject in subjects:
        length = len(subject) + 4  # quotes, comma, space
        if chunk and (len(chunk) == MAX_MATCHES or size + length > max_payload - 1024):
            yield chunk
            chunk, size = [], 0
        chunk.append(subject)
        size += length
    if chunk:
        yield chunk
