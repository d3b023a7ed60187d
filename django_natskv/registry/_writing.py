"""Writing: validate, encode, compare and set; and again, where that is what was asked for.

Owns the operations that change what is stored. Knows nothing of how a step is carried out on either face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any

from django_natskv import signals
from django_natskv.exceptions import CodecError, UsageError, WrongRevision
from django_natskv.kv import Change, spread
from django_natskv.registry import _gathering, _reading, _views
from django_natskv.registry._conflict import Conflict
from django_natskv.registry._encoding import to_bytes
from django_natskv.registry._gathering import Gathered, Gathering
from django_natskv.registry._names import to_headers
from django_natskv.registry._place import place_of
from django_natskv.registry._queues import in_turn
from django_natskv.registry._steps import Operation, Step, ask, pause, work
from django_natskv.registry._storing import (
    WHOLE,
    Kept,
    base_of,
    copy_of,
    inherit,
    same,
    set_in,
    stored_fields,
    take,
    to_document,
    to_json,
)

# Times that an operation which may begin again does so: for some 25 seconds. A process that a busy machine holds up
# between its read and its write wins few races against one that writes without pause.
ATTEMPTS = 200
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.25  # seconds, the bounds of pauses between attempts, which are left to chance

validating: ContextVar[Any] = ContextVar("natskv_validating", default=None)
"""The object that is being validated to be saved: whether its primary key is taken, the write itself finds out."""


def saving(instance: Any, update_fields: Iterable[str] | None, actor: Any, comment: str) -> Operation[None]:
    """Save ``instance``; only some fields of it, over whatever the others are by now, when they are given."""
    _refuse_frozen(instance)
    names = None if update_fields is None else _checked(type(instance), update_fields)
    if names == ():
        return
    author = {"actor": actor, "comment": comment}
    created = not _revision(instance)
    told = {"sender": type(instance), "instance": instance, "update_fields": names, **author}
    yield ask(signals.pre_save, "send", **told)
    if names is None:
        yield from _saved(instance, author)
    else:
        yield from _saved_fields(instance, names, author)
    yield from _afterwards(instance, ask(signals.post_save, "send", created=created, **told))


def _saved(instance: Any, author: dict[str, Any]) -> Operation[None]:
    try:
        yield from _written(instance, author)
    except WrongRevision as error:
        raise (yield from conflict(instance)) from error


def _saved_fields(instance: Any, names: tuple[str, ...], author: dict[str, Any]) -> Operation[None]:
    gathering = _gathering.current.get()
    if gathering is not None:
        yield from _gathered_fields(gathering, instance, names, author)
        return
    cls = type(instance)
    key = _reading.key_of(cls, instance.pk)
    yield from in_turn((place_of(cls._declaration), key), _saved_over(instance, key, names, author))


def _saved_over(instance: Any, key: str, names: tuple[str, ...], author: dict[str, Any]) -> Operation[None]:
    before = base_of(instance)
    target = base_of(instance)
    for attempt in range(ATTEMPTS):
        take(target, instance, names)
        try:
            yield from _written(target, author, names)
        except WrongRevision:
            yield _wait(attempt)
            target = yield from _reading.stored_one(type(instance), key)
            if target is None:
                break
        else:
            _follow(instance, before, target, names)
            return
    raise (yield from conflict(instance))


def _gathered_fields(
    gathering: Gathering, instance: Any, names: tuple[str, ...], author: dict[str, Any]
) -> Operation[None]:
    known = gathering.owned(_reading.key_of(type(instance), instance.pk), instance)
    before = base_of(instance)
    target = base_of(instance) if known is None else copy_of(known.target)
    take(target, instance, names)

    def took(_revision: int) -> None:
        _follow(instance, before, target, names)

    yield from _written(target, author, names, owner=instance, took=took)


def _follow(instance: Any, before: Any, target: Any, names: tuple[str, ...]) -> None:
    """Let ``instance`` show what was saved, but for what was changed in it and not saved."""
    for field in stored_fields(instance):
        if field.name in names or same(to_json(field, instance), to_json(field, before)):
            setattr(instance, field.attname, getattr(target, field.attname))
    moved = (instance._kept.own ^ before._kept.own).difference(names)
    own = target._kept.own - moved | instance._kept.own & moved
    instance._kept = replace(target._kept, own=own)
    instance._state.adding = False


def updating(cls: Any, key: str, change: Callable[[Any], Any], actor: Any, comment: str) -> Operation[Any]:
    """Have ``change`` change the stored object, anew each time that somebody else was faster; return it."""
    operation = _updating(cls, key, change, actor, comment)
    if _gathering.current.get() is not None:
        return (yield from operation)
    return (yield from in_turn((place_of(cls._declaration), key), operation))


def _updating(cls: Any, key: str, change: Callable[[Any], Any], actor: Any, comment: str) -> Operation[Any]:
    instance: Any = None
    for attempt in range(ATTEMPTS):
        instance = yield from _to_change(cls, key)
        if instance is None:
            message = f"There is no such {cls.__name__}."
            raise cls.DoesNotExist(message)
        yield work(change, instance)
        if _reading.key_of(cls, instance.pk) != key:
            message = f"An update() of {key!r} cannot change its primary key: create another {cls.__name__}."
            raise UsageError(message)
        try:
            yield from _announced(instance, actor, comment)
        except WrongRevision:
            yield _wait(attempt)
        else:
            return instance
    raise (yield from conflict(instance))


def _to_change(cls: Any, key: str) -> Operation[Any]:
    gathering = _gathering.current.get()
    if gathering is not None and key in gathering.found:
        return gathering.saved(key)
    return (yield from _reading.stored_one(cls, key))


def _announced(instance: Any, actor: Any, comment: str) -> Operation[None]:
    author = {"actor": actor, "comment": comment}
    created = not _revision(instance)
    told = {"sender": type(instance), "instance": instance, "update_fields": None, **author}
    yield ask(signals.pre_save, "send", **told)
    yield from _written(instance, author)
    yield from _afterwards(instance, ask(signals.post_save, "send", created=created, **told))


def getting_or_creating(cls: Any, key: str, new: Callable[[], Any], actor: Any, comment: str) -> Operation[Any]:
    """Read the object at ``key``, or save ``new()``; return it and whether it was made."""
    found = yield from _to_change(cls, key)
    if found is not None:
        return found, False
    instance = new()
    try:
        yield from _announced(instance, actor, comment)
    except WrongRevision as error:
        found = yield from _reading.stored_one(cls, key)
        if found is None:
            raise (yield from conflict(instance)) from error
        return found, False
    return instance, True


def deleting(instance: Any, actor: Any, comment: str) -> Operation[tuple[int, dict[str, int]]]:
    """Delete what ``instance`` was read from; return what Django's ``delete`` does."""
    _refuse_frozen(instance)
    cls = type(instance)
    gathering = _gathering.current.get()
    revision = _revision(instance)
    if not revision:
        gone = gathering is not None and gathering.forget(_reading.key_of(cls, instance.pk), instance)
        return (1, {cls._meta.label: 1}) if gone else (0, {})
    told = {"sender": cls, "instance": instance, "actor": actor, "comment": comment}
    yield ask(signals.pre_delete, "send", **told)
    place = place_of(cls._declaration)
    key = _reading.key_of(cls, instance.pk)
    change = Change.delete(key, revision=revision, headers=to_headers(actor, comment))
    if gathering is not None:
        gathering.add(place, Gathered(instance, instance, change, (partial(_deleted, instance),)))
    else:
        try:
            yield from place.delete(change)
        except WrongRevision as error:
            raise (yield from conflict(instance)) from error
        wrote(place)
        _deleted(instance)
    yield from _afterwards(instance, ask(signals.post_delete, "send", **told))
    return 1, {cls._meta.label: 1}


def _deleted(instance: Any, _revision: int = 0) -> None:
    kept: Kept = instance._kept
    instance._kept = Kept(fallback=kept.fallback, origins=kept.origins)
    instance._state.adding = True


def refreshing(instance: Any) -> Operation[None]:
    """Give ``instance`` the values that are stored now; ``DoesNotExist`` when a Model's are gone."""
    _refuse_frozen(instance)
    cls = type(instance)
    found = yield from _reading.stored_one(cls, _reading.key_of(cls, instance.pk))
    if found is None:
        message = f"There is no such {cls.__name__} any more."
        raise cls.DoesNotExist(message)
    for field in stored_fields(cls):
        setattr(instance, field.attname, getattr(found, field.attname))
    instance._kept = found._kept


def replacing(instance: Any, revision: int, actor: Any, comment: str) -> Operation[None]:
    """Save ``instance``, an earlier state, over ``revision``, which is the newest."""
    instance._kept = replace(instance._kept, revision=revision)
    yield from saving(instance, None, actor, comment)


# --- what a scope sets itself ---


def owning(instance: Any, names: Iterable[str]) -> None:
    """Have fields of ``instance`` stored, though they are what it falls back to."""
    _refuse_frozen(instance)
    kept: Kept = instance._kept
    own = _checked(type(instance), names)
    if kept.fallback is None:
        message = f"own() is for a scope of {type(instance).__name__}: of the others only what differs is stored."
        raise UsageError(message)
    instance._kept = replace(kept, own=kept.own.union(own))


def inheriting(instance: Any, names: Iterable[str]) -> None:
    """Have fields of ``instance`` follow what it falls back to, and not stored."""
    _refuse_frozen(instance)
    inherit(instance, _checked(type(instance), names))


# --- one write ---


def _written(
    instance: Any,
    author: dict[str, Any],
    names: tuple[str, ...] | None = None,
    owner: Any = None,
    took: Callable[[int], None] | None = None,
) -> Operation[None]:
    """Write ``instance``, or gather that: then for ``owner``, and ``took`` follows when it is written."""
    cls = type(instance)
    kept: Kept = instance._kept
    yield work(_prepare, instance, names)
    key = _reading.key_of(cls, instance.pk)
    if WHOLE in kept.undecodable:
        message = (
            f"{cls.__name__} in bucket {cls._declaration.bucket!r}, key {key!r}, cannot be read, and a save would "
            "overwrite it: roll it back to an earlier revision, or delete it first."
        )
        raise CodecError(message, bucket=cls._declaration.bucket, key=key)
    document = to_document(instance)
    place = place_of(cls._declaration)
    change = _change(key, to_bytes(document), _revision(instance), to_headers(author["actor"], author["comment"]))
    gathering = _gathering.current.get()
    keep = partial(_keep, instance, key, document)
    if gathering is not None:
        following = (keep,) if took is None else (keep, took)
        gathering.add(place, Gathered(instance if owner is None else owner, instance, change, following))
        return
    revision = yield from place.write(change, makes=cls._declaration.create)
    wrote(place)
    keep(revision)


def _change(key: str, data: bytes, revision: int, headers: dict[str, str]) -> Change:
    if revision:
        return Change.update(key, data, revision, headers=headers)
    return Change.create(key, data, headers=headers)


def _revision(instance: Any) -> int:
    """Return the revision that ``instance`` is at; 0 with another primary key: as in Django, that is another object."""
    kept: Kept = instance._kept
    return kept.revision if kept.revision and kept.key == _reading.key_of(type(instance), instance.pk) else 0


def _keep(instance: Any, key: str, document: dict[str, Any], revision: int) -> None:
    kept: Kept = instance._kept
    left = {name: value for name, value in kept.undecodable.items() if document.get(name) is kept.document[name]}
    own = set_in(type(instance), document)
    instance._kept = replace(kept, revision=revision, document=document, undecodable=left, own=own, key=key)
    instance._state.adding = False


def _afterwards(instance: Any, step: Step) -> Operation[None]:
    """Carry ``step``, which is about ``instance``, out now, or when what is gathered has been written."""
    gathering = _gathering.current.get()
    if gathering is None:
        yield step
    else:
        gathering.afterwards.append((instance, step))


def _prepare(instance: Any, names: tuple[str, ...] | None) -> None:
    for field in stored_fields(instance):
        if names is None or field.name in names:
            # What Django does before it writes: auto_now, and what other fields set there.
            setattr(instance, field.attname, field.pre_save(instance, not _revision(instance)))
    token = validating.set(instance)
    try:
        instance.full_clean()
    finally:
        validating.reset(token)


def wrote(place: Any) -> None:
    """Let what this context has pinned of a bucket be read anew."""
    pin = _views.current_pin()
    if pin is not None:
        pin.forget(place)


def _wait(attempt: int) -> Any:
    return pause(spread.between(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt)))


def conflict(instance: Any) -> Operation[Conflict]:
    """Return the error for ``instance``, with what is stored now."""
    cls = type(instance)
    key = _reading.key_of(cls, instance.pk)
    theirs = yield from _reading.stored_one(cls, key)
    bucket, revision = cls._declaration.bucket, _revision(instance)
    gone = theirs is None or not theirs.revision
    if revision:
        what = f"was {'deleted' if gone else 'changed'} by somebody else since revision {revision}"
    else:
        what = "was made, and deleted, by somebody else" if gone else f"is there already, at revision {theirs.revision}"
    todo = "create it anew" if theirs is None else "see `theirs`, and merge() or read it anew"
    message = f"{cls.__name__} in bucket {bucket!r}, key {key!r}, {what}. Nothing was written: {todo}."
    return Conflict(message, base=base_of(instance), theirs=theirs, mine=copy_of(instance), bucket=bucket, key=key)


def _refuse_frozen(instance: Any) -> None:
    if instance.__dict__.get("_frozen"):
        message = (
            f"This {type(instance).__name__} is a snapshot, which everybody shares: change and save what "
            "`objects.get()` gives."
        )
        raise UsageError(message)


def _checked(cls: Any, update_fields: Iterable[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(update_fields))
    known = {field.name for field in stored_fields(cls)}
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"{cls.__name__} has no such fields to save: {', '.join(map(str, unknown))}."
        raise ValueError(message)
    return names
