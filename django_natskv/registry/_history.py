"""History: who changed what, when and why; how it was, and back to it.

Owns what is made of the revisions that a bucket keeps of a key. Knows nothing of how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.core.exceptions import ValidationError
from django.utils import timezone

from django_natskv.exceptions import UsageError
from django_natskv.kv import Operation as Done
from django_natskv.registry import _reading
from django_natskv.registry._layers import chain
from django_natskv.registry._names import from_headers
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import Operation
from django_natskv.registry._storing import changed_fields, frozen
from django_natskv.registry._writing import replacing

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Revision(Generic[M]):
    """One revision of an object.

    ``time`` is the server's. ``actor`` and ``comment`` are empty where none was given. ``value`` is the object as it
    was, a snapshot, None when it was deleted. ``changes`` maps the name of each field that changed to a pair: what it
    was in the revision before, or by default, and what it became.
    """

    revision: int
    time: datetime
    actor: str
    comment: str
    operation: Done
    value: M | None
    changes: Mapping[str, tuple[Any, Any]]


def reading(cls: Any, key: str) -> Operation[list[Revision[Any]]]:
    """Read the revisions that are kept of ``key``, oldest first; those of a scope over what it falls back to now."""
    under = yield from _reading.stored_under(cls, key)
    entries = yield from place_of(cls._declaration).history(key)
    found: list[Revision[Any]] = []
    defaults = before = _reading.of_entry(cls, key, None, under)
    for entry in entries:
        live = entry.operation is Done.PUT
        now = _reading.of_entry(cls, key, entry, under) if live else defaults
        changes = {name: (getattr(before, name), getattr(now, name)) for name in changed_fields(before, now)}
        actor, comment = from_headers(entry.headers)
        value = frozen(now) if live else None
        found.append(Revision(entry.revision, entry.created, actor, comment, entry.operation, value, changes))
        before = now
    return found


def rolling_back(cls: Any, key: str, revision: int | None, actor: Any, comment: str) -> Operation[Any]:
    """Save the object as it was at ``revision`` again, as a new revision, if nobody is faster; return it."""
    if revision is None:  # the newest, to whom it is handed on
        message = "A rollback() wants the revision to go back to. See history()."
        raise UsageError(message)
    place = place_of(cls._declaration)
    entry = yield from place.get(key, revision)
    if entry is None or entry.operation is not Done.PUT:
        what = "is not kept" if entry is None else "deleted it"
        message = f"{cls.__name__} cannot go back to revision {revision}, which {what}. See history()."
        raise cls.DoesNotExist(message)
    newest = yield from place.get(key)
    instance = _reading.of_entry(cls, key, entry, (yield from _reading.stored_under(cls, key)))
    if instance._kept.undecodable:
        names = ", ".join(instance._kept.undecodable)
        message = f"Revision {revision} of {cls.__name__} cannot be read by now: {names}."
        raise ValidationError(message)
    comment = comment or f"Back to revision {revision}"
    yield from replacing(instance, 0 if newest is None else newest.revision, actor, comment)
    return instance


def as_of(cls: Any, key: str, when: object) -> Operation[Any]:
    """Return the object as it was at ``when``; ``DoesNotExist`` when a Model was not there, or it is not known."""
    if not isinstance(when, datetime):
        message = f"as_of() wants a datetime, not {type(when).__name__}: a day, for instance, has many moments."
        raise TypeError(message)
    moment = when if timezone.is_aware(when) else timezone.make_aware(when)
    keys = chain(cls._declaration, key)
    entries = []
    for each in keys:
        entry = yield from _entry_at(cls, each, moment)
        entries.append(entry)
    if entries[-1] is None and cls._declaration.many:
        message = f"There was no such {cls.__name__} at {moment.isoformat()}."
        raise cls.DoesNotExist(message)
    return frozen(_reading.stacked(cls, keys, entries))


def _entry_at(cls: Any, key: str, moment: datetime) -> Operation[Any]:
    """Return the entry of ``key`` as it was; None where there was none; ``DoesNotExist`` when it is not known."""
    place = place_of(cls._declaration)
    entries = yield from place.history(key)
    past = [entry for entry in entries if entry.created <= moment]
    if past:
        return past[-1] if past[-1].operation is Done.PUT else None
    if entries and (yield from _may_have_lost(place, entries)):
        message = f"What {cls.__name__} was at {moment.isoformat()} is not kept any more. See Meta.history."
        raise cls.DoesNotExist(message)
    return None


def _may_have_lost(place: Any, entries: list[Any]) -> Operation[bool]:
    if entries[0].operation is Done.PURGE:
        return True
    kept: int = yield from place.kept()
    return len(entries) >= kept
