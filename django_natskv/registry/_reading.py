"""Reading: the objects of a class, from this process's memory or from the server, as operations.

Owns these operations and the key of an object. Knows nothing of queries and of writing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ValidationError

from django_natskv.exceptions import OperationalError
from django_natskv.registry._layers import MAX_KEY_LENGTH, chain, scope_at
from django_natskv.registry._names import to_token
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import Operation, ask
from django_natskv.registry._storing import load, token_text


def key_of(cls: Any, pk: Any) -> str:
    """Return the key of the object with the primary key ``pk``; ``ValidationError`` when it cannot have one."""
    declaration = cls._declaration
    if not declaration.many:
        return _scoped_key(cls, pk)
    try:
        token = to_token("" if pk is None else token_text(cls, pk))
    except UnicodeEncodeError as error:
        message = "This cannot be the primary key of an entry: half of a character cannot be stored."
        raise ValidationError({cls._meta.pk.name: message}) from error
    key = str(declaration.key_of(token))
    if not token or len(key) > MAX_KEY_LENGTH:
        message = "it is empty" if not token else f"the key that it makes has {len(key)} characters of {MAX_KEY_LENGTH}"
        raise ValidationError({cls._meta.pk.name: f"This cannot be the primary key of an entry: {message}."})
    return key


def _scoped_key(cls: Any, pk: Any) -> str:
    # The primary key of a Config is its key: there is one object, or one for each scope.
    declaration = cls._declaration
    if pk is None or not declaration.scopes:
        return str(declaration.key)
    if not isinstance(pk, str) or scope_at(declaration, pk) is None:
        raise ValidationError({cls._meta.pk.name: "This is no scope of the class: see for_scope()."})
    return pk


def settled(cls: Any) -> Operation[None]:
    """Wait, if this is the first read of the process, until there is something to read, or no more reason to wait."""
    declaration = cls._declaration
    shown = cls._collection if declaration.many else cls.__dict__["current"]
    if shown.is_fresh:
        return
    try:
        yield ask(place_of(declaration).cache, "get", declaration.key)
    except OperationalError:
        return  # refused, which the read itself tells


def shown(cls: Any) -> Operation[list[Any]]:
    """Return the snapshots of all objects of ``cls``, from memory."""
    yield from settled(cls)
    return list(cls._collection.all(cls).values())


def shown_one(cls: Any, key: str) -> Operation[Any]:
    """Return the snapshot of the object at ``key``, from memory; None where a Model has none."""
    yield from settled(cls)
    if not cls._declaration.many:
        found = cls.__dict__["current"] if key == cls._declaration.key else cls._scopes.at(key)
        return found.base(cls)
    return cls._collection.one(cls, key)


def is_taken(instance: Any) -> Operation[bool]:
    """Tell from memory whether another object has the primary key that ``instance`` was given."""
    cls, kept = type(instance), instance._kept
    if not cls._declaration.many or not (instance._state.adding or kept.revision):
        return False
    key = key_of(cls, instance.pk)
    return kept.key != key and (yield from shown_one(cls, key)) is not None


def stored(cls: Any) -> Operation[list[Any]]:
    """Read all objects of ``cls`` from the server."""
    found = yield from place_of(cls._declaration).below(cls._declaration.key)
    return [made for key in sorted(found) if (made := _made(cls, key, found[key])) is not None]


def stored_one(cls: Any, key: str) -> Operation[Any]:
    """Read the object at ``key`` from the server; None where a Model has none, the defaults of a Config.

    Of a scope also what it falls back to is read; it may be of another moment.
    """
    under = yield from stored_under(cls, key)
    entry = yield from place_of(cls._declaration).get(key)
    return None if entry is None and cls._declaration.many else of_entry(cls, key, entry, under)


def stored_under(cls: Any, key: str) -> Operation[Any]:
    """Read what the object at ``key`` falls back to from the server; None of what is no scope."""
    keys = chain(cls._declaration, key)[:-1]
    entries = []
    for each in keys:
        entry = yield from place_of(cls._declaration).get(each)
        entries.append(entry)
    return stacked(cls, keys, entries)


def stacked(cls: Any, keys: Iterable[str], entries: Iterable[Any]) -> Any:
    """Return the object that entries make, each over those before it; None for none."""
    found = None
    for key, entry in zip(keys, entries, strict=True):
        found = of_entry(cls, key, entry, found)
    return found


def of_entry(cls: Any, key: str, entry: Any, under: Any = None) -> Any:
    """Return the object of an entry, the defaults for None, or what it falls back to."""
    data, revision = (None, 0) if entry is None else (entry.value, entry.revision)
    return load(cls, key, data, revision, under=under)[0]


def _made(cls: Any, key: str, entry: Any) -> Any:
    try:
        return of_entry(cls, key, entry)
    except (ValidationError, ValueError):
        return None  # what the copy in memory tells
