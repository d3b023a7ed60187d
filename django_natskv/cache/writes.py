"""Writing: set, add, touch and delete, of one key and of many.

Owns what Django's cache operations write. Knows nothing of how keys are spelled or values stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation

from django_natskv.cache import backoff
from django_natskv.cache.chunks import CHUNKS, Head
from django_natskv.cache.lifetime import EXPIRES, KEPT, TTL, Lifetime
from django_natskv.cache.place import is_away
from django_natskv.cache.steps import Operation
from django_natskv.cache.store import MARKER_TTL_MS, MISSING, Found, Store
from django_natskv.exceptions import OperationalError, ValueTooLarge, WrongRevision
from django_natskv.kv import Change, Entry, Operation as Did


def put(store: Store, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[None]:
    """Write ``value``, to live ``seconds``, whatever is there."""
    data, formats = yield from store.dump(stored, value)
    if seconds is not None and seconds <= 0:
        yield from delete(store, stored)
        return
    lifetime = Lifetime(seconds)
    yield from store.write(stored, data, store.headers(key, stored, lifetime, formats), lifetime)


def add(store: Store, key: Any, stored: str, value: Any, seconds: float | None) -> Operation[bool]:
    """Write ``value`` if nothing is there; tell whether nothing was."""
    data, formats = yield from store.dump(stored, value)
    if seconds is not None and seconds <= 0:
        return (yield from store.load(stored)) is MISSING
    lifetime = Lifetime(seconds)
    headers = store.headers(key, stored, lifetime, formats)
    over: Entry | None = None
    # A key that is added again and again (a lock, a limit of requests) is mostly there: then looking first is enough.
    looks = stored in store.added
    for pause in backoff.pauses():
        if looks:
            # What is there for the server may be nothing to a cache: expired, cleared, unreadable.
            over, found = yield from store.look(stored)
            if found is not None and (yield from store.value(stored, found)) is not MISSING:
                store.note_added(stored)
                return False
        try:
            yield from store.write(stored, data, headers, lifetime, over)
        except WrongRevision:
            if looks:
                yield pause
            looks = True
        else:
            store.note_added(stored)
            return True
    raise backoff.contended("adding", stored, store.place.name)


def touch(store: Store, stored: str, seconds: float | None) -> Operation[bool]:
    """Give what is there another lifetime; tell whether something was."""
    if seconds is not None and seconds <= 0:
        return delete(store, stored)
    return store.turns.in_turn(stored, _touch(store, stored, seconds))


def _touch(store: Store, stored: str, seconds: float | None) -> Operation[bool]:
    lifetime = Lifetime(seconds)
    for pause in backoff.pauses():
        found = yield from store.find(stored)
        data = None if found is None else (yield from store.data(stored, found.entry))
        if found is None or data is None or store.read(stored, data, found.entry) is MISSING:
            return False
        headers = {**kept(found), **lifetime.headers()}
        try:
            yield from store.write(stored, data, headers, lifetime, found.entry)
        except WrongRevision:
            yield pause
        else:
            return True
    raise backoff.contended("touching", stored, store.place.name)


def kept(found: Found) -> dict[str, str]:
    """Return the headers of what was found without those of its lifetime and chunks."""
    gone = (TTL, EXPIRES, KEPT, CHUNKS)
    return {name: value for name, value in found.entry.headers.items() if name not in gone}


def delete(store: Store, stored: str) -> Operation[bool]:
    """Remove what is there; tell whether something was. What cannot be read was not, and is removed too."""
    for pause in backoff.pauses():
        found = yield from store.find(stored)
        if found is None:
            return False
        there = yield from store.is_there(stored, found)
        try:
            yield from store.remove(stored, found)
        except WrongRevision:
            yield pause
        else:
            return there
    raise backoff.contended("deleting", stored, store.place.name)


def remove_many(store: Store, stored: Iterable[str]) -> Operation[None]:
    """Remove whatever there is under several keys, in one request or a few."""
    wanted = dict.fromkeys(stored)
    yield from store.place.opened()
    # What has to be seen first: how long a tombstone must stay (F1), and chunks, which go with their head.
    seen = wanted if store.place.goes_back else (yield from store.chunks.among(wanted))
    if seen:
        yield from delete_many(store, seen)
    blindly = [Change.delete(name, marker_ttl_ms=MARKER_TTL_MS) for name in wanted if name not in seen]
    store.added.difference_update(wanted)
    results = yield from store.place.ask_many(blindly)
    for change, result in zip(blindly, results, strict=True):
        if isinstance(result, OperationalError):
            raise result
        if store.chunks.knows(change.key):
            yield from store.chunks.replaced(change.key, result, None, None)


def delete_many(store: Store, stored: Iterable[str]) -> Operation[int]:
    """Remove what is there under several keys, in few requests; return how many were there."""
    removed = 0
    wanted = list(dict.fromkeys(stored))
    for pause in backoff.pauses():
        found = yield from store.find_many(wanted)
        changes = []
        for name, each in found.items():
            ttl_ms = yield from store.marker_ttl_ms(each)
            changes.append(Change.delete(name, revision=each.entry.revision, marker_ttl_ms=ttl_ms))
        results = yield from store.place.ask_many(changes)
        wanted = []
        for change, result in zip(changes, results, strict=True):
            if isinstance(result, WrongRevision):
                wanted.append(change.key)
            elif isinstance(result, OperationalError):
                raise result
            else:
                removed += 1
                yield from store.chunks.removed(change.key, Head.of(found[change.key].entry))
        if not wanted:
            return removed
        yield pause
    raise backoff.contended("deleting", wanted[0], store.place.name)


def put_many(
    store: Store, values: Mapping[str, tuple[Any, Any]], seconds: float | None
) -> Operation[dict[str, OperationalError]]:
    """Write several values, given with their keys by stored keys; return the errors of those that failed."""
    dumped = yield from _dump_many(store, values)
    if seconds is not None and seconds <= 0:
        yield from remove_many(store, values)
        return {}
    return (yield from _put_many(store, values, dumped, Lifetime(seconds)))


def _put_many(
    store: Store,
    values: Mapping[str, tuple[Any, Any]],
    dumped: Mapping[str, tuple[bytes, dict[str, str]]],
    lifetime: Lifetime,
) -> Operation[dict[str, OperationalError]]:
    yield from store.place.opened()
    yield from store.chunks.sweep_now_and_then()
    known = (yield from store.place.ask("get_many", list(values))) if store.place.goes_back else None
    failed: dict[str, OperationalError] = {}
    changes: list[Change] = []
    ttl_ms = lifetime.ttl_ms(0.0)
    for stored, (data, formats) in dumped.items():
        headers = store.headers(values[stored][0], stored, lifetime, formats)
        if store.chunks.wants(data):
            yield from _write_apart(store, stored, data, headers, lifetime, failed)
        elif known is None:
            changes.append(Change(stored, Did.PUT, data, None, ttl_ms, headers))
        else:
            changes.append((yield from _over(store, stored, data, headers, lifetime, known.get(stored))))
    away = _away(failed)
    results = (yield from store.place.ask_many(changes)) if away is None else [away] * len(changes)
    for change, result in zip(changes, results, strict=True):
        if isinstance(result, WrongRevision | ValueTooLarge):
            headers = store.headers(values[change.key][0], change.key, lifetime, dumped[change.key][1])
            yield from _write_apart(store, change.key, change.value, headers, lifetime, failed)
        elif isinstance(result, OperationalError):
            failed[change.key] = result
        elif known or store.chunks.knows(change.key):
            over = None if known is None else known.get(change.key)
            yield from store.chunks.replaced(change.key, result, None, over)
    return failed


def _dump_many(
    store: Store, values: Mapping[str, tuple[Any, Any]]
) -> Operation[dict[str, tuple[bytes, dict[str, str]]]]:
    dumped = {}
    dump = store.place.values.dump
    for stored, (_, value) in values.items():
        try:
            dumped[stored] = dump(stored, value)
        except SynchronousOnlyOperation:
            dumped[stored] = yield from store.dump(stored, value)
    return dumped


def _over(
    store: Store, stored: str, data: bytes, headers: Mapping[str, str], lifetime: Lifetime, over: Entry | None
) -> Operation[Change]:
    """Return the change that writes over what was seen there."""
    ttl_ms, kept_for = yield from store.kept(lifetime, over)
    guard = 0 if over is None else over.revision
    return Change(stored, Did.PUT, data, guard, ttl_ms, {**headers, **kept_for})


def _write_apart(
    store: Store,
    stored: str,
    data: bytes,
    headers: Mapping[str, str],
    lifetime: Lifetime,
    failed: dict[str, OperationalError],
) -> Operation[None]:
    away = _away(failed)
    if away is not None:
        failed[stored] = away
        return
    try:
        yield from store.write(stored, data, headers, lifetime)
    except OperationalError as error:
        failed[stored] = error


def _away(failed: Mapping[str, OperationalError]) -> OperationalError | None:
    """Return the error that says that the server is away: to try the next value would take as long again."""
    return next(filter(is_away, failed.values()), None)
