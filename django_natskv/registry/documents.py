"""Documents: what is stored of declared classes, as it is stored, for those who look after it.

Owns how documents are gone through, examined, cleaned and brought in from elsewhere. Knows nothing of who asks.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from django.core.exceptions import ValidationError

from django_natskv.exceptions import UsageError
from django_natskv.kv import Change, Operation as Done
from django_natskv.registry import _reading, _writing
from django_natskv.registry._declaring import Declaration, declared
from django_natskv.registry._encoding import parse, to_bytes
from django_natskv.registry._layers import chain, may_be_scope, owns, scope_at
from django_natskv.registry._names import from_token, to_headers
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._steps import run
from django_natskv.registry._storing import (
    VERSION,
    WHOLE,
    Kept,
    Unreadable,
    inherit,
    load,
    own_fields,
    read_document,
    same,
    stored_fields,
    to_document,
    values,
)

__all__ = ["WHOLE", "parse"]
UNDECODABLE, UNKNOWN, INVALID, ORPHAN = "undecodable", "unknown", "invalid", "orphan"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a document. ``field`` is empty where it is the whole of it."""

    kind: str
    field: str
    detail: str


# --- which classes there are ---


def classes() -> list[Any]:
    """Return the classes that are declared, in the order of their labels."""
    return sorted(declared, key=label)


def label(cls: Any) -> str:
    """Return the name of a class, such as "shop.ShopConfig"."""
    return str(cls._meta.label)


def declaration(cls: Any) -> Declaration:
    """Return where and how a class is kept."""
    return cls._declaration  # type: ignore[no-any-return]


def fields(cls: Any) -> dict[str, Any]:
    """Return the stored fields of a class by name: all but the primary key."""
    return {field.name: field for field in stored_fields(cls)}


# --- one object ---


def key_of(cls: Any, pk: Any) -> str:
    """Return the key of an object; ``ValidationError`` when ``pk`` cannot be a primary key.

    That of a Config is the empty text, or the text of a scope; ``UsageError`` when it is none.
    """
    where = cls._declaration
    if where.many or not pk:
        return _reading.key_of(cls, pk if where.many else None)
    return str(cls.for_scope(**read_scope(pk)).key)


def scope_text(scope: Mapping[str, str]) -> str:
    """Return a scope as text, such as "site=3", "site=3&tenant=acme", from which ``read_scope`` makes it again."""
    return urlencode(scope, quote_via=quote)


def read_scope(text: str) -> dict[str, str]:
    """Return the scope that ``text`` means; ``UsageError``."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError as error:
        message = f"{text!r} is no scope: it is NAME=VALUE."
        raise UsageError(message) from error
    scope = dict(pairs)
    if len(scope) < len(pairs):
        message = f"{text!r} is no scope: it has a name twice."
        raise UsageError(message)
    return scope


def stored(cls: Any, key: str) -> Any:
    """Read the object at ``key`` from the server: None where a Model has none, the defaults of a Config."""
    return run(_reading.stored_one(cls, key))


def stored_all(cls: Any, keys: list[str]) -> dict[str, Any]:
    """Read the objects at ``keys`` from the server at once: as ``stored``, for each of them."""
    where = cls._declaration
    chains = {key: chain(where, key) for key in keys}  # of a scope also what it falls back to
    found = run(place_of(where).some(list({each for keys in chains.values() for each in keys}))) if keys else {}
    return {
        key: _reading.stacked(cls, over, [found.get(each) for each in over]) if key in found or not where.many else None
        for key, over in chains.items()
    }


def stored_at(cls: Any, key: str, revision: int) -> Any:
    """Read the object at ``key`` as it was at ``revision``; None when that is not kept, or deleted it."""
    entry = run(place_of(cls._declaration).get(key, revision))
    if entry is None or entry.operation is not Done.PUT:
        return None
    return _reading.of_entry(cls, key, entry, under(cls, key, {}))


def origins(instance: Any) -> dict[str, str]:
    """Return of each field whether its value is "stored", the "default", or stands in for one that is "undecodable".

    In a scope it may be that of "everybody", or of another scope, by its text.
    """
    kept: Kept = instance._kept
    under = {name: _origin(instance._declaration, key) for name, key in kept.origins.items()}
    stored_names = {name: "stored" for name in kept.document if name in fields(instance)}
    found = {**dict.fromkeys(fields(instance), "default"), **under, **stored_names}
    return {**found, **_all_of(instance, kept.undecodable)}


def _origin(where: Declaration, key: str) -> str:
    return scope_text(scope_at(where, key) or {}) or "everybody"


def _all_of(instance: Any, undecodable: Collection[str]) -> dict[str, str]:
    names = fields(instance) if any(name not in fields(instance) for name in undecodable) else undecodable
    return dict.fromkeys(names, UNDECODABLE)


def as_json(instance: Any) -> dict[str, Any]:
    """Return the values of all stored fields, as JSON has them."""
    return values(instance)


def as_set(instance: Any) -> dict[str, Any]:
    """As ``as_json``, of a scope only what it sets itself."""
    found = values(instance)
    return found if instance._kept.fallback is None else {name: found[name] for name in own_fields(instance)}


def reset(instance: Any, name: str) -> None:
    """Give a field its default, or what a scope falls back to; forget what is stored of it, readable or not."""
    inherit(instance, [name])


def choose(instance: Any, name: str) -> None:
    """Have a scope set a field itself, whatever it falls back to; elsewhere nothing."""
    if instance._kept.fallback is not None:
        _writing.owning(instance, [name])


def to_store(instance: Any) -> dict[str, Any]:
    """Return the document that a save would store."""
    return to_document(instance)


def differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two documents say different things."""
    return not same(_sorted(one), _sorted(other))


def _sorted(document: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(document), sort_keys=True))


# --- all that is stored ---


def entries(cls: Any) -> dict[str, Any]:
    """Read the entries of all objects of a class from the server, by key, sorted; of a Config also its scopes."""
    place, where = place_of(cls._declaration), cls._declaration
    if where.many:
        found = run(place.below(where.key))
        return {key: found[key] for key in sorted(found)}
    entry = run(place.get(where.key))
    scoped = [key for key in run(place.keys(f"{where.key}.>")) if owns(where, key)] if where.scopes else []
    return {**({} if entry is None else {where.key: entry}), **run(place.several(scoped))}


def objects(cls: Any) -> dict[str, Any]:
    """Read all objects of a class from the server, by key, sorted; but for those whose key holds no primary key."""
    found: dict[str, Any] = {}
    there = entries(cls)
    for key in there:
        with contextlib.suppress(ValidationError, ValueError):
            keys = chain(cls._declaration, key)
            found[key] = _reading.stacked(cls, keys, [there.get(each) for each in keys])
    return found


def under(cls: Any, key: str, given: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return what a scope falls back to: documents that are ``given``, by key, else what is stored. None of others."""
    found = None
    for each in chain(cls._declaration, key)[:-1]:
        if each in given:
            found = load(cls, each, to_bytes(given[each]), 0, under=found)[0]
        else:
            found = _reading.of_entry(cls, each, run(place_of(cls._declaration).get(each)), found)
    return found


def pk_of(cls: Any, key: str) -> str:
    """Return the primary key, as text, of the object at ``key``; of a Config the text of the scope, empty for none."""
    where = cls._declaration
    if not where.many:
        return scope_text(scope_at(where, key) or {})
    try:
        return from_token(key.removeprefix(f"{where.key}."))
    except ValueError:
        return key.removeprefix(f"{where.key}.")


def orphans(alias: str, bucket: str) -> dict[str, Any]:
    """Read the documents of a bucket that belong to no declared class from the server, by key, sorted.

    What is no JSON object is no document, but something that another program keeps there. What is anywhere below the
    key of a declared class may be that class's, but for scopes that a Config does not have any more.
    """
    place = Place(alias, bucket)
    mine = [cls._declaration for cls in declared if place_of(cls._declaration).bucket == bucket]
    strange = [key for key in run(place.keys()) if not any(_may_own(where, key) for where in mine)]
    return {key: entry for key, entry in run(place.several(strange)).items() if _is_document(entry)}


def _may_own(where: Declaration, key: str) -> bool:
    if owns(where, key) or key == where.key:
        return True
    return key.startswith(f"{where.key}.") and (where.many or not may_be_scope(where, key))


def _is_document(entry: Any) -> bool:
    try:
        return isinstance(parse(entry.value), dict)
    except ValueError:
        return False


def examine(cls: Any, key: str, entry: Any, there: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong with a stored document: what cannot be read, is no field, or would not be valid.

    ``there`` are the entries of the class: what is wrong in a scope already with what it falls back to is not told
    again.
    """
    keys = chain(cls._declaration, key)[:-1]
    ground = _reading.stacked(cls, keys, [there.get(each) for each in keys])
    try:
        instance, errors = load(cls, key, entry.value, entry.revision, under=ground)
    except (ValidationError, ValueError):
        return [Problem(UNDECODABLE, "", "its key holds no primary key")]
    found = [Problem(UNDECODABLE, error.field or "", error.detail) for error in errors]
    found += [Problem(UNKNOWN, name, "is no field of the class") for name in unknown(cls, entry)]
    if not errors:
        known = [] if ground is None else list(invalid(ground))
        found += [Problem(INVALID, name, text) for name, text in invalid(instance) if (name, text) not in known]
    return found


def unknown(cls: Any, entry: Any) -> list[str]:
    """Return the names in a document that are no fields. Those of a later version of the class may be its fields."""
    try:
        document = read_document(cls, entry.value)
    except Unreadable:
        return []
    version = document.get(VERSION, 1)
    if type(version) is int and version > cls._declaration.version:
        return []
    return [name for name in document if name != VERSION and name not in fields(cls)]


def invalid(instance: Any) -> Iterator[tuple[str, str]]:
    """Yield what ``full_clean`` says of an object, by field; the empty name for the whole of it."""
    try:
        instance.full_clean()
    except ValidationError as error:
        for name, messages in error.message_dict.items():
            yield ("" if name == "__all__" else name), " ".join(messages)


# --- changing it ---


def prune(cls: Any, key: str, entry: Any, actor: Any, comment: str) -> int:
    """Write a document without what is no field, if it is still what was read; return its revision.

    Everything else stays as it is stored, also what would not be valid.
    """
    gone = set(unknown(cls, entry))
    document = {name: value for name, value in read_document(cls, entry.value).items() if name not in gone}
    place, headers = place_of(cls._declaration), to_headers(actor, comment)
    change = Change.update(key, to_bytes(document), entry.revision, headers=headers)
    return run(place.write(change, makes=cls._declaration.create))


def delete(alias: str, bucket: str, entry: Any, actor: Any, comment: str) -> None:
    """Delete a document of no class, if it is still what was read."""
    change = Change.delete(entry.key, revision=entry.revision, headers=to_headers(actor, comment))
    run(Place(alias, bucket).delete(change))


def made_of(cls: Any, key: str, document: Mapping[str, Any], ground: Any = None) -> tuple[Any, list[Problem]]:
    """Return the object that a document from elsewhere makes at ``key``, over ``ground``; and what is wrong with it."""
    data = to_bytes(document)
    instance, errors = load(cls, key, data, 0, under=ground)
    if errors:
        return instance, [Problem(UNDECODABLE, error.field or "", error.detail) for error in errors]
    return instance, [Problem(INVALID, name, text) for name, text in invalid(instance)]


def bring_in(instance: Any, revision: int, actor: Any, comment: str) -> int:
    """Save an object from elsewhere over ``revision``, 0 for none, if that is still the newest; return the new one."""
    run(_writing.replacing(instance, revision, actor, comment))
    return int(instance.revision)
