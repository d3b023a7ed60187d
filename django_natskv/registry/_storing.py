"""The stored form: JSON of the fields that differ from their defaults, with whatever else was found there.

Owns how fields become JSON and come back, and what is made of a document that cannot be read. Knows nothing of where
documents come from or of who reads them.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field as a_field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from django_natskv.exceptions import CodecError
from django_natskv.registry import _encoding
from django_natskv.registry._frozen import freeze
from django_natskv.registry._names import from_token, to_token

VERSION = "$version"
WHOLE = "$"  # in ``Kept.undecodable``: the document itself could not be read
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_NATIVE = (bool, int, str, type(None))


@dataclass(frozen=True, slots=True)
class Kept:
    """What an object was read from, or last written as.

    ``revision`` is 0 where nothing is stored at ``key``. ``document`` is the stored JSON, upgraded to the version of
    today. ``undecodable`` has, for each field that could not be read, the JSON of what it reads as instead. ``own`` are
    the fields that the document sets.

    Of a scope ``fallback`` is the JSON of what its fields read as where it does not set them, else None; ``origins``
    has those of them that another document sets, with its key.
    """

    revision: int = 0
    document: Mapping[str, Any] = a_field(default_factory=lambda: _NOTHING)
    undecodable: Mapping[str, Any] = a_field(default_factory=lambda: _NOTHING)
    own: frozenset[str] = frozenset()
    fallback: Mapping[str, Any] | None = None
    origins: Mapping[str, str] = a_field(default_factory=lambda: _NOTHING)
    key: str = ""

    def __reduce__(self) -> Any:
        """Pickle and copy: a view of a mapping cannot be."""
        plain = (dict(self.document), dict(self.undecodable))
        return Kept, (self.revision, *plain, self.own, self.fallback, dict(self.origins), self.key)


ABSENT = Kept()


def stored_fields(cls: Any) -> Iterator[Any]:
    """Yield the fields that are stored as values: all but the primary key, which is in the key."""
    return (field for field in cls._meta.concrete_fields if not field.primary_key)


def to_json(field: Any, instance: Any) -> Any:
    """Return the value of ``field`` as JSON that any language can read."""
    value = field.value_from_object(instance)
    if isinstance(field, models.JSONField):
        return value if field.encoder is None else json.loads(json.dumps(value, cls=field.encoder))
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # NaN and the infinities are not JSON
    if isinstance(value, _NATIVE):
        return value
    # As Django's serializers do it; unlike DjangoJSONEncoder it keeps the microseconds of times.
    return field.value_to_string(instance)


def from_json(field: Any, value: Any) -> Any:
    """Return the value of ``field`` that is stored as ``value``; ``ValueError`` or ``ValidationError`` otherwise."""
    _encoding.check(value)
    if isinstance(field, models.JSONField):
        return value if field.decoder is None else json.loads(json.dumps(value), cls=field.decoder)
    if value is None:
        if not field.null:
            raise ValidationError(field.error_messages["null"], code="null")
        return None
    if isinstance(value, dict | list) or (isinstance(field, models.BinaryField) and not isinstance(value, str)):
        message = f"a JSON {_KINDS.get(type(value), 'number')} is no value of a {type(field).__name__}"
        raise ValidationError(message, code="invalid")
    if isinstance(value, float) and isinstance(field, models.DecimalField):
        value = repr(value)  # as it is written there: Django would round it, and the next save store that
    found = field.to_python(value)
    if isinstance(value, float) and isinstance(found, int) and found != value:
        # Python cuts off what is behind the point, and the next save would store that.
        raise ValidationError(field.error_messages["invalid"], code="invalid", params={"value": value})
    if isinstance(found, datetime):
        return _in_zone(found)
    return bytes(found) if isinstance(found, memoryview) else found


_KINDS = {dict: "object", list: "array", bool: "boolean"}


def _in_zone(when: datetime) -> datetime:
    """Return a time as Django has it from a database: with a zone, or without one where USE_TZ is False."""
    if timezone.is_naive(when) is not settings.USE_TZ:
        return when
    settle = timezone.make_aware if settings.USE_TZ else timezone.make_naive
    return settle(when, timezone.get_default_timezone())


def unstorable(instance: Any, exclude: Collection[str]) -> dict[str, ValidationError]:
    """Return, by field, what ``instance`` has that cannot be stored, of what a field takes nevertheless."""
    found = {}
    for field in instance._meta.concrete_fields:
        if field.name not in exclude:
            try:
                _encoding.check(_as_given(field, instance))
            except (ValueError, RecursionError) as error:
                found[field.name] = ValidationError(f"This cannot be stored: {error}.", code="unstorable")
            except TypeError:
                continue  # what is no JSON at all, which the field tells
    return found


def _as_given(field: Any, instance: Any) -> Any:
    if isinstance(field, models.JSONField):
        return to_json(field, instance)
    value = field.value_from_object(instance)  # not validated yet, so perhaps nothing that to_json takes
    return value if isinstance(value, str | int) else None


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same: 1, 1.0 and true are three."""
    return json.dumps(one) == json.dumps(other)


def values(instance: Any) -> dict[str, Any]:
    """Return all stored fields of ``instance`` as JSON."""
    return {field.name: to_json(field, instance) for field in stored_fields(instance)}


def changed_fields(old: Any, new: Any) -> tuple[str, ...]:
    """Return the names of the fields in which two objects of a class differ."""
    before, after = values(old), values(new)
    return tuple(name for name in before if not same(before[name], after[name]))


def touched_fields(old: Any, new: Any) -> tuple[str, ...]:
    """As ``changed_fields``, with those that a scope has set, or set no more, without another value."""
    names = {*changed_fields(old, new)}
    if new._kept.fallback is not None:
        names |= old._kept.own ^ new._kept.own
    return tuple(field.name for field in stored_fields(new) if field.name in names)


def to_document(instance: Any) -> dict[str, Any]:
    """Return what is to be stored for ``instance``.

    What was found there and is no field stays; a field that could not be read stays as it was found, unless it was
    given another value since.
    """
    kept: Kept = instance._kept
    fields = {field.name: field for field in stored_fields(instance)}
    own = own_fields(instance)
    document = {name: value for name, value in kept.document.items() if name not in fields}
    for name, field in fields.items():
        value = to_json(field, instance)
        if name in kept.undecodable and same(value, kept.undecodable[name]):
            document[name] = kept.document[name]
        elif name in own:
            document[name] = value
    version = max(instance._declaration.version, _version_of(kept.document))
    if version > 1:
        document[VERSION] = version
    return document


def own_fields(instance: Any) -> tuple[str, ...]:
    """Return the names of the fields that ``instance`` sets itself.

    All others follow the default that is declared; in a scope, what the scope falls back to. What a scope once set it
    keeps, though it may be the same by now.
    """
    kept: Kept = instance._kept
    fresh: Mapping[str, Any]
    chosen: Collection[str]
    if kept.fallback is None:
        fresh = values(type(instance)())
        chosen = {field.name for field in stored_fields(instance) if _is_chosen(field)}
    else:
        fresh, chosen = kept.fallback, kept.own
    return tuple(name for name, value in values(instance).items() if name in chosen or not same(value, fresh[name]))


def inherit(instance: Any, names: Iterable[str]) -> None:
    """Let fields read as if they were not stored, and be stored no more; also what cannot be read."""
    kept: Kept = instance._kept
    gone = {*names}
    unread = gone & kept.undecodable.keys()
    instance._kept = replace(
        kept,
        document={name: value for name, value in kept.document.items() if name not in unread},
        undecodable={name: value for name, value in kept.undecodable.items() if name not in unread},
        own=kept.own - gone,
    )
    for field in stored_fields(instance):
        if field.name in gone:
            under = kept.fallback
            value = field.get_default() if under is None else from_json(field, copy.deepcopy(under[field.name]))
            setattr(instance, field.attname, value)


def take(target: Any, source: Any, names: Iterable[str]) -> None:
    """Give ``target`` the values that ``source`` has of fields, and in a scope that they are its own, or not."""
    wanted, found = {*names}, copy_of(source)
    for field in stored_fields(source):
        if field.name in wanted:
            setattr(target, field.attname, getattr(found, field.attname))
    if target._kept.fallback is not None:
        own = wanted & {*own_fields(source)}
        target._kept = replace(target._kept, own=target._kept.own - wanted | own)


def _is_chosen(field: Any) -> Any:
    # Today's default may be a chance one, or the time: what was saved would read as something else tomorrow. What a
    # class makes (list, dict, timedelta) is the same each time.
    return field.has_default() and callable(field.default) and not isinstance(field.default, type)


def _version_of(document: Mapping[str, Any]) -> int:
    version = document.get(VERSION, 1)
    whole = type(version) in (int, float) and version == int(version)  # some programs have one kind of numbers only
    return int(version) if whole else 1


class Unreadable(Exception):  # noqa: N818 - a reason, never raised out of the package
    """A document cannot be read at all."""


def read_document(cls: Any, data: bytes) -> dict[str, Any]:
    """Return the document in ``data``, upgraded to the version of ``cls``; ``Unreadable``."""
    try:
        document = _encoding.parse(data)
    except ValueError as error:
        message = f"it is not JSON: {error}"
        raise Unreadable(message) from error
    if not isinstance(document, dict):
        message = "it is JSON, but no object"
        raise Unreadable(message)
    found = _version_of(document)
    if found < cls._declaration.version:
        try:
            document = dict(cls.upgrade(copy.deepcopy(document), found))
        except Exception as error:
            message = f"{cls.__name__}.upgrade() failed: {error!r}"
            raise Unreadable(message) from error
        document[VERSION] = cls._declaration.version
    return document


def load(
    cls: Any, key: str, data: bytes | None, revision: int, last: Any = None, under: Any = None
) -> tuple[Any, list[Any]]:
    """Return the object of ``cls`` that is stored under ``key`` as ``data``, with an error for all that is undecodable.

    ``data`` is None where nothing is stored. What is undecodable reads as in ``last``, an earlier object, else as its
    default. ``under`` is what a scope falls back to, in place of the defaults, None of what is not one.
    """
    instance = _ground(cls, key, under)
    if data is None:
        return instance, []
    ground: Kept = instance._kept
    good = _good_fields(last, under)
    try:
        document = read_document(cls, data)
    except Unreadable as error:
        _keep_last(instance, last, good)
        undecodable: dict[str, Any] = {WHOLE: values(instance)}
        instance._kept = replace(ground, revision=revision, undecodable=undecodable, own=good)
        return instance, [_error(cls, key, None, error)]
    errors: list[Any] = []
    undecodable = {}
    for field in stored_fields(cls):
        if field.name in document:
            try:
                value = from_json(field, document[field.name])
            except Exception as error:  # noqa: BLE001 - whatever a field makes of a value that is none
                errors.append(_error(cls, key, field.name, error))
                _keep_last(instance, last, good & {field.name})
                undecodable[field.name] = to_json(field, instance)
            else:
                setattr(instance, field.attname, value)
    instance._kept = replace(
        ground, revision=revision, document=document, undecodable=undecodable, own=set_in(cls, document)
    )
    return instance, errors


def _ground(cls: Any, key: str, under: Any) -> Any:
    """Return an object for which nothing is stored."""
    if under is None:
        return _instance(cls, key, ABSENT)
    below: Kept = under._kept
    origins = {**below.origins, **dict.fromkeys(below.own, under.pk)}
    instance = _instance(cls, key, Kept(fallback=values(under), origins=origins))
    for field in stored_fields(cls):
        setattr(instance, field.attname, copy.deepcopy(getattr(under, field.attname)))
    return instance


def _good_fields(last: Any, under: Any) -> frozenset[str]:
    """Return the fields that ``last`` has a good value of: in a scope those that it set itself."""
    if last is None:
        return frozenset()
    return frozenset(field.name for field in stored_fields(last)) if under is None else last._kept.own


def _keep_last(instance: Any, last: Any, names: frozenset[str]) -> None:
    for field in stored_fields(instance):
        if field.name in names:
            setattr(instance, field.attname, copy.deepcopy(getattr(last, field.attname)))


def set_in(cls: Any, document: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the fields that a document sets."""
    return frozenset(field.name for field in stored_fields(cls) if field.name in document)


def base_of(instance: Any) -> Any:
    """Return ``instance`` as it was when it was read, or last written."""
    kept: Kept = instance._kept
    base = _instance(type(instance), None, replace(kept, own=set_in(type(instance), kept.document)))
    base.pk = instance.pk
    found = {**(kept.fallback or {}), **kept.document, **kept.undecodable, **kept.undecodable.get(WHOLE, {})}
    for field in stored_fields(instance):
        if field.name in found:
            setattr(base, field.attname, from_json(field, copy.deepcopy(found[field.name])))
    return base


def copy_of(instance: Any) -> Any:
    """Return a copy of ``instance`` that can be changed."""
    cls: Any = type(instance)
    made = cls.__new__(cls)
    state = models.base.ModelState()
    state.adding = instance._state.adding
    for name, value in vars(instance).items():
        if name not in _OWN:
            made.__dict__[name] = value if type(value) in _UNCHANGEABLE else copy.deepcopy(value)
    made.__dict__.update(_state=state, _kept=instance._kept)
    return made


_OWN = frozenset({"_state", "_kept", "_frozen"})
_UNCHANGEABLE = frozenset({str, int, bool, float, bytes, type(None), Decimal, UUID, datetime, date, time, timedelta})


def frozen(instance: Any) -> Any:
    """Return ``instance`` itself, from now on a snapshot that cannot be changed."""
    for field in stored_fields(instance):
        setattr(instance, field.attname, freeze(getattr(instance, field.attname)))
    instance.__dict__["_frozen"] = True
    return instance


def _instance(cls: Any, key: str | None, kept: Kept) -> Any:
    instance = cls()
    if key is not None and not cls._declaration.many:
        instance.pk = key
    elif key is not None:
        _identify(instance, key.removeprefix(f"{cls._declaration.key}."))
    instance._kept = kept if key is None else replace(kept, key=key)
    instance._state.adding = False
    return instance


def _identify(instance: Any, token: str) -> None:
    """Give ``instance`` its primary key; ``ValueError`` for another spelling of one, where a save would not write."""
    field = instance._meta.pk
    instance.pk = field.to_python(from_token(token))
    canonical = to_token(str(field.value_to_string(instance)))
    if canonical != token:
        message = f"an object with this primary key is kept under {canonical!r}"
        raise ValueError(message)


def token_text(cls: Any, pk: Any) -> str:
    """Return a primary key as text, from which ``to_python`` makes it again."""
    field = cls._meta.pk
    probe = cls.__new__(cls)
    probe.__dict__[field.attname] = field.to_python(pk)
    return str(field.value_to_string(probe))


def _error(cls: Any, key: str, field: str | None, error: Exception) -> CodecError:
    where = f"The field {field!r} of" if field else "The value of"
    said = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
    bucket = cls._declaration.bucket
    message = f"{where} {cls.__name__} in bucket {bucket!r}, key {key!r}, cannot be read ({type(error).__name__})."
    made = CodecError(message, bucket=bucket, key=key)
    made.__dict__.update(field=field, detail=said)
    return made
