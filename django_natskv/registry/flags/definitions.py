"""Definitions: what is stored of a flag, made from what is declared of it and from what people set.

Owns declarations and the flagd definitions that follow from them. Knows nothing of evaluation, nor of where
definitions are kept.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from django_natskv.exceptions import UsageError
from django_natskv.registry.flags.rules import Rule
from django_natskv.registry.flags.schema import STATES, Problem, evaluator_problems, kind_of, problems

Kind = Literal["boolean", "string", "integer", "float", "object"]

_ON, _OFF = "on", "off"
_EMPTY = "empty"  # a name cannot be
_DECLARED: Final = object()  # in place of a value: the declared default


class InvalidDefinition(UsageError):  # noqa: N818 - reads like the errors of the taxonomy
    """A definition is none that flagd's schema allows, or not one of this flag. ``problems`` has each path and text."""

    type = "invalid-definition"

    def __init__(self, message: str = "", *, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Declaration:
    """A flag as code declares it: its name, its variants, and the one that it has when nothing is stored.

    ``flag()`` and ``variant()`` make one.
    """

    name: str
    variants: Mapping[str, Any]
    """The values, by the names of the variants."""
    default: str
    """The name of the default variant."""
    owner: str = ""
    description: str = ""
    expires: dt.date | None = None
    public: bool = False
    kind: Kind = field(init=False)
    """The type of its values."""

    def __post_init__(self) -> None:
        kind = _kind(self.name, self.variants)
        values = {name: float(value) if kind == "float" else value for name, value in self.variants.items()}
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "variants", MappingProxyType(values))
        _declarable(self)

    @property
    def value(self) -> Any:
        """The value of the default variant."""
        return self.variants[self.default]

    def variant_of(self, value: Any) -> str:
        """Return the name of the variant whose value is ``value``.

        Raises ``UsageError`` when there is none. A bool is no number, and 1 is no bool.
        """
        for name, known in self.variants.items():
            if known == value and (kind_of(known) == kind_of(value)):
                return name
        known = ", ".join(repr(known) for known in self.variants.values())
        raise UsageError(f'The flag "{self.name}" has no variant with the value {value!r}; its values are: {known}.')

    def allows(self, value: Any) -> str | None:
        """Return why ``value`` cannot be a value of this flag; None when it can.

        A string must be one of those declared, because code asks for them by name. Numbers and objects may be any of
        their type: those are what people tune.
        """
        right = {"boolean": bool, "string": str, "integer": int, "float": int | float, "object": dict}[self.kind]
        if not isinstance(value, right) or (isinstance(value, bool) and self.kind != "boolean"):
            return f"its value is of type {self.kind}, not {type(value).__name__}"
        if self.kind == "string" and value not in self.variants.values():
            return f'"{value}" is none of its values: {", ".join(self.variants.values())}'
        return None


def flag(name: str, *, default: bool = False, **about: Any) -> Declaration:
    """Declare the flag ``name``, on or off. ``about`` has ``owner``, ``description``, ``expires``, ``public``."""
    if not isinstance(default, bool):
        raise UsageError(f'The flag "{name}" is on or off: its default is True or False, not {default!r}.')
    return Declaration(name, {_ON: True, _OFF: False}, _ON if default else _OFF, **about)


def variant(name: str, *values: Any, default: Any, **about: Any) -> Declaration:
    """Declare the flag ``name``, a choice among ``values``; ``default`` is one of them.

    The values are strings or numbers, each named by itself, an empty string "empty"; or one mapping of names to
    values, and ``default`` the name of one: objects have no names of their own. ``about`` is that of ``flag()``.
    Raises ``UsageError`` when values are of several types, when one comes twice, when one cannot be stored, and when
    ``default`` is none of them.
    """
    if len(values) == 1 and isinstance(values[0], Mapping):
        named = dict(values[0])
        if default not in named:
            raise UsageError(f'The default of "{name}" is the name of a variant, not {default!r}.')
        return Declaration(name, named, default, **about)
    named = {str(value) or _EMPTY: value for value in values}
    if len(named) != len(values):
        raise UsageError(f'The values of "{name}" are not all different: {", ".join(map(repr, values))}.')
    if any(isinstance(value, Mapping) for value in values):
        raise UsageError(f'Objects have no names: declare "{name}" by one mapping of names to objects.')
    return Declaration(name, named, Declaration(name, named, "").variant_of(default), **about)


def definition(
    declaration: Declaration, value: Any, *, when: Rule | None = None, otherwise: Any = _DECLARED
) -> dict[str, Any]:
    """Return the definition by which ``declaration`` has ``value`` where ``when`` holds, and ``otherwise`` elsewhere.

    Without ``when`` it has ``value`` for everyone; ``otherwise`` is the declared default unless given. Raises
    ``UsageError`` for a value that is not declared, and for ``otherwise`` without ``when``.
    """
    if when is not None and not isinstance(when, Rule):
        raise UsageError(f"when= takes a rule, not {when!r}.")
    if when is None and otherwise is not _DECLARED:
        raise UsageError(f'otherwise= says what "{declaration.name}" is where when= does not hold; give when= too.')
    chosen = declaration.variant_of(value)
    other = declaration.default if otherwise is _DECLARED else declaration.variant_of(otherwise)
    targeting = None
    if when is not None and not isinstance(when.logic, bool):
        # No answer, rather than ``other`` by name: evaluators then say that the default was taken, and not a match.
        targeting = {"if": [when.logic, chosen, None]}
    stored = {
        "state": "ENABLED",
        "variants": dict(declaration.variants),
        "defaultVariant": chosen if when is None or when.logic is True else other,
        "targeting": targeting,
        "metadata": _metadata(declaration),
    }
    return {name: part for name, part in stored.items() if part}


def check(
    declaration: Declaration, stored: Any, evaluators: Mapping[str, Any] | None = None, *, doing: str = "define"
) -> None:
    """Raise ``InvalidDefinition`` unless ``stored`` is a definition for ``declaration`` that flagd's schema allows.

    ``evaluators`` are the shared rules that it may name.
    """
    found = problems(stored, evaluators)
    if not found:
        for name, value in stored["variants"].items():
            wrong = declaration.allows(value)
            if wrong:
                found.append(Problem(f"variants.{name}", wrong))
    _refuse(f'{doing} "{declaration.name}"', found)


def check_evaluators(evaluators: Any) -> None:
    """Raise ``InvalidDefinition`` unless ``evaluators`` are shared rules, by name, that targeting may refer to."""
    _refuse("share these rules", evaluator_problems(evaluators))


def _refuse(what: str, found: list[Problem]) -> None:
    if found:
        raise InvalidDefinition(f"Cannot {what}: {'; '.join(map(str, found))}.", problems=tuple(found))


def _metadata(declaration: Declaration) -> dict[str, Any]:
    expires = declaration.expires.isoformat() if declaration.expires else ""
    about = {"owner": declaration.owner, "description": declaration.description, "expires": expires}
    return {name: str(text) for name, text in about.items() if text}  # a text may be translated


def _declarable(declaration: Declaration) -> None:
    """Raise ``UsageError`` for what could be declared, and then never be stored."""
    name = declaration.name
    expires: Any = declaration.expires
    found = problems({"state": STATES[0], "variants": dict(declaration.variants)})
    if found:
        raise UsageError(f'The values of "{name}" cannot be stored: {"; ".join(map(str, found))}.')
    if expires is not None and (not isinstance(expires, dt.date) or isinstance(expires, dt.datetime)):
        raise UsageError(f'The flag "{name}" expires on a day, such as date(2027, 3, 1), not {expires!r}.')


def _kind(name: str, variants: Mapping[str, Any]) -> Kind:
    kinds = {kind_of(value) for value in variants.values()}
    if len(kinds) != 1 or None in kinds:
        raise UsageError(f'The values of "{name}" are of one type: bool, str, int, float or dict.')
    kind = kinds.pop()
    if kind == "number":
        return "integer" if all(isinstance(value, int) for value in variants.values()) else "float"
    return kind  # type: ignore[return-value]  # the others are kinds by the same names
