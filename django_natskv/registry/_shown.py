"""What this process shows of a class: snapshots made once for each revision.

Owns when a snapshot is made anew, and that a read costs next to nothing otherwise. Knows nothing of writing.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ValidationError

from django_natskv import signals
from django_natskv.registry import _views
from django_natskv.registry._layers import owns
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
        fields = tuple(given for owner, given in _views.overrides() if owner is cls)
        return _views.seen(cls, self.base(cls), fields, _with)

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
        self._read_on(cls, cache)
        return snapshot

    def _read_on(self, cls: Any, cache: Any) -> None:
        """Let the next reads look at the copy alone; not while an override of the whole process is to be looked up."""
        if _views.overrides_everywhere(cls):
            self._cache = _UNREAD
            return
        self._cache = cache
        if _views.overrides_everywhere(cls):  # it came in between, and its slow_down() before that line
            self._cache = _UNREAD

    def slow_down(self) -> None:
        """Look everything up at the next read."""
        self._cache = _UNREAD


class Layered(Current):
    """What one scope of a Config shows: its own document over those that it falls back to."""

    __slots__ = ("_chain", "_made", "model")

    def __init__(self, model: Any, chain: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self._chain = chain
        # The copy and, for what cannot be read in the next one, the last object of each document.
        self._made: tuple[Any, tuple[Any, ...]] = (None, ())

    @property
    def key(self) -> str:
        """The key of the scope's own document."""
        return self._chain[-1]

    def read(self, cls: Any) -> Any:
        """See Current."""
        overrides = _views.overrides()
        base = self.base(cls)
        return _views.seen(self, base, self._over(base, overrides), _with) if overrides else base

    def base(self, cls: Any) -> Any:
        """See Current."""
        pin = _views.current_pin()
        return self.newest(cls) if pin is None else self._pinned(pin, cls)

    def newest(self, cls: Any) -> Any:
        """See Current."""
        place = place_of(cls._declaration)
        cache = place.cache
        moment = cache.moment  # before the entries
        _, known, snapshot = self._seen if cache is self._last else _NOTHING
        ground = cls.__dict__["current"].newest(cls)
        before = known or (None,) * len(self._chain)
        entries = [place.entry(key, last) for key, last in zip(self._chain[1:], before[1:], strict=True)]
        found = (ground, *entries)
        if snapshot is None or not _all_same(found, known):
            snapshot = self._stack(cls, place, found)
        self._seen = (moment, found, snapshot)
        self._last = cache
        self._read_on(cls, cache)
        return snapshot

    def _stack(self, cls: Any, place: Place, found: tuple[Any, ...]) -> Any:
        made = [found[0]]
        cache, last = self._made
        if cache is not place.cache:  # another connection than before
            cache, last = place.cache, (None,) * len(self._chain)
        for key, entry, before in zip(self._chain[1:], found[1:], last[1:], strict=True):
            made.append(make(cls, place, key, entry, before, made[-1]))
        self._made = (cache, tuple(made))
        return made[-1]

    def _pinned(self, pin: _views.Pin, cls: Any) -> Any:
        place = place_of(cls._declaration)
        entries = _pinned_entries(pin, place)
        ground = _pinned(pin, cls, self._chain[0])
        found = (ground, *(entries.get(key) for key in self._chain[1:]))
        known = pin.made.get((cls, self))
        if known is None or not _all_same(found, known[0]):
            _, shared, snapshot = self._seen
            same = snapshot is not None and _all_same(found, shared)
            known = pin.made[(cls, self)] = (found, snapshot if same else self._stack(cls, place, found))
        return known[1]

    def _over(self, base: Any, overrides: tuple[tuple[Any, Any], ...]) -> tuple[dict[str, Any], ...]:
        """Return what overrides change here: as if each were stored in the document that it is of."""
        kept, chain = base._kept, self._chain
        origins = {**kept.origins, **dict.fromkeys(kept.own, self.key)}
        sets = {name: chain.index(key) for name, key in origins.items()}
        ranked = [(self._rank(owner), fields) for owner, fields in overrides]
        ordered = sorted((each for each in ranked if each[0] >= 0), key=lambda each: each[0])
        seen = (
            {name: value for name, value in fields.items() if sets.get(name, 0) <= rank} for rank, fields in ordered
        )
        return tuple(fields for fields in seen if fields)

    def _rank(self, owner: Any) -> int:
        if owner is self.model:
            return 0
        mine = isinstance(owner, Layered) and owner.model is self.model and owner.key in self._chain
        return self._chain.index(owner.key) if mine else -1


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
        for key in known.keys() - made.keys():
            place.note(key, None)
        self._seen = (moment, made)
        self._cache = cache
        return made


def make(cls: Any, place: Place, key: str, entry: Any, last: Any, under: Any = None) -> Any:
    """Return a snapshot of ``entry``, None where its key cannot be one of ``cls``; tell what is undecodable.

    ``last`` was shown before; ``under`` is what a scope falls back to.
    """
    data, revision = (None, 0) if entry is None else (entry.value, entry.revision)
    try:
        instance, errors = load(cls, key, data, revision, last, under)
    except (ValidationError, ValueError) as reason:
        text = "%s: the key %r in bucket %r is left out, because it holds no primary key: %r"
        logger.error(text, cls.__name__, key, place.bucket, reason)  # noqa: TRY400 - told, not traced
        return None
    if place.note(key, entry if errors else None):
        for error in errors:
            _tell(cls, place, error)
    return frozen(instance)


def _same(entry: Any, known: Any) -> bool:
    # A write of this process is shown by one entry at first and by another one, the server's, later. A server that was
    # rolled back by a crash may give a revision twice (F2).
    if entry is known or entry is None or known is None:
        return entry is known
    return bool(entry.revision == known.revision and entry.value == known.value)


def _all_same(found: tuple[Any, ...], known: Any) -> bool:
    if known is None or found[0] is not known[0]:
        return False
    return all(_same(entry, last) for entry, last in zip(found[1:], known[1:], strict=True))


def _tell(cls: Any, place: Place, error: Any) -> None:
    logger.error("%s The last good value, or the default, stands in; nothing was changed. %s", error, error.detail)
    arguments = {"connection": place.connection, "bucket": place.bucket, "key": error.key, "error": error}
    signals.dispatcher.send(signals.undecodable, cls, arguments)


def _belongs(cls: Any, key: str) -> bool:
    return owns(cls._declaration, key)


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
