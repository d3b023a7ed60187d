"""Explaining: which of a definition's rules hold for somebody, in words.

Owns how targeting is taken apart. Knows nothing of where definitions come from, nor of how the words are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.definitions import Declaration
from django_natskv.registry.flags.evaluator import Compiled, compiled
from django_natskv.registry.flags.targeting import operation, with_evaluators
from django_natskv.registry.flags.words import describe

_YES_NO = {"on": True, "off": False}


class Answer(NamedTuple):
    """One rule of a definition, and whether it holds."""

    rule: str
    holds: bool


def answers(
    declaration: Declaration, definition: Mapping[str, Any], evaluators: Mapping[str, Any], context: Context
) -> list[Answer]:
    """Return each rule of ``definition`` that picks a variant, with its parts, in order; what fails does not hold."""
    return [
        Answer(describe(logic), _holds(declaration, logic, evaluators, context))
        for condition in _conditions(definition.get("targeting"))
        for logic in _parts(condition)
    ]


def matched(
    declaration: Declaration, definition: Mapping[str, Any], evaluators: Mapping[str, Any], context: Context
) -> str | None:
    """Return the rule of ``definition`` that decides, in words: the first that holds as a whole; None if none does.

    Of several rules, any of which is enough, it is the first that holds; where all of them have to, it is all of them.
    """
    for condition in _conditions(definition.get("targeting")):
        if _holds(declaration, condition, evaluators, context):
            operator, _ = operation(condition) or ("", [])
            enough = _parts(condition) if operator == "or" else iter(())
            return describe(next((one for one in enough if _holds(declaration, one, evaluators, context)), condition))
    return None


def summary(declaration: Declaration, definition: Any) -> str:
    """Return in words what ``definition`` says to whom; None is the declared default."""
    if definition is None:
        return f"{declaration.default} (declared)"
    if not isinstance(definition, Mapping):
        return f"{declaration.default} (declared: what is stored cannot be read)"
    if definition.get("state") == "DISABLED":
        return f"{declaration.default} (declared: it is switched off)"
    default = definition.get("defaultVariant") or declaration.default
    targeting = definition.get("targeting")
    return f"{describe(targeting)} ({default})" if targeting else f"{default} for everyone"


def _conditions(targeting: Any) -> Iterator[Any]:
    while (found := operation(targeting)) is not None and found[0] == "if":
        arguments = found[1]
        while len(arguments) > 1:
            condition, _, *arguments = arguments
            yield condition
        targeting = arguments[0] if arguments else None


def _parts(condition: Any) -> Iterator[Any]:
    found = operation(condition)
    if found is not None and found[0] in ("or", "and") and describe(condition).count(f" {found[0]} "):
        yield from found[1]
    else:
        yield condition


def _holds(declaration: Declaration, logic: Any, evaluators: Mapping[str, Any], context: Context) -> bool:
    try:
        targeting = {"if": [with_evaluators(logic, evaluators), "on", "off"]}
    except (ValueError, RecursionError):
        return False
    # Under the flag's own name, by which people are divided.
    probe = Declaration(declaration.name, _YES_NO, "off")
    stored = {"state": "ENABLED", "variants": _YES_NO, "defaultVariant": "off", "targeting": targeting}
    asked: Compiled = compiled(probe, stored, tell=lambda *_: None)
    return bool(asked.details(context).value)
