"""Rules: for whom a flag says what, as people write it.

Owns the rules and the targeting that they become. Knows nothing of flags and their values, nor of who asks::

    from django_natskv.registry import rules as r

    r.percentage(25) | r.groups("beta") & ~r.users(7)

Rules are joined by ``&``, ``|`` and ``~``. These bind tighter than ``==``, so that a comparison wants brackets:
``(r.attribute("plan") == "pro") | r.staff``.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from django.db.models import Model

from django_natskv.exceptions import UsageError
from django_natskv.registry.flags.targeting import TARGETING_KEY, operation
from django_natskv.registry.flags.words import describe

VERSION_COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "~", "^")
VERSION = re.compile(
    r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}"
    r"(-(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
)

_DECIMALS = 3  # of a percentage: 100,000 parts are far from what the evaluator can count
_TIME = {"var": "$flagd.timestamp"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A yes or no about whoever asks; ``str(rule)`` says it in words.

    ``logic`` is the JSON that a definition's targeting has as a condition.
    """

    logic: Any
    _joins: str = field(default="", compare=False)  # the operator by which & or | made it; such rules are not nested
    __hash__ = None  # type: ignore[assignment]  # JSON has no hash

    def __or__(self, other: Rule) -> Rule:
        """Return the rule that is true where either is."""
        return _joined("or", self, other)

    def __and__(self, other: Rule) -> Rule:
        """Return the rule that is true where both are."""
        return _joined("and", self, other)

    __ror__ = __or__  # "pro" | staff is a comparison without its brackets: to say so
    __rand__ = __and__

    def __invert__(self) -> Rule:
        """Return the rule that is true where this one is not."""
        if isinstance(self.logic, bool):
            return Rule(not self.logic)
        found = operation(self.logic)
        return Rule(found[1][0]) if found and found[0] == "!" else Rule({"!": [self.logic]})

    def __bool__(self) -> bool:
        raise TypeError(f"A rule is neither true nor false by itself: join rules with &, | and ~. It says: {self}.")

    def __str__(self) -> str:
        return describe(self.logic)

    def __repr__(self) -> str:
        return f"<Rule: {self}>"


everyone = Rule(True)
nobody = Rule(False)
staff = Rule({"var": "is_staff"})
superusers = Rule({"var": "is_superuser"})
authenticated = Rule({"var": "is_authenticated"})


def percentage(share: float | Decimal) -> Rule:
    """Return the rule for ``share`` per cent of users, from 0 to 100, with up to three decimals.

    Who belongs to them follows from the targeting key (a user's key, or the key given) and the flag's name: the same
    one always gets the same answer, in every process and language, and other people get other flags. A larger share
    has everyone of the smaller one, and more. Who has no targeting key does not belong to them.

    Raises ``UsageError`` for any other number.
    """
    try:
        exact = Decimal(str(share))
    except InvalidOperation:
        exact = Decimal("NaN")
    if isinstance(share, bool) or not exact.is_finite() or not 0 <= exact <= 100:  # noqa: PLR2004 - per cent
        raise UsageError(f"A percentage is a number from 0 to 100, not {share!r}.")
    places = max(0, -int(exact.normalize().as_tuple().exponent))
    if places > _DECIMALS:
        raise UsageError(f"A percentage has up to {_DECIMALS} decimals: {share!r} has {places}.")
    whole = 100 * 10**places
    part = int(exact * 10**places)
    # The place of a hash among the parts is a division rounded down: to double the parts moves nobody's place.
    return Rule({"fractional": [[True, part], [False, whole - part]]})


def users(*keys: Any) -> Rule:
    """Return the rule for the users with these primary keys, or for these users; at least one."""
    return Rule({"in": [{"var": TARGETING_KEY}, [_key(key) for key in _some(keys, "users", "a primary key")]]})


def groups(*names: str) -> Rule:
    """Return the rule for the members of one of these groups, by name; at least one."""
    return _any_of([{"in": [_text(name, "a group"), {"var": "groups"}]} for name in _some(names, "groups", "a name")])


def languages(*codes: str) -> Rule:
    """Return the rule for requests in one of these languages; at least one.

    "de" is German of any country, "de-at" that of Austria.
    """
    each = []
    for given in _some(codes, "languages", "a code"):
        code = _text(given, "a language").replace("_", "-").lower()
        language = {"var": "language"}
        each.append({"or": [{"===": [language, code]}, {"starts_with": [language, f"{code}-"]}]})
    return _any_of(each)


def between(begin: dt.datetime | None, end: dt.datetime | None) -> Rule:
    """Return the rule for the time from ``begin`` on, until ``end``, in whole seconds.

    Both are aware datetimes; None leaves that side open. Raises ``UsageError`` for a naive datetime, for two Nones,
    and where ``end`` is not after ``begin``.
    """
    if begin is None and end is None:
        raise UsageError("between() wants a beginning, an end, or both.")
    if begin is not None and end is not None and _timestamp(begin) >= _timestamp(end):
        raise UsageError(f"between() wants an end after the beginning: {end} is not after {begin}.")
    sides = [Rule({">=": [_TIME, _timestamp(begin)]})] if begin is not None else []
    sides += [Rule({"<": [_TIME, _timestamp(end)]})] if end is not None else []
    return sides[0] if len(sides) == 1 else Rule({"and": [side.logic for side in sides]})


class Attribute:
    """An attribute of whoever asks, to be compared: ``attribute()`` gives it.

    Two values of different types are never equal. An attribute that the context does not have equals None alone, so
    that ``!=`` holds for it.
    """

    __slots__ = ("_var",)
    __hash__ = None  # type: ignore[assignment]  # it compares by making a rule

    def __init__(self, name: str) -> None:
        self._var = {"var": name}

    def __eq__(self, value: object) -> Rule:  # type: ignore[override]
        """Return the rule that the attribute is ``value``: a string, a number, a bool or None."""
        return Rule({"===": [self._var, _scalar(value)]})

    def __ne__(self, value: object) -> Rule:  # type: ignore[override]
        """Return the rule that the attribute is not ``value``: a string, a number, a bool or None."""
        return Rule({"!==": [self._var, _scalar(value)]})

    def in_(self, *values: str | float | None) -> Rule:
        """Return the rule that the attribute is one of ``values``; at least one."""
        return Rule({"in": [self._var, [_scalar(value) for value in _some(values, "in_", "a value")]]})

    def startswith(self, start: str) -> Rule:
        """Return the rule that the attribute is a string that begins with ``start``."""
        return Rule({"starts_with": [self._var, _text(start, "a beginning")]})

    def endswith(self, end: str) -> Rule:
        """Return the rule that the attribute is a string that ends with ``end``."""
        return Rule({"ends_with": [self._var, _text(end, "an end")]})

    def semver(self, comparison: str, version: str) -> Rule:
        """Return the rule that the attribute is a semantic version which compares so with ``version``.

        ``comparison`` is one of ``= != < <= > >=``, ``~`` (the same major and minor number) or ``^`` (the same major
        number). ``version`` is complete: "2.1.0". An attribute that is no version is not matched.
        """
        if comparison not in VERSION_COMPARISONS:
            raise UsageError(f"Versions compare by one of {' '.join(VERSION_COMPARISONS)}, not by {comparison!r}.")
        if not VERSION.fullmatch(str(version)):
            raise UsageError(f'{version!r} is no semantic version, such as "2.1.0".')
        return Rule({"sem_ver": [self._var, comparison, version]})

    def __repr__(self) -> str:
        return f"<Attribute: {self._var['var']}>"


def attribute(name: str) -> Attribute:
    """Return the attribute ``name`` of whoever asks, to be compared; a dot looks inside: "account.plan".

    An attribute is a standard one, what the project's ``NATSKV_FLAGS["CONTEXT"]`` adds, or what the caller gives:
    ``Features.theme.value(request, plan="pro")``.
    """
    if _text(name, "an attribute").startswith("$flagd"):
        raise UsageError(f"{name!r} is the evaluator's own; for the time, use between().")
    return Attribute(name)


def _joined(operator: str, left: Rule, right: Any) -> Rule:
    if not isinstance(right, Rule):
        raise TypeError(f"A rule is joined with rules, not with {right!r}: put a comparison in brackets.")
    settles = operator == "or"  # what "everyone" does to an "or", "nobody" does to an "and"
    for one, other in ((left, right), (right, left)):
        if isinstance(one.logic, bool):
            return one if one.logic is settles else other
    parts = [
        part for rule in (left, right) for part in (rule.logic[operator] if rule._joins == operator else [rule.logic])
    ]
    return Rule({operator: parts}, operator)


def _any_of(logics: list[Any]) -> Rule:
    return Rule(logics[0] if len(logics) == 1 else {"or": logics})


def _some(values: tuple[Any, ...], function: str, what: str) -> tuple[Any, ...]:
    if not values:
        raise UsageError(f"{function}() wants {what}, or several.")
    return values


def _key(key: Any) -> str:
    if isinstance(key, Model):
        key = key.pk
    if key is None or isinstance(key, bool | list | tuple | set | dict) or str(key) == "":
        raise UsageError(f"{key!r} is no primary key of a user: users(7, 8) takes each by itself.")
    return str(key)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise UsageError(f"The name of {what} is a string that is not empty, not {value!r}.")
    return value


def _scalar(value: object) -> str | float | None:
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise UsageError(f"An attribute compares with a string, a number, a bool or None, not with {value!r}.")


def _timestamp(moment: Any) -> int:
    if not isinstance(moment, dt.datetime) or moment.utcoffset() is None:
        raise UsageError(f"between() takes aware datetimes, not {moment!r}.")
    return math.ceil(moment.timestamp())
