"""What a flagd definition must be, and what is wrong with one, by its path.

Owns the rules of flagd's schema (https://flagd.dev/schema/v0/flags.json and targeting.json), and what our evaluator
can compute of it. Knows nothing of flags as they are declared, nor of evaluation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django_natskv.registry.flags.rules import VERSION, VERSION_COMPARISONS
from django_natskv.registry.flags.targeting import operation, with_evaluators

STATES = ("ENABLED", "DISABLED")
LARGEST = 2**53 - 1  # the largest whole number that each JSON reader takes for itself

_KINDS: dict[str, tuple[type, ...]] = {"boolean": (bool,), "number": (int, float), "string": (str,), "object": (dict,)}
_ANY = math.inf
_ARGUMENTS: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("if", "or", "and", "+", "-", "max", "min", "merge", "cat"), (1, _ANY)),
    **dict.fromkeys(("==", "===", "!=", "!==", ">", ">=", "%", "/", "in"), (2, 2)),
    **dict.fromkeys(("map", "filter", "all", "none", "some", "starts_with", "ends_with"), (2, 2)),
    **dict.fromkeys(("<", "<=", "substr"), (2, 3)),
    **dict.fromkeys(("!", "!!"), (1, 1)),
    "reduce": (3, 3),
    "*": (2, _ANY),
    "sem_ver": (3, 3),
    "fractional": (1, _ANY),
    "var": (1, 2),
    "missing": (0, _ANY),
    "missing_some": (2, 2),
    "$ref": (1, 1),
}


class Problem(NamedTuple):
    """A mistake in a definition."""

    path: str
    """Where it is: ``targeting.if[1]``; "" is the definition itself."""
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


_TOO_DEEP = Problem("", "it is nested too deeply")


def problems(definition: Any, evaluators: Mapping[str, Any] | None = None) -> list[Problem]:
    """Return the mistakes in ``definition``, a flagd flag definition; none, if it can be written.

    ``evaluators`` are the shared rules that its targeting may name.
    """
    if not isinstance(definition, Mapping):
        return [Problem("", f"a definition is an object, not {_type(definition)}")]
    return _unwritable(definition) or _all(_definition(definition, evaluators or {}))


def evaluator_problems(evaluators: Any) -> list[Problem]:
    """Return the mistakes in ``evaluators``, shared rules by name."""
    if not isinstance(evaluators, Mapping):
        return [Problem("", f"shared rules are an object of rules by name, not {_type(evaluators)}")]
    return _unwritable(evaluators) or _all(_shared(evaluators)) or _all(_circles(evaluators))


def _unwritable(value: Mapping[Any, Any]) -> list[Problem]:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # as it is written: half a character is none
    except RecursionError:
        return [_TOO_DEEP]
    except (TypeError, ValueError) as error:
        return [Problem("", f"it cannot be written as JSON: {error}")]
    return []


def _all(found: Iterator[Problem]) -> list[Problem]:
    try:
        return list(found)
    except RecursionError:
        return [_TOO_DEEP]


def _shared(evaluators: Mapping[Any, Any]) -> Iterator[Problem]:
    for name, logic in evaluators.items():
        if not isinstance(name, str) or not name:
            yield Problem("", f"the name of a shared rule is a string that is not empty, not {json.dumps(name)}")
        elif operation(logic) is None:
            yield Problem(name, f"a shared rule is an object with one operator, not {_type(logic)}")
        else:
            yield from _logic(logic, name, evaluators)


def _circles(evaluators: Mapping[str, Any]) -> Iterator[Problem]:
    for name in evaluators:
        try:
            with_evaluators({"$ref": name}, evaluators)
        except ValueError as error:
            yield Problem(name, str(error))


def _definition(definition: Mapping[str, Any], evaluators: Mapping[str, Any]) -> Iterator[Problem]:
    if definition.get("state") not in STATES:
        yield Problem("state", f"it is one of {', '.join(STATES)}, not {json.dumps(definition.get('state'))}")
    variants = definition.get("variants")
    if not isinstance(variants, Mapping) or not variants:
        yield Problem("variants", "it is an object with a value for each variant, one at least")
        variants = {}
    else:
        yield from _variants(variants)
    default = definition.get("defaultVariant")
    if default is not None and (not isinstance(default, str) or (variants and default not in variants)):
        yield Problem("defaultVariant", _no_variant(default, variants))
    yield from _metadata(definition.get("metadata", {}))
    targeting = definition.get("targeting", {})
    if not isinstance(targeting, Mapping) or len(targeting) > 1:
        yield Problem("targeting", "it is an object with one operator, or with none")
    elif targeting:
        yield from _targeting(targeting, variants, evaluators)


def _targeting(
    targeting: Mapping[str, Any], variants: Mapping[str, Any], evaluators: Mapping[str, Any]
) -> Iterator[Problem]:
    found = list(_logic(targeting, "targeting", evaluators))
    yield from found
    if not found:
        try:
            targeting = with_evaluators(targeting, evaluators)
        except ValueError as error:
            yield Problem("targeting", str(error))
    if variants:
        yield from _results(targeting, "targeting", variants)


def _variants(variants: Mapping[str, Any]) -> Iterator[Problem]:
    kinds = {}
    for name, value in variants.items():
        path = f"variants.{name}"
        kind = kind_of(value)
        if not name:
            yield Problem("variants", "the name of a variant is not empty")
        if kind is None:
            yield Problem(path, f"it is a bool, a number, a string or an object, not {_type(value)}")
        elif kind == "number" and isinstance(value, int) and abs(value) > LARGEST:
            yield Problem(path, "it is too large a number for other languages to read exactly")
        kinds[kind] = name
    if len(kinds) > 1:
        yield Problem("variants", f"the values of all variants have one type; {' and '.join(kinds.values())} differ")


def kind_of(value: Any) -> str | None:
    """Return which of flagd's four types ``value`` is of: "boolean", "number", "string" or "object"; None: of none."""
    for kind, types in _KINDS.items():
        if isinstance(value, types):
            return kind
    return None


def _metadata(metadata: Any) -> Iterator[Problem]:
    if not isinstance(metadata, Mapping):
        yield Problem("metadata", f"it is an object, not {_type(metadata)}")
        return
    for name, value in metadata.items():
        if kind_of(value) in (None, "object"):
            yield Problem(f"metadata.{name}", f"it is a bool, a number or a string, not {_type(value)}")


def _results(logic: Any, path: str, variants: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield each variant that ``logic`` gives by name and that there is not."""
    operator, arguments = operation(logic) or ("", [])
    if operator == "if":
        last = len(arguments) - 1
        for index in (index for index in range(1, last + 1) if index % 2 or index == last):
            yield from _results(arguments[index], f"{path}.if[{index}]", variants)
    elif operator == "fractional":
        shares = ((index, share) for index, share in enumerate(arguments) if isinstance(share, list) and share)
        for index, share in shares:
            yield from _results(share[0], f"{path}.fractional[{index}][0]", variants)
    elif isinstance(logic, str | bool):
        name = logic if isinstance(logic, str) else str(logic).lower()
        if name not in variants:
            yield Problem(path, _no_variant(logic, variants))


def _logic(logic: Any, path: str, evaluators: Mapping[str, Any]) -> Iterator[Problem]:
    if isinstance(logic, list):
        for index, item in enumerate(logic):
            yield from _logic(item, f"{path}[{index}]", evaluators)
        return
    if not isinstance(logic, Mapping):
        return
    found = operation(logic)
    if found is None:
        yield Problem(path, f"an operation is an object with one operator; this one has {len(logic)}")
        return
    operator, arguments = found
    path = f"{path}.{operator}"
    if operator not in _ARGUMENTS:
        yield Problem(path, "there is no such operator")
        return
    fewest, most = _ARGUMENTS[operator]
    if not fewest <= len(arguments) <= most:
        wanted = f"{fewest}" if most == fewest else f"at least {fewest}" if most == _ANY else f"{fewest} to {most}"
        yield Problem(
            path, f"it takes {wanted} {'argument' if wanted.endswith('1') else 'arguments'}, not {len(arguments)}"
        )
        return
    yield from _arguments(operator, arguments, path, evaluators)


def _arguments(operator: str, arguments: list[Any], path: str, evaluators: Mapping[str, Any]) -> Iterator[Problem]:
    if operator == "$ref":
        if not isinstance(arguments[0], str) or arguments[0] not in evaluators:
            yield Problem(path, f"there is no shared rule {json.dumps(arguments[0])}")
    elif operator in ("var", "missing", "missing_some"):
        yield from _names(operator, arguments, path)
    elif operator == "fractional":
        yield from _fractional(arguments, path, evaluators)
    else:
        if operator == "sem_ver":
            yield from _sem_ver(arguments, path)
        elif operator in ("starts_with", "ends_with"):
            yield from _texts(arguments, path)
        for index, argument in enumerate(arguments):
            yield from _logic(argument, f"{path}[{index}]", evaluators)


def _names(operator: str, arguments: list[Any], path: str) -> Iterator[Problem]:
    names = arguments[:1] if operator == "var" else arguments if operator == "missing" else arguments[1]
    if operator == "missing_some" and (kind_of(arguments[0]) != "number" or not isinstance(names, list)):
        yield Problem(path, "it takes a number and a list of names")
        return
    for name in names:
        if not isinstance(name, str):
            yield Problem(path, f"it takes the name of an attribute, not {_type(name)}")
        elif name.startswith("$flagd.") and name not in ("$flagd.timestamp", "$flagd.flagKey"):
            yield Problem(path, f'of "$flagd" there are "timestamp" and "flagKey", not "{name}"')


def _fractional(arguments: list[Any], path: str, evaluators: Mapping[str, Any]) -> Iterator[Problem]:
    shares = list(enumerate(arguments))
    if not isinstance(arguments[0], list):
        yield from _logic(arguments[0], f"{path}[0]", evaluators)
        shares = shares[1:]
        if operation(arguments[0]) is None:
            yield Problem(f"{path}[0]", "what people are divided by is an operation, such as var")
    total = 0
    for index, share in shares:
        if not isinstance(share, list) or not 1 <= len(share) <= 2:  # noqa: PLR2004 - a variant and its weight
            yield Problem(f"{path}[{index}]", "it is a list of a variant and its weight")
            return
        yield from _logic(share, f"{path}[{index}]", evaluators)
        weight = _weight(share)
        if weight is None:
            yield Problem(f"{path}[{index}][1]", f"a weight is a whole number from 0 on, not {json.dumps(share[1])}")
        total += weight or 0
    if not 0 < total < 2**31:
        yield Problem(path, f"its weights add up to a number from 1 to 2,147,483,647, not to {total:,}")


def _weight(share: list[Any]) -> int | None:
    weight = share[1] if len(share) > 1 else 1
    if isinstance(weight, int) and not isinstance(weight, bool) and weight >= 0:
        return weight
    return None if operation(weight) is None else 1  # computed for each


def _sem_ver(arguments: list[Any], path: str) -> Iterator[Problem]:
    for index in (0, 2):
        version = arguments[index]
        if operation(version) is None and not (isinstance(version, str) and VERSION.fullmatch(version)):
            yield Problem(f"{path}[{index}]", f'it is a version, such as "2.1.0", or var, not {json.dumps(version)}')
    if arguments[1] not in VERSION_COMPARISONS:
        yield Problem(f"{path}[1]", f"it is one of {' '.join(VERSION_COMPARISONS)}, not {json.dumps(arguments[1])}")


def _texts(arguments: list[Any], path: str) -> Iterator[Problem]:
    for index, argument in enumerate(arguments):
        if not isinstance(argument, str) and operation(argument) is None:
            yield Problem(f"{path}[{index}]", f"it is a string or an operation, not {_type(argument)}")


def _no_variant(name: Any, variants: Mapping[str, Any]) -> str:
    return f"there is no variant {json.dumps(name)}; there are: {', '.join(variants) or 'none'}"


def _type(value: Any) -> str:
    return "null" if value is None else type(value).__name__
