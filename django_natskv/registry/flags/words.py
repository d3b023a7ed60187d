"""Targeting in words, for people: rules of ours, and those made by hand as far as it can.

Owns the words. Knows nothing of how a rule came to be, nor of its meaning to an evaluator.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

from django_natskv.registry.flags.targeting import TARGETING_KEY, operation

_FACTS = {"is_staff": "staff", "is_superuser": "superusers", "is_authenticated": "people who are signed in"}
_TIME = {"var": "$flagd.timestamp"}


def describe(targeting: Any) -> str:
    """Return what ``targeting`` says, in words.

    ``targeting`` is that of a definition, or any part of it, such as a rule's. What has no words is shown as JSON.
    """
    try:
        return _results(targeting) or _condition(targeting)
    except RecursionError:
        return "what is nested too deeply to be told"


def _results(logic: Any) -> str | None:
    """Return words for what picks variants; None for what tells yes from no."""
    operator, arguments = operation(logic) or ("", [])
    if operator == "if":
        return _chain(arguments)
    if operator == "fractional" and _share(logic) is None:
        return _shares(arguments)
    return None


def _chain(arguments: list[Any]) -> str:
    parts = []
    while len(arguments) > 1:
        condition, result, *arguments = arguments
        parts.append(f"{_result(result)} for {_condition(condition)}")
        if len(arguments) == 1 and (operation(arguments[0]) or ("", []))[0] == "if":
            arguments = operation(arguments[0])[1]  # type: ignore[index]  # "if" nested in its own "else"
    parts.append(f"otherwise {_result(arguments[0] if arguments else None)}")
    return ", ".join(parts)


def _result(logic: Any) -> str:
    if logic is None:
        return "the default"
    found = _results(logic)
    return f"({found})" if found else _value(logic)


def _shares(arguments: list[Any]) -> str | None:
    divided_by = ""
    if arguments and not isinstance(arguments[0], list):
        divided_by, arguments = f" by {_operand(arguments[0])}", arguments[1:]
    pairs = [pair if len(pair) > 1 else [*pair, 1] for pair in arguments if isinstance(pair, list) and pair]
    if not pairs or len(pairs) != len(arguments) or not all(isinstance(weight, int) for _, weight, *_ in pairs):
        return None
    total = sum(weight for _, weight, *_ in pairs) or 1
    return ", ".join(f"{_result(result)} {100 * weight / total:g} %" for result, weight, *_ in pairs) + divided_by


def _condition(logic: Any, *, within: str = "") -> str:
    """Return words for a yes or no, in brackets where it would be misread within the operator ``within``."""
    if isinstance(logic, bool):
        return "everyone" if logic else "nobody"
    found = operation(logic)
    known = _share(logic) or _language(logic) or _window(logic)
    if known or found is None:
        return known or _value(logic)
    operator, arguments = found
    if operator in ("and", "or"):
        words = f" {operator} ".join(_condition(argument, within=operator) for argument in arguments)
        return f"({words})" if within and len(arguments) > 1 else words
    if operator == "!":
        return "not " + ", ".join(_condition(argument, within=operator) for argument in arguments)
    speak = _WORDS.get((operator, len(arguments)))
    return (speak and speak(*arguments)) or _value(logic)


def _share(logic: Any) -> str | None:
    """Return words for a percentage: people divided into yes and no, by their targeting key."""
    match operation(logic):
        case ("fractional", [[True, int(yes)], [False, int(no)]]) if yes + no:
            return f"{100 * yes / (yes + no):g} % of users"
    return None


def _language(logic: Any) -> str | None:
    match operation(logic):
        case ("or", [{"===": [{"var": "language"}, str(code)]}, {"starts_with": [{"var": "language"}, str(start)]}]):
            return f"language {code}" if start == f"{code}-" else None
    return None


def _window(logic: Any) -> str | None:
    match operation(logic):
        case ("and", [{">=": [begun, int(begin)]}, {"<": [ended, int(end)]}]) if begun == ended == _TIME:
            return f"from {_moment(begin)} until {_moment(end)}"
    return None


def _from(left: Any, right: Any) -> str | None:
    return f"from {_moment(right)}" if left == _TIME and isinstance(right, int) else f"{_of(left)} >= {_of(right)}"


def _until(left: Any, right: Any) -> str | None:
    return f"until {_moment(right)}" if left == _TIME and isinstance(right, int) else f"{_of(left)} < {_of(right)}"


def _fact(name: Any) -> str | None:
    return _FACTS.get(name, f"{name} is set") if isinstance(name, str) else None


def _in(needle: Any, haystack: Any) -> str | None:
    if haystack == {"var": "groups"} and isinstance(needle, str):
        return f"group {needle}"
    if not isinstance(haystack, list) or not haystack:
        return f"{_of(needle)} in {_of(haystack)}"
    if needle == {"var": TARGETING_KEY}:
        return ("user " if len(haystack) == 1 else "users ") + ", ".join(map(str, haystack))
    return f"{_of(needle)} is one of {', '.join(map(_of, haystack))}"


def _version(left: Any, comparison: Any, right: Any) -> str | None:
    return f"{_of(left)} {comparison} version {right if isinstance(right, str) else _of(right)}"


def _between(*words: str) -> Callable[..., str | None]:
    return lambda *operands: "".join(
        part for pair in zip(map(_of, operands), (*words, ""), strict=True) for part in pair
    )


def _operand(logic: Any) -> str:
    match logic:
        case {"var": str(name)} | {"var": [str(name)]}:
            return name
    return _value(logic)


def _value(logic: Any) -> str:
    match operation(logic):
        case ("$ref", [str(name)]):
            return f'the shared rule "{name}"'
    return json.dumps(logic, ensure_ascii=False, default=str)


def _moment(timestamp: int) -> str:
    try:
        return dt.datetime.fromtimestamp(timestamp, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(timestamp)  # beyond what a date can be


_of = _operand
_WORDS: dict[tuple[str, int], Callable[..., str | None]] = {
    ("var", 1): _fact,
    ("in", 2): _in,
    ("sem_ver", 3): _version,
    (">=", 2): _from,
    ("<", 2): _until,
    ("==", 2): _between(" is "),
    ("===", 2): _between(" is "),
    ("!=", 2): _between(" is not "),
    ("!==", 2): _between(" is not "),
    (">", 2): _between(" > "),
    ("<=", 2): _between(" <= "),
    ("<", 3): _between(" < ", " < "),
    ("<=", 3): _between(" <= ", " <= "),
    ("starts_with", 2): _between(" starts with "),
    ("ends_with", 2): _between(" ends with "),
}
