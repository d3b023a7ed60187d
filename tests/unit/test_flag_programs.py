"""Programs: what is made of targeting once answers as the evaluator does that reads it each time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings, strategies as st
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.contrib.tools.flagd.core.targeting import targeting
from openfeature.evaluation_context import EvaluationContext

from django_natskv.registry.flags import definitions as d, evaluator as e, programs, rules as r
from django_natskv.registry.flags.context import Context

NAME = "checkout"
ITEMS = ("all", "filter", "map", "none", "reduce", "some")
OPERATORS = sorted(
    {*importlib.import_module(targeting.__module__).OPERATORS, *ITEMS, "if", "?:", "and", "or", "nothing", "no.thing"}
    - {"log"}
)
VARIANTS = {"on": True, "off": False, "true": True, "false": False, "broken": 3}
STORED = {"state": "ENABLED", "variants": VARIANTS, "defaultVariant": "off", "metadata": {"a": 1}}
NAMES = ["", "plan", "groups", "account", "account.plan", "groups.1", "targetingKey", "$flagd.flagKey", "absent"]
plain: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 25, -1, 0.5, "", "1", "pro", "1.2.3", *VARIANTS]
)
contexts = st.fixed_dictionaries(
    {},
    optional={
        "plan": plain,
        "groups": st.lists(plain, max_size=3),
        "account": st.dictionaries(st.sampled_from(["plan", "item"]), plain),
        "$flagd": plain,
        "targetingKey": plain,
    },
)
keys = st.sampled_from([None, "", "7", "acct-7"])


def operations(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(parts, max_size=4)
    named = st.builds(lambda name, rest: {"var": [name, *rest]}, st.sampled_from(NAMES), st.lists(parts, max_size=1))
    divided = st.lists(st.tuples(parts, st.integers(-1, 50)).map(list), min_size=1, max_size=3)
    used = st.builds(lambda operator, given: {operator: given}, st.sampled_from(OPERATORS), parts | several)
    return named | several | used | st.builds(lambda given: {"fractional": given}, divided)


logics = st.recursive(plain | st.sampled_from(NAMES).map(lambda name: {"var": name}), operations, max_leaves=12)
targetings = logics.filter(lambda logic: isinstance(logic, dict) and logic)


@contextmanager
def one_moment() -> Iterator[None]:
    with mock.patch("time.time", return_value=1_800_000_000.5):
        yield


def said(ask: Any) -> str:
    """What is answered, or how it fails. As text: NaN equals nothing, and 1 equals True."""
    try:
        with one_moment():
            return repr(ask())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@settings(max_examples=500, deadline=None)
@given(targetings, keys, contexts)
@example({"if": []}, None, {})
@example({"if": ["on"]}, None, {})
@example({"if": [False, "on"]}, None, {})
@example({"if": [{"var": "plan"}, "on", {"var": "account"}, "off", "true"]}, None, {"account": {}})
@example({"and": [1, 0.0, 2]}, None, {})
@example({"or": [0, "", []]}, None, {})
@example({"and": []}, None, {})
@example({"or": [{"var": "account"}, "on"]}, None, {"account": {}})
@example({"===": [{"var": "groups"}, [1, "pro"]]}, None, {"groups": [1, "pro"]})
@example({"==": [[1], [1]]}, None, {})
@example({"map": [{"var": "groups"}, {"+": [{"var": ""}, 1]}]}, None, {"groups": [1, 2]})
@example({"no.thing": [1]}, None, {})
@example({"var": ""}, "7", {"$flagd": 1, "targetingKey": 2})
@example({"fractional": [{"var": "plan"}, ["on", {"var": "account"}], ["off", 3]]}, "7", {"plan": "pro", "account": 2})
def test_a_program_answers_as_the_evaluator_does(logic, key, attributes):
    program = programs.program_of(logic)
    assert program is not None
    for _ in range(2):
        assert said(lambda: program(programs.data_of(NAME, key, attributes))) == said(
            lambda: targeting(NAME, logic, EvaluationContext(key, attributes))
        )


def plainly(logic: Any, key: str | None, attributes: dict[str, Any]) -> str:
    """Ask the evaluator itself, as one would without this package."""
    core = FlagdCore()
    core.set_flags({"flags": {NAME: {**STORED, "targeting": logic}}})
    try:
        with one_moment():
            found = core.resolve_boolean_value(NAME, False, EvaluationContext(key, attributes))
    except Exception as error:
        return str(error.__cause__ or error) or type(error.__cause__ or error).__name__
    return repr((found.value, found.variant, str(found.reason), dict(found.flag_metadata)))


@settings(max_examples=300, deadline=None)
@given(targetings, st.lists(st.tuples(keys, contexts), min_size=1, max_size=4))
@example({"var": "plan"}, [(None, {"plan": answer}) for answer in (True, 1, "true", "1", 0, False, None, "broken")])
def test_a_flag_says_what_the_evaluator_says_of_every_context(logic, askers):
    found = e.compiled(d.flag(NAME), {**STORED, "targeting": logic}, tell=lambda *_: None)
    for key, attributes in [*askers, *askers]:
        given = {name: value for name, value in attributes.items() if name not in ("targetingKey", "$flagd")}
        context = SimpleNamespace(results={}, gather=lambda *_, key=key, given=given, **__: (key, given))
        with one_moment():
            details = found.details(context)
        wanted = plainly(logic, key, given)
        if details.reason == e.SPLIT:  # our word for a percentage, which the evaluator does not tell from other rules
            assert wanted.startswith(f"({details.value}, {details.variant!r}, ")
        else:
            mine = repr((details.value, details.variant, details.reason, dict(details.metadata)))
            assert (details.error or mine) == wanted


def test_what_a_flag_answered_is_made_once():
    found = e.compiled(d.flag(NAME), d.definition(d.flag(NAME), True, when=r.staff))
    first, second = (found.details(Context(attributes={"is_staff": True})) for _ in range(2))
    assert first is second
    assert found.details(Context(attributes={"is_staff": False})) == e.Details(False, "off", e.DEFAULT, {}, "", None)


def test_answers_that_name_no_variant_are_not_kept():
    found = e.compiled(d.flag(NAME), {**STORED, "targeting": {"var": "plan"}}, tell=lambda *_: None)
    for number in range(20):
        assert found.details(Context(attributes={"plan": f"none-{number}"})).reason == e.ERROR
    assert not found._outcomes


def test_what_is_switched_off_does_not_run_its_targeting():
    stored = {**STORED, "state": "DISABLED", "targeting": {"nothing": []}}
    assert e.compiled(d.flag(NAME), stored).details(Context()).reason == e.DISABLED


def test_a_percentage_without_anybody_to_divide_is_not_taken_for_one_that_was_divided():
    found = e.compiled(d.flag(NAME), d.definition(d.flag(NAME), True, when=r.percentage(0)))
    reasons = [found.details(Context(key=key)).reason for key in (None, "7", None)]
    assert reasons == [e.DEFAULT, e.SPLIT, e.DEFAULT]


@pytest.mark.parametrize("logic", [None, {}, [], "on", [{"var": "plan"}]], ids=repr)
def test_what_is_no_targeting_is_left_to_the_evaluator(logic):
    assert programs.program_of(logic) is None


@pytest.mark.parametrize("absent", ["openfeature.contrib.tools.flagd.core.targeting.targeting", "json_logic.builtins"])
def test_a_release_without_these_operators_is_asked_itself(monkeypatch, absent):
    def without(name):
        if name == absent:
            raise ImportError(name)
        return importlib.import_module(name)

    monkeypatch.setattr(programs, "import_module", without)
    programs._evaluator.cache_clear()
    try:
        stored = d.definition(d.flag(NAME), True, when=r.staff | r.percentage(100))
        found = e.compiled(d.flag(NAME), stored)
        assert programs.program_of(stored["targeting"]) is None
        assert found.details(Context(attributes={"is_staff": True})).reason == e.TARGETING_MATCH
        assert found.details(Context(key="7", attributes={"is_staff": False})).value is True
        assert found.details(Context(attributes={"is_staff": False})).value is False
    finally:
        programs._evaluator.cache_clear()
