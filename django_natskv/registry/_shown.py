"""What this process shows of a class: snapshots made once for each revision.

Owns when a snapshot is made anew, and that a read costs next to nothing otherwise. Knows nothing of writing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ValidationError

from django_natskv import signals
from django_natskv.registry import _views
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._storing import copy_of, frozen, load

logger = logging.getLogger("django_natskv.registry")


class _Unread:
    """Stands in for a local cache, and never is at the same moment as before."""

    @property
    def moment(self) -> object:
        return object()


_UNREAD: Any = _Unread()
_NOTHING: tuple[Any, Any, Any] = (None, None, None)  # moment, entry, snapshot


class Current:
    """The attribute ``current`` of a Config: its snapshot, one object until something changes."""

    __slots__ = ("_cache", "_last", "_seen")

    def __init__(self) -> None:
        self._cache = self._last = _UNREAD
        # One tuple, replaced as a whole: two threads that read at once can then never mix two moments.
        self._seen = _NOTHING

    def __get__(self, instance: Any, owner: Any) -> Any:
        seen = self._seen
        if _views.view.get() is None and self._cache.moment is seen[0]:
            return seen[2]
        return self.read(owner)

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has changed since the last read."""
        return self._cache.moment is self._seen[0]

    def read(self, cls: Any) -> Any:
        """Return what this context sees."""
        return _views.seen(cls, self.base(cls), _with)

    def base(self, cls: Any) -> Any:
        """Return what this context sees without overrides."""
        pin = _views.current_pin()
        return self.newest(cls) if pin is None else _pinned(pin, cls, cls._declaration.key)

    def newest(self, cls: Any) -> Any:
        """Return the snapshot of what is stored now, as far as this process knows."""
        place = place_of(cls._declaration)
        cache = place.cache
        moment = cache.moment  # before the entry: what comes in between is seen by the next read
        _, known, snapshot = self._seen if cache is self._last else _NOTHING
        entry = place.entry(cls._declaration.key, known)
        if snapshot is None or not _same(entry, known):
            snapshot = make(cls, place, cls._declaration.key, entry, snapshot)
        self._seen = (moment, entry, snapshot)
        self._last = cache
        # An override of the whole process is looked up at each read.
        self._cache = _UNREAD if _views.overrides_everywhere(cls) else cache
        return snapshot

    def slow_down(self) -> None:
        """Look everything up at the next read."""
        self._cache = _UNREAD


class Collection:
    """The snapshots of a class that has an object a key."""

    __slots__ = ("_cache", "_seen")

    def __init__(self) -> None:
        self._cache = _UNREAD
        self._seen: tuple[Any, dict[str, tuple[Any, Any]]] = (None, {})  # moment, key -> entry and snapshot

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has changed since the last read."""
        return self._cache.moment is self._seen[0]

    def all(self, cls: Any) -> dict[str, Any]:
        """Return the snapshots of all objects by key, in the order of keys."""
        pin = _views.current_pin()
        if pin is not None:
            entries = _pinned_entries(pin, place_of(cls._declaration))
            keys = [key for key in sorted(entries) if _belongs(cls, key)]
            return {key: one for key in keys if (one := _pinned(pin, cls, key)) is not None}
        return {key: one for key, (_, one) in self._newest(cls).items() if one is not None}

    def one(self, cls: Any, key: str) -> Any:
        """Return the snapshot of the object at ``key``, or None."""
        pin = _views.current_pin()
        if pin is not None:
            return _pinned(pin, cls, key)
        found = self._newest(cls).get(key)
        return None if found is None else found[1]

    def _newest(self, cls: Any) -> dict[str, tuple[Any, Any]]:
        moment, known = self._seen
        if self._cache.moment is moment:
            return known
        place = place_of(cls._declaration)
        cache = place.cache
        moment = cache.moment
        if cache is not self._cache:
            known = {}  # another connection than before
        entries = place.entries({key: entry for key, (entry, _) in known.items()})
        made: dict[str, tuple[Any, Any]] = {}
        for key in sorted(key for key in entries if _belongs(cls, key)):
            before = known.get(key, (None, None))
            same = _same(entries[key], before[0])
            made[key] = (entries[key], before[1] if same else make(cls, place, key, entries[key], before[1]))
        self._seen = (moment, made)
        self._cache = cache
        return made


def make(cls: Any, place: Place, key: str, entry: Any, last: Any) -> Any:
    """Return a snapshot of ``entry``, None where its key cannot be one of ``cls``; tell what is undecodable."""
    data, revision = (None, 0) if entry is None else (entry.value, entry.revision)
    try:
        instance, errors = load(cls, key, data, revision, last)
    except (ValidationError, ValueError) as reason:
        text = "%s: the key %r in bucket %r is left out, because it holds no primary key: %r"
        logger.error(text, cls.__name__, key, place.bucket, reason)  # noqa: TRY400 - told, not traced
        return None
    for error in errors:
        _tell(cls, place, error)
    return frozen(instance)


def _same(entry: Any, known: Any) -> bool:
    # A write of this process is shown by one entry at first and by another one, the server's, later. A server that was
    # rolled back by a crash may give a revision twice (F2).
    if entry is known or entry is None or known is None:
        return entry is known
    return bool(entry.revision == known.revision and entry.value == known.value)


def _tell(cls: Any, place: Place, error: Any) -> None:
    logger.error("%s The last good value, or the default, stands in; nothing was changed. %s", error, error.detail)
    arguments = {"connection": place.connection, "bucket": place.bucket, "key": error.key, "error": error}
    signals.dispatcher.send(signals.undecodable, cls, arguments)


def _belongs(cls: Any, key: str) -> bool:
    prefix = f"{cls._declaration.key}."
    return key.startswith(prefix) and "." not in key[len(prefix) :]


def _pinned_entries(pin: _views.Pin, place: Place) -> Any:
    if place not in pin.entries:
        pin.entries[place] = place.entries({})
    return pin.entries[place]


def _pinned(pin: _views.Pin, cls: Any, key: str) -> Any:
    place = place_of(cls._declaration)
    entry = _pinned_entries(pin, place).get(key)
    if entry is None and cls._declaration.many:
        return None
    known = pin.made.get((cls, key))
    if known is None or not _same(entry, known[0]):
        known = pin.made[(cls, key)] = (entry, _shared(cls, place, key, entry))
    return known[1]


def _shared(cls: Any, place: Place, key: str, entry: Any) -> Any:
    """Return the snapshot that everybody shares where it is of this very entry, else one of the pin's own."""
    if not cls._declaration.many:
        seen = cls.__dict__["current"]._seen
        if seen[2] is not None and _same(entry, seen[1]):
            return seen[2]
        return make(cls, place, key, entry, seen[2])
    known = cls._collection._seen[1].get(key, (None, None))
    return known[1] if _same(entry, known[0]) else make(cls, place, key, entry, known[1])


def _with(base: Any, fields: dict[str, Any]) -> Any:
    made = copy_of(base)
    for name, value in fields.items():
        setattr(made, name, value)
    return frozen(made)
