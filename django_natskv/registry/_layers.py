"""Layers: the documents that a scope of a Config is made of, from the one of everybody to its own.

Owns their keys, which of them wins, and how the value of a scope becomes text. Knows nothing of what is in a document.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from django.db import models

from django_natskv.exceptions import UsageError
from django_natskv.registry._declaring import Declaration
from django_natskv.registry._names import from_token, to_token

MOST_NAMES = 4  # in Meta.scopes: a scope with all of them is made of two to this power of documents
MAX_KEY_LENGTH = 1024


def key_in(declaration: Declaration, scope: Mapping[str, str]) -> str:
    """Return the key of a scope's own document: that of the class, then each name and its value."""
    words = [word for name in declaration.scopes if name in scope for word in (name, to_token(scope[name]))]
    return ".".join((declaration.key, *words))


def scope_at(declaration: Declaration, key: str) -> dict[str, str] | None:
    """Return the scope whose own document is at ``key``, empty for that of everybody; None when it is no such key."""
    if key == declaration.key:
        return {}
    prefix = f"{declaration.key}."
    if not (declaration.scopes and key.startswith(prefix)):
        return None
    words = key.removeprefix(prefix).split(".")
    try:
        scope = {name: from_token(token) for name, token in zip(words[::2], words[1::2], strict=True)}
    except ValueError:
        return None
    # One scope has one key: names in the order of Meta.scopes, and no other way to escape a value.
    known = all(value and name in declaration.scopes for name, value in scope.items())
    return scope if known and key_in(declaration, scope) == key else None


def may_be_scope(declaration: Declaration, key: str) -> bool:
    """Tell whether ``key`` below that of a Config is one that a scope would have: names, each with its value."""
    words = key.removeprefix(f"{declaration.key}.").split(".")
    return len(words) % 2 == 0 and all(name.isidentifier() for name in words[::2])


def owns(declaration: Declaration, key: str) -> bool:
    """Tell whether an object of the class is kept at ``key``."""
    if not declaration.many:
        return scope_at(declaration, key) is not None
    prefix = f"{declaration.key}."
    return key.startswith(prefix) and "." not in key[len(prefix) :]


def chain(declaration: Declaration, key: str) -> tuple[str, ...]:
    """Return the keys of the documents that an object is made of, each winning over those before it, its own last.

    Of two names the one that is later in Meta.scopes wins, and both together win over each.
    """
    scope = {} if declaration.many else scope_at(declaration, key)
    if not scope:
        return (key,)
    names = list(scope)
    parts = [
        {name: scope[name] for place, name in enumerate(names) if chosen >> place & 1}
        for chosen in range(2 ** len(names))
    ]
    return tuple(key_in(declaration, part) for part in parts)


def as_text(name: str, value: Any) -> str:
    """Return the value of a scope as text: of a text, a number, a UUID or an object with a primary key."""
    found = value.pk if isinstance(value, models.Model) else value
    if isinstance(found, bool) or not isinstance(found, str | int | uuid.UUID):
        message = f"{name}={type(found).__name__} is no scope: it takes a text, a number, a UUID or a saved object."
        raise UsageError(message)
    text = str(int(found) if isinstance(found, int) else found)  # a member of an enumeration is its value
    if isinstance(found, str):
        text = str.__str__(found)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{name} is no scope: half of a character cannot be stored."
        raise UsageError(message) from error
    if not text:
        message = f"{name} is empty: leave it out for the value of everybody."
        raise UsageError(message)
    return text


def settled(declaration: Declaration, label: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Return a scope as its names, in the order of Meta.scopes, and texts; ``UsageError``."""
    unknown = [name for name in values if name not in declaration.scopes]
    if unknown:
        known = ", ".join(declaration.scopes) or "none"
        message = f"{label} has no scope {unknown[0]!r}. Its Meta.scopes are: {known}."
        raise UsageError(message)
    scope = {name: as_text(name, values[name]) for name in declaration.scopes if name in values}
    key = key_in(declaration, scope)
    if len(key) > MAX_KEY_LENGTH:
        message = f"{label} has no such scope: the key that it makes has {len(key)} characters of {MAX_KEY_LENGTH}."
        raise UsageError(message)
    return scope
