"""Look-ups: conditions in the words of Django's querysets, asked of objects in memory.

Owns what ``field__lookup=value`` and ``Q`` mean. Knows nothing of where objects come from.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django.core.exceptions import FieldError
from django.db.models import Q

Condition = Callable[[Any], bool]


def _folded(compare: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, wanted: compare(str(value).casefold(), str(wanted).casefold())


def _text(compare: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, wanted: compare(str(value), str(wanted))


def _has(value: Any, wanted: Any) -> bool:
    # Of a JSON list or object, what it contains; of anything else, its text.
    return wanted in value if isinstance(value, list | dict) else str(wanted) in str(value)


_ONE: dict[str, Callable[[Any, Any], bool]] = {
    "exact": operator.eq,
    "iexact": _folded(operator.eq),
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": _has,
    "icontains": _folded(lambda value, wanted: wanted in value),
    "startswith": _text(str.startswith),
    "istartswith": _folded(str.startswith),
    "endswith": _text(str.endswith),
    "iendswith": _folded(str.endswith),
    "regex": lambda value, wanted: re.search(wanted, str(value)) is not None,
    "iregex": lambda value, wanted: re.search(wanted, str(value), re.IGNORECASE) is not None,
}
_AS_FIELD = {"exact", "gt", "gte", "lt", "lte"}  # what is compared with is read as a value of the field
_SEVERAL = {"in", "range"}
_ALL = (*_ONE, *sorted(_SEVERAL), "isnull")


def find_field(cls: Any, name: str) -> Any:
    """Return the field of ``cls`` that ``name`` means, "pk" too; ``FieldError``."""
    if name == "pk":
        return cls._meta.pk
    for field in cls._meta.concrete_fields:
        if field.name == name:
            return field
    known = ", ".join(field.name for field in cls._meta.concrete_fields)
    message = f"{cls.__name__} has no field {name!r}. Its fields are: {known}."
    raise FieldError(message)


def condition(cls: Any, given: tuple[Q, ...], fields: dict[str, Any]) -> Condition:
    """Return the condition that all of ``given`` and ``fields`` make together; ``FieldError``."""
    return _tree(cls, Q(*given, **fields))


def _tree(cls: Any, q: Q) -> Condition:
    parts: list[Condition] = [
        _tree(cls, child) if isinstance(child, Q) else _leaf(cls, *_pair(child)) for child in q.children
    ]
    return partial(_asked, parts, q.connector, q.negated)


def _asked(parts: list[Condition], connector: str, negated: bool, instance: Any) -> bool:
    if connector == Q.OR:
        found = any(part(instance) for part in parts) or not parts
    elif connector == Q.XOR:
        found = sum(part(instance) for part in parts) % 2 == 1 or not parts
    else:
        found = all(part(instance) for part in parts)
    return found is not negated


def _pair(child: Any) -> tuple[str, Any]:
    if not isinstance(child, tuple):
        message = f"Objects of the registry are in no database: {type(child).__name__} cannot be asked of them."
        raise FieldError(message)
    return child


def _leaf(cls: Any, path: str, wanted: Any) -> Condition:
    name, _, lookup = path.partition("__")
    field, lookup = find_field(cls, name), lookup or "exact"
    if lookup not in _ALL:
        message = f"{lookup!r} is no lookup of {cls.__name__}.{name}. There are: {', '.join(_ALL)}."
        raise FieldError(message)
    read = operator.attrgetter(field.attname)
    if lookup == "isnull" or (lookup == "exact" and wanted is None):
        null = wanted is None or bool(wanted)
        return lambda instance: (read(instance) is None) is null
    if lookup in _SEVERAL:
        return _several(lookup, read, [field.to_python(each) for each in _listed(lookup, wanted)])
    if lookup in _AS_FIELD:
        wanted = field.to_python(wanted)
    compare = _ONE[lookup]

    def asked(instance: Any) -> bool:
        value = read(instance)
        return value is not None and bool(compare(value, wanted))

    return asked


def _listed(lookup: str, wanted: Any) -> list[Any]:
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        message = f"{lookup!r} wants a list of values, not {type(wanted).__name__}."
        raise FieldError(message)
    return list(wanted)


def _several(lookup: str, read: Callable[[Any], Any], wanted: list[Any]) -> Condition:
    if lookup == "in":
        return lambda instance: read(instance) in wanted
    low, high = wanted
    return lambda instance: (value := read(instance)) is not None and low <= value <= high
