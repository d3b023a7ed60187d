"""Reading: the objects of a class, from this process's memory or from the server, as operations.

Owns these operations and the key of an object. Knows nothing of queries and of writing.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError

from django_natskv.exceptions import OperationalError
from django_natskv.registry._names import to_token
from django_natskv.registry._place import place_of
from django_natskv.registry._steps import Operation, ask
from django_natskv.registry._storing import load, token_text

MAX_KEY_LENGTH = 1024


def key_of(cls: Any, pk: Any) -> str:
    """Return the key of the object with the primary key ``pk``; ``ValidationError`` when it cannot have one."""
    declaration = cls._declaration
    if not declaration.many:
        return str(declaration.key)
    token = to_token("" if pk is None else token_text(cls, pk))
    key = str(declaration.key_of(token))
    if not token or len(key) > MAX_KEY_LENGTH:
        message = "it is empty" if not token else f"the key that it makes has {len(key)} characters of {MAX_KEY_LENGTH}"
        raise ValidationError({cls._meta.pk.name: f"This cannot be the primary key of an entry: {message}."})
    return key


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
        current = cls.__dict__["current"]
        return current.base(cls)
    return cls._collection.one(cls, key)


def stored(cls: Any) -> Operation[list[Any]]:
    """Read all objects of ``cls`` from the server."""
    found = yield from place_of(cls._declaration).below(cls._declaration.key)
    return [made for key in sorted(found) if (made := _made(cls, key, found[key])) is not None]


def stored_one(cls: Any, key: str) -> Operation[Any]:
    """Read the object at ``key`` from the server; None where a Model has none, the defaults of a Config."""
    entry = yield from place_of(cls._declaration).get(key)
    return None if entry is None and cls._declaration.many else of_entry(cls, key, entry)


def of_entry(cls: Any, key: str, entry: Any) -> Any:
    """Return the object of an entry, the defaults for None."""
    return load(cls, key, None if entry is None else entry.value, 0 if entry is None else entry.revision)[0]


def _made(cls: Any, key: str, entry: Any) -> Any:
    try:
        return of_entry(cls, key, entry)
    except (ValidationError, ValueError):
        return None  # what the copy in memory tells
