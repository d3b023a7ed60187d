"""Programs: targeting as functions, made once a change, so that asking does not read JSON again.

Owns how the operators of the evaluator are put together. Knows nothing of what they compute, nor of what an answer
means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from django_natskv.registry.flags.targeting import TARGETING_KEY, operation

Program = Callable[[dict[str, Any]], Any]
"""Takes what ``data_of()`` makes and returns what the targeting says; raises what an operator raises."""

_IF = frozenset({"if", "?:"})
_UNTIL = frozenset({"and", "or"})


class _Evaluator(NamedTuple):
    """What of the evaluator programs are made of."""

    operators: Mapping[str, Callable[..., Any]]
    apply: Callable[..., Any]
    is_true: Callable[[Any], bool]


class _Constant:
    """A program that says the same to everyone."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, _: dict[str, Any]) -> Any:
        return self.value


def program_of(targeting: Any) -> Program | None:
    """Return ``targeting`` as a program, which answers as the evaluator does.

    None where the evaluator has to be asked itself: when it is not targeting at all, or a release of the evaluator does
    not have its operators where this one has them. References must have been replaced: ``with_evaluators()``.
    """
    evaluator = _evaluator()
    if evaluator is None or not isinstance(targeting, dict) or not targeting:
        return None
    return _program(targeting, evaluator)


def data_of(name: str, key: str | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what targeting of the flag ``name`` reads of a context: its attributes, and what the evaluator adds."""
    return {**attributes, "$flagd": {"flagKey": name, "timestamp": int(time.time())}, TARGETING_KEY: key}


@cache
def _evaluator() -> _Evaluator | None:
    # Not when this module is imported: a project without flags does without the packages.
    try:
        operators = import_module("openfeature.contrib.tools.flagd.core.targeting.targeting").OPERATORS
        apply, is_true = import_module("json_logic").jsonLogic, import_module("json_logic.builtins").to_bool
    except (ImportError, AttributeError):
        return None
    return _Evaluator(operators, apply, is_true)


def _program(logic: Any, evaluator: _Evaluator) -> Program:
    if isinstance(logic, list):
        return _list([_program(item, evaluator) for item in logic])
    found = operation(logic)
    if found is None:
        return _Constant(logic)
    operator, arguments = found
    parts = [_program(argument, evaluator) for argument in arguments]
    if operator in _IF:
        return _if(parts, evaluator.is_true)
    if operator in _UNTIL:
        return _until(parts, evaluator.is_true, ends=operator == "or")
    if operator in evaluator.operators:
        return _call(evaluator.operators[operator], parts)
    # Those that read each item of a list in place of the context; and what is no operator, for the evaluator to refuse.
    return lambda data: evaluator.apply(logic, data, evaluator.operators)


def _list(parts: list[Program]) -> Program:
    if all(isinstance(part, _Constant) for part in parts):
        return _Constant([part.value for part in parts if isinstance(part, _Constant)])
    return lambda data: [part(data) for part in parts]


def _call(operator: Callable[..., Any], parts: list[Program]) -> Program:
    constants = [part.value for part in parts if isinstance(part, _Constant)]
    if len(constants) == len(parts):
        return lambda data: operator(data, *constants)
    return lambda data: operator(data, *[part(data) for part in parts])


def _if(parts: list[Program], is_true: Callable[[Any], bool]) -> Program:
    last = parts[-1] if len(parts) % 2 else _Constant(None)
    branches = list(zip(parts[::2], parts[1::2], strict=False))  # each condition with what it is for

    def program(data: dict[str, Any]) -> Any:
        for condition, branch in branches:
            if is_true(condition(data)):
                return branch(data)
        return last(data)

    return program


def _until(parts: list[Program], is_true: Callable[[Any], bool], *, ends: bool) -> Program:
    """Return the program that answers with the first of ``parts`` that is as true as ``ends``, else with the last."""

    def program(data: dict[str, Any]) -> Any:
        answer = None
        for part in parts:
            answer = part(data)
            if is_true(answer) is ends:
                return answer
        return answer

    return program
