"""Writing: validate, encode, compare and set; and again, where that is what was asked for.

Owns the operations that change what is stored. Knows nothing of how a step is carried out on either face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django_natskv import signals
from django_natskv.exceptions import CodecError, UsageError, WrongRevision
from django_natskv.kv import spread
from django_natskv.registry import _reading, _views
from django_natskv.registry._conflict import Conflict
from django_natskv.registry._names import to_headers
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import Operation, ask, pause, work
from django_natskv.registry._storing import (
    ABSENT,
    WHOLE,
    Kept,
    base_of,
    copy_of,
    same,
    stored_fields,
    to_bytes,
    to_document,
    to_json,
)

ATTEMPTS = 60  # times that an operation which may begin again does so
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 1.0  # seconds, the bounds of pauses between attempts, which are left to chance


def saving(instance: Any, update_fields: Iterable[str] | None, actor: Any, comment: str) -> Operation[None]:
    """Save ``instance``; only some fields of it, over whatever the others are by now, when they are given."""
    _refuse_frozen(instance)
    names = None if update_fields is None else _checked(type(instance), update_fields)
    if names == ():
        return
    author = {"actor": actor, "comment": comment}
    created = not instance._kept.revision
    told = {"sender": type(instance), "instance": instance, "update_fields": names, **author}
    yield ask(signals.pre_save, "send", **told)
    if names is None:
        yield from _saved(instance, author)
    else:
        yield from _saved_fields(instance, names, author)
    yield ask(signals.post_save, "send", created=created, **told)


def _saved(instance: Any, author: dict[str, Any]) -> Operation[None]:
    try:
        yield from _written(instance, author)
    except WrongRevision as error:
        raise (yield from _conflict(instance)) from error


def _saved_fields(instance: Any, names: tuple[str, ...], author: dict[str, Any]) -> Operation[None]:
    before = base_of(instance)
    target = base_of(instance)
    for attempt in range(ATTEMPTS):
        for name in names:
            setattr(target, name, getattr(copy_of(instance), name))
        try:
            yield from _written(target, author, names)
        except WrongRevision:
            yield _wait(attempt)
            key = _reading.key_of(type(instance), instance.pk)
            target = yield from _reading.stored_one(type(instance), key)
            if target is None:
                break
        else:
            _follow(instance, before, target, names)
            return
    raise (yield from _conflict(instance))


def _follow(instance: Any, before: Any, target: Any, names: tuple[str, ...]) -> None:
    """Let ``instance`` show what was saved, but for what was changed in it and not saved."""
    for field in stored_fields(instance):
        if field.name in names or same(to_json(field, instance), to_json(field, before)):
            setattr(instance, field.attname, getattr(target, field.attname))
    instance._kept = target._kept
    instance._state.adding = False


def updating(cls: Any, key: str, change: Callable[[Any], Any], actor: Any, comment: str) -> Operation[Any]:
    """Have ``change`` change the stored object, anew each time that somebody else was faster; return it."""
    instance: Any = None
    for attempt in range(ATTEMPTS):
        instance = yield from _reading.stored_one(cls, key)
        if instance is None:
            message = f"There is no such {cls.__name__}."
            raise cls.DoesNotExist(message)
        yield work(change, instance)
        try:
            yield from _announced(instance, actor, comment)
        except WrongRevision:
            yield _wait(attempt)
        else:
            return instance
    raise (yield from _conflict(instance))


def _announced(instance: Any, actor: Any, comment: str) -> Operation[None]:
    author = {"actor": actor, "comment": comment}
    created = not instance._kept.revision
    told = {"sender": type(instance), "instance": instance, "update_fields": None, **author}
    yield ask(signals.pre_save, "send", **told)
    yield from _written(instance, author)
    yield ask(signals.post_save, "send", created=created, **told)


def getting_or_creating(cls: Any, key: str, new: Callable[[], Any], actor: Any, comment: str) -> Operation[Any]:
    """Read the object at ``key``, or save ``new()``; return it and whether it was made."""
    found = yield from _reading.stored_one(cls, key)
    if found is not None:
        return found, False
    instance = new()
    try:
        yield from _announced(instance, actor, comment)
    except WrongRevision as error:
        found = yield from _reading.stored_one(cls, key)
        if found is None:
            raise (yield from _conflict(instance)) from error
        return found, False
    return instance, True


def deleting(instance: Any, actor: Any, comment: str) -> Operation[tuple[int, dict[str, int]]]:
    """Delete what ``instance`` was read from; return what Django's ``delete`` does."""
    _refuse_frozen(instance)
    cls = type(instance)
    if not instance._kept.revision:
        return 0, {}
    told = {"sender": cls, "instance": instance, "actor": actor, "comment": comment}
    yield ask(signals.pre_delete, "send", **told)
    place = place_of(cls._declaration)
    key = _reading.key_of(cls, instance.pk)
    try:
        yield from place.delete(key, instance._kept.revision, to_headers(actor, comment))
    except WrongRevision as error:
        raise (yield from _conflict(instance)) from error
    _wrote(place)
    instance._kept = ABSENT
    instance._state.adding = True
    yield ask(signals.post_delete, "send", **told)
    return 1, {cls._meta.label: 1}


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
    earlier = instance._kept
    instance._kept = Kept(revision, earlier.document, earlier.undecodable)
    yield from saving(instance, None, actor, comment)


# --- one write ---


def _written(instance: Any, author: dict[str, Any], names: tuple[str, ...] | None = None) -> Operation[None]:
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
    headers = to_headers(author["actor"], author["comment"])
    revision = yield from place.write(cls._declaration, key, to_bytes(document), kept.revision, headers)
    _wrote(place)
    left = {name: value for name, value in kept.undecodable.items() if document.get(name) is kept.document[name]}
    instance._kept = Kept(revision, document, left)
    instance._state.adding = False


def _prepare(instance: Any, names: tuple[str, ...] | None) -> None:
    for field in stored_fields(instance):
        if names is None or field.name in names:
            # What Django does before it writes: auto_now, and what other fields set there.
            setattr(instance, field.attname, field.pre_save(instance, not instance._kept.revision))
    instance.full_clean()


def _wrote(place: Any) -> None:
    pin = _views.current_pin()
    if pin is not None:
        pin.forget(place)


def _wait(attempt: int) -> Any:
    return pause(spread.between(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**attempt)))


def _conflict(instance: Any) -> Operation[Conflict]:
    cls = type(instance)
    key = _reading.key_of(cls, instance.pk)
    theirs = yield from _reading.stored_one(cls, key)
    bucket = cls._declaration.bucket
    message = (
        f"{cls.__name__} in bucket {bucket!r}, key {key!r}, was changed by somebody else since revision "
        f"{instance._kept.revision}. Nothing was written: see `theirs`, and merge() or read it anew."
    )
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
