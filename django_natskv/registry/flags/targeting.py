"""Targeting, the JSON in a definition that picks a variant: what it asks about, and the shared rules that it names.

Owns how targeting is walked. Knows nothing of what its operators compute, nor of who asks.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TARGETING_KEY = "targetingKey"
ANYTHING = "*"
"""Among what targeting needs: it makes up names as it goes, and may ask about anything."""

_FLAGD = "$flagd"  # what the evaluator adds to a context: the time and the flag's own name
MOST_REFERENCES = 1_000
"""Shared rules that one piece of targeting may come to name, those named by shared rules included."""
_TESTS_EACH = frozenset({"all", "filter", "map", "none", "reduce", "some"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What targeting asks: ``asked_by()`` finds it."""

    needs: frozenset[str]
    """The attributes of the context that it may read, ``ANYTHING`` among them when they cannot be told beforehand."""
    by_time: bool
    """Whether the time may change the answer."""
    splits: bool
    """Whether it divides people by their targeting key: an anonymous visitor then needs one that stays the same."""


def asked_by(logic: Any) -> Asked:
    """Return what ``logic`` asks. References must have been replaced: ``with_evaluators()``."""
    names = set(_names(logic))
    needs = frozenset(name.partition(".")[0] for name in names)
    divides = any(True for _ in _operations(logic, "fractional"))
    return Asked(
        needs - {_FLAGD},
        by_time=bool(names & {_FLAGD, f"{_FLAGD}.timestamp"}) or ANYTHING in needs,
        splits=divides and not needs.isdisjoint({TARGETING_KEY, ANYTHING}),
    )


def is_split(logic: Any) -> bool:
    """Tell whether ``logic`` is a division of people and nothing else: at most one of two answers depends on it."""
    found = operation(logic)
    if found is not None and found[0] == "if" and found[1]:
        found = operation(found[1][0])
    return found is not None and found[0] == "fractional"


def operation(logic: Any) -> tuple[str, list[Any]] | None:
    """Return the operator of ``logic`` and its arguments, or None when it is a plain value."""
    if not isinstance(logic, Mapping) or len(logic) != 1:
        return None
    [(operator, arguments)] = logic.items()
    return operator, arguments if isinstance(arguments, list) else [arguments]


def with_evaluators(logic: Any, evaluators: Mapping[str, Any]) -> Any:
    """Return ``logic`` with each ``{"$ref": name}`` replaced by what ``evaluators`` has under that name.

    Raises ``ValueError`` for a name that is not there, for a rule that refers to itself, and for more than
    ``MOST_REFERENCES``: thirty rules that each name the next one twice would be a thousand million. (The evaluator's
    own replacement works on text, and fails where a rule holds a backslash or refers to another rule.)
    """
    return _replaced(logic, evaluators, (), itertools.count(1))


def _replaced(logic: Any, evaluators: Mapping[str, Any], within: tuple[str, ...], count: Iterator[int]) -> Any:
    if isinstance(logic, list):
        return [_replaced(item, evaluators, within, count) for item in logic]
    if not isinstance(logic, Mapping):
        return logic
    if set(logic) != {"$ref"}:
        return {key: _replaced(value, evaluators, within, count) for key, value in logic.items()}
    name = logic["$ref"] if isinstance(logic["$ref"], str) else json.dumps(logic["$ref"])
    if name in within:
        message = f'the shared rule "{name}" refers to itself: {" > ".join((*within, name))}'
        raise ValueError(message)
    if name not in evaluators:
        message = f'there is no shared rule "{name}"; there are: {", ".join(sorted(evaluators)) or "none"}'
        raise ValueError(message)
    if next(count) > MOST_REFERENCES:
        message = f"it comes to name more than {MOST_REFERENCES:,} shared rules"
        raise ValueError(message)
    return _replaced(evaluators[name], evaluators, (*within, name), count)


def _names(logic: Any) -> Iterator[str]:
    """Yield each name of the context that ``logic`` may read."""
    for operator, arguments in _operations(logic):
        if operator == "var":
            yield _name(arguments[0] if arguments else "")
        elif operator == "missing":
            yield from _listed(arguments)
        elif operator == "missing_some":
            yield from _listed(arguments[1:])
        elif operator == "fractional" and arguments and isinstance(arguments[0], list):
            yield TARGETING_KEY  # the short form: no value to divide by is given


def _operations(logic: Any, wanted: str | None = None) -> Iterator[tuple[str, list[Any]]]:
    """Yield each operator in ``logic`` that reads the context, with its arguments; of the name ``wanted`` alone."""
    if isinstance(logic, list):
        for item in logic:
            yield from _operations(item, wanted)
        return
    found = operation(logic)
    if found is None:
        return
    operator, arguments = found
    if wanted in (None, operator):
        yield operator, arguments
    # What a test of each item reads, it reads from the item.
    yield from _operations(arguments[:1] if operator in _TESTS_EACH else arguments, wanted)


def _listed(arguments: list[Any]) -> Iterator[str]:
    for argument in arguments:
        if isinstance(argument, list):
            yield from _listed(argument)
        else:
            yield _name(argument)


def _name(named: Any) -> str:
    if isinstance(named, str | int | float) and named != "":
        return str(named)
    return ANYTHING  # a computed name, or "", which is the whole context
