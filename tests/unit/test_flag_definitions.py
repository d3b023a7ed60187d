"""Definitions: what a flag is stored as, and what is refused, with the path of each mistake."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import pickle
from typing import Any

import pytest
from django.utils.translation import gettext_lazy, override

from django_natskv.exceptions import UsageError
from django_natskv.registry.flags import definitions as d, rules as r, schema

CHECKOUT = d.flag("new_checkout", owner="payments", expires=dt.date(2027, 3, 1))
THEME = d.variant("theme", "old", "new", default="old")
LIMIT = d.variant("limit", 10, 50, default=10)
RATE = d.variant("rate", 1, 0.5, default=0.5)
LAYOUT = d.variant("layout", {"small": {"columns": 1}, "large": {"columns": 3}}, default="small")
METADATA = {"owner": "payments", "expires": "2027-03-01"}
ON_OFF = {"on": True, "off": False}
STAFF = r.staff.logic


def numbered():
    return map(str, itertools.count())


@pytest.mark.parametrize(
    ("made", "stored"),
    [
        (
            d.definition(CHECKOUT, True),
            {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "on", "metadata": METADATA},
        ),
        (
            d.definition(CHECKOUT, True, when=r.staff, otherwise=False),
            {
                "state": "ENABLED",
                "variants": ON_OFF,
                "defaultVariant": "off",
                "targeting": {"if": [STAFF, "on", None]},
                "metadata": METADATA,
            },
        ),
        (
            d.definition(THEME, "old", when=r.staff, otherwise="new"),
            {
                "state": "ENABLED",
                "variants": {"old": "old", "new": "new"},
                "defaultVariant": "new",
                "targeting": {"if": [STAFF, "old", None]},
            },
        ),
        (
            d.definition(THEME, "new", when=r.staff),  # otherwise what is declared
            {
                "state": "ENABLED",
                "variants": {"old": "old", "new": "new"},
                "defaultVariant": "old",
                "targeting": {"if": [STAFF, "new", None]},
            },
        ),
        (
            d.definition(LIMIT, 50, when=r.everyone, otherwise=10),
            {"state": "ENABLED", "variants": {"10": 10, "50": 50}, "defaultVariant": "50"},
        ),
        (
            d.definition(LIMIT, 10, when=r.nobody, otherwise=50),
            {"state": "ENABLED", "variants": {"10": 10, "50": 50}, "defaultVariant": "50"},
        ),
        (
            d.definition(RATE, 1),
            {"state": "ENABLED", "variants": {"1": 1.0, "0.5": 0.5}, "defaultVariant": "1"},
        ),
        (
            d.definition(LAYOUT, {"columns": 3}),
            {
                "state": "ENABLED",
                "variants": {"small": {"columns": 1}, "large": {"columns": 3}},
                "defaultVariant": "large",
            },
        ),
    ],
    ids=numbered(),
)
def test_what_is_set_becomes_a_definition_of_flagd(made, stored):
    assert made == stored
    assert schema.problems(made) == []


def test_a_definition_keeps_what_is_declared_about_the_flag():
    declared = d.flag("x", default=True, description="The new one", public=True)
    assert d.definition(declared, False)["metadata"] == {"description": "The new one"}
    assert (declared.value, declared.default, declared.public, declared.kind) == (True, "on", True, "boolean")


def test_the_kind_of_a_flag_follows_from_its_values():
    assert [each.kind for each in (CHECKOUT, THEME, LIMIT, RATE, LAYOUT)] == [
        "boolean",
        "string",
        "integer",
        "float",
        "object",
    ]
    assert isinstance(RATE.variants["1"], float)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: d.flag("x", default=1), "its default is True or False"),  # type: ignore[arg-type]
        (lambda: d.variant("x", default="a"), "of one type"),
        (lambda: d.variant("x", "a", 1, default="a"), "of one type"),
        (lambda: d.variant("x", None, default=None), "of one type"),
        (lambda: d.variant("x", True, 1, default=1), "of one type"),
        (lambda: d.variant("x", "a", "a", default="a"), "not all different"),
        (lambda: d.variant("x", "a", "b", default="c"), "no variant with the value 'c'; its values are: 'a', 'b'"),
        (lambda: d.variant("x", {"a": 1}, {"b": 2}, default="a"), "Objects have no names"),
        (lambda: d.variant("x", {"a": 1}, default=1), "the name of a variant"),
        (lambda: d.definition(CHECKOUT, 1), "no variant with the value 1"),
        (lambda: d.definition(LIMIT, True), "no variant with the value True"),
        (lambda: d.definition(CHECKOUT, True, when=r.staff, otherwise="off"), "no variant with the value 'off'"),
        (lambda: d.definition(CHECKOUT, True, otherwise=False), "give when= too"),
        (lambda: d.definition(CHECKOUT, True, when="staff"), "when= takes a rule, not 'staff'"),  # type: ignore[arg-type]
        (lambda: d.definition(CHECKOUT, True, when=True), "when= takes a rule, not True"),  # type: ignore[arg-type]
        (lambda: d.variant("x", 1.0, float("inf"), default=1.0), "cannot be written as JSON"),
        (lambda: d.variant("x", {"a": {"b": object()}}, default="a"), "cannot be written as JSON"),
        (lambda: d.variant("x", "a", "\ud800", default="a"), "cannot be written as JSON"),
        (lambda: d.variant("x", 1, 2**60, default=1), "too large a number"),
        (lambda: d.variant("x", "", "empty", default=""), "not all different: '', 'empty'"),
        (lambda: d.variant("x", {"": "a"}, default=""), "the name of a variant is not empty"),
        (lambda: d.flag("x", expires=dt.datetime(2027, 3, 1, tzinfo=dt.UTC)), "expires on a day"),
        (lambda: d.flag("x", expires="2027-03-01"), "expires on a day"),
    ],
    ids=numbered(),
)
def test_a_value_that_is_not_declared_is_refused(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_an_empty_string_is_a_value_as_any_other():
    declared = d.variant("banner", "", "Sale", default="")
    stored = d.definition(declared, "Sale", when=r.staff)
    assert (stored["variants"], stored["defaultVariant"]) == ({"empty": "", "Sale": "Sale"}, "empty")
    d.check(declared, stored)


def test_what_is_said_of_a_flag_may_be_translated():
    declared = d.flag("x", description=gettext_lazy("Yes"))
    with override("de"):
        assert json.dumps(d.definition(declared, True)["metadata"]) == '{"description": "Ja"}'


def targeting(logic: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": ON_OFF, "targeting": logic}


@pytest.mark.parametrize(
    ("stored", "problem"),
    [
        ("on", "a definition is an object, not str"),
        ({"x": float("nan")}, "it cannot be written as JSON: "),
        ({"x": {1, 2}}, "it cannot be written as JSON: "),
        ({"variants": ON_OFF}, "state: it is one of ENABLED, DISABLED, not null"),
        ({"state": "ENABLED"}, "variants: it is an object with a value for each variant"),
        ({"state": "ENABLED", "targeting": {"if": [STAFF, "on"]}}, "variants: it is an object with a value for each"),
        ({"state": "ENABLED", "variants": {}, "defaultVariant": "on"}, "variants: it is an object with a value"),
        ({"state": "ENABLED", "variants": {"": True}}, "variants: the name of a variant is not empty"),
        (
            {"state": "ENABLED", "variants": {"a": None}},
            "variants.a: it is a bool, a number, a string or an object, not n",
        ),
        (
            {"state": "ENABLED", "variants": {"a": [1]}},
            "variants.a: it is a bool, a number, a string or an object, not l",
        ),
        (
            {"state": "ENABLED", "variants": {"a": 1, "b": True}},
            "variants: the values of all variants have one type; a and",
        ),
        ({"state": "ENABLED", "variants": {"a": 2**53}}, "variants.a: it is too large a number"),
        (
            {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "of"},
            'defaultVariant: there is no variant "of"; there are: on, off',
        ),
        ({"state": "ENABLED", "variants": ON_OFF, "defaultVariant": 1}, "defaultVariant: there is no variant 1"),
        ({"state": "ENABLED", "variants": ON_OFF, "metadata": []}, "metadata: it is an object, not list"),
        (
            {"state": "ENABLED", "variants": ON_OFF, "metadata": {"a": {}}},
            "metadata.a: it is a bool, a number or a string",
        ),
        (targeting("on"), "targeting: it is an object with one operator, or with none"),
        (targeting({"if": [True], "or": [True]}), "targeting: it is an object with one operator, or with none"),
        (targeting({"if": []}), "targeting.if: it takes at least 1 argument, not 0"),
        (targeting({"log": ["x"]}), "targeting.log: there is no such operator"),
        (targeting({"rollout": ["x"]}), "targeting.rollout: there is no such operator"),
        (targeting({"if": [STAFF, "onn", None]}), 'targeting.if[1]: there is no variant "onn"; there are: on, off'),
        (targeting({"if": [STAFF, "on", "x"]}), 'targeting.if[2]: there is no variant "x"'),
        (targeting({"if": [STAFF, "on", STAFF, "off", "x"]}), 'targeting.if[4]: there is no variant "x"'),
        (targeting({"if": [STAFF, True]}), "targeting.if[1]: there is no variant true"),
        (
            targeting({"if": [STAFF, "on", {"if": [STAFF, {"fractional": [["x", 1]]}]}]}),
            'targeting.if[2].if[1].fractional[0][0]: there is no variant "x"',
        ),
        (targeting({"if": [{"==": [1]}, "on"]}), "targeting.if[0].==: it takes 2 arguments, not 1"),
        (targeting({"if": [{"<": [1]}, "on"]}), "targeting.if[0].<: it takes 2 to 3 arguments, not 1"),
        (targeting({"if": [{"!": [1, 2]}, "on"]}), "targeting.if[0].!: it takes 1 argument, not 2"),
        (targeting({"if": [{"*": [1]}, "on"]}), "targeting.if[0].*: it takes at least 2 arguments, not 1"),
        (targeting({"if": [{"in": ["a", [{"x": 1}]]}, "on"]}), "targeting.if[0].in[1][0].x: there is no such operator"),
        (targeting({"if": [{"a": 1, "b": 2}, "on"]}), "targeting.if[0]: an operation is an object with one operator"),
        (
            targeting({"if": [{"var": [["x"]]}, "on"]}),
            "targeting.if[0].var: it takes the name of an attribute, not list",
        ),
        (targeting({"if": [{"var": "$flagd.time"}, "on"]}), 'targeting.if[0].var: of "$flagd" there are "timestamp"'),
        (
            targeting({"if": [{"missing": ["a", 3]}, "on"]}),
            "targeting.if[0].missing: it takes the name of an attribute",
        ),
        (
            targeting({"if": [{"missing_some": [1, "a"]}, "on"]}),
            "targeting.if[0].missing_some: it takes a number and a",
        ),
        (targeting({"if": [{"missing_some": ["1", ["a"]]}, "on"]}), "targeting.if[0].missing_some: it takes a number"),
        (
            targeting({"if": [{"missing_some": [1, [None]]}, "on"]}),
            "targeting.if[0].missing_some: it takes the name of",
        ),
        (
            targeting({"if": [{"starts_with": ["a", 3]}, "on"]}),
            "targeting.if[0].starts_with[1]: it is a string or an op",
        ),
        (targeting({"if": [{"sem_ver": ["1", "=", "1.0.0"]}, "on"]}), "targeting.if[0].sem_ver[0]: it is a version"),
        (targeting({"if": [{"sem_ver": [{"var": "a"}, "=", 1]}, "on"]}), "targeting.if[0].sem_ver[2]: it is a version"),
        (
            targeting({"if": [{"sem_ver": [{"var": "a"}, "==", "1.0.0"]}, "on"]}),
            "targeting.if[0].sem_ver[1]: it is one",
        ),
        (targeting({"fractional": ["email", ["on", 1]]}), "targeting.fractional[0]: what people are divided by"),
        (targeting({"fractional": [{"cut": 1}, ["on", 1]]}), "targeting.fractional[0].cut: there is no such operator"),
        (targeting({"fractional": [{"var": "email"}]}), "targeting.fractional: its weights add up to a number from 1"),
        (targeting({"fractional": [["on", 0]]}), "targeting.fractional: its weights add up to a number from 1"),
        (targeting({"fractional": [["on", 2**31]]}), "targeting.fractional: its weights add up to a number from 1"),
        (targeting({"fractional": [["on", 1], ["off", -1]]}), "targeting.fractional[1][1]: a weight is a whole number"),
        (targeting({"fractional": [["on", 0.5]]}), "targeting.fractional[0][1]: a weight is a whole number"),
        (targeting({"fractional": [["on", True]]}), "targeting.fractional[0][1]: a weight is a whole number"),
        (
            targeting({"fractional": [["on", 1, 2]]}),
            "targeting.fractional[0]: it is a list of a variant and its weight",
        ),
        (targeting({"fractional": [["on", 1], "off"]}), "targeting.fractional[1]: it is a list of a variant and its w"),
        (targeting({"fractional": [[{"cut": 1}, 1]]}), "targeting.fractional[0][0].cut: there is no such operator"),
        (targeting({"$ref": {}}), "targeting.$ref: there is no shared rule {}"),
        (targeting({"$ref": "beta"}), 'targeting.$ref: there is no shared rule "beta"'),
    ],
    ids=numbered(),
)
def test_what_flagd_does_not_allow_is_refused_by_its_path(stored, problem):
    found = schema.problems(stored)
    assert found, problem
    assert str(found[0]).startswith(problem)
    with pytest.raises(d.InvalidDefinition) as caught:
        d.check(CHECKOUT, stored)
    assert caught.value.problems == tuple(found)
    assert str(caught.value).startswith('Cannot define "new_checkout": ' + problem)


@pytest.mark.parametrize(
    "stored",
    [
        {"state": "DISABLED", "variants": ON_OFF},
        {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": None, "targeting": {}, "description": "of a tool"},
        targeting({"if": [{"!": {"var": ["plan", "free"]}}, "on", "off"]}),
        targeting({"if": [{"some": [{"var": "groups"}, {"==": [{"var": ""}, "beta"]}]}, "on"]}),
        targeting({"if": [{"missing_some": [1, ["a", "b"]]}, {"var": "x"}, {"$ref": "beta"}]}),
        targeting({"if": [{"<": [1, {"var": "$flagd.timestamp"}, 3]}, "on", {"if": [True, "off"]}]}),
        targeting({"if": [{"starts_with": [{"var": "email"}, {"cat": ["a", "b"]}]}, "on"]}),
        targeting({"if": [{"sem_ver": [{"var": "app"}, "^", "1.0.0-rc.1+5"]}, "on"]}),
        targeting({"if": ["on"]}),
        targeting({"fractional": [["on"], ["off", 3]]}),
        targeting({"fractional": [{"var": "email"}, ["on", {"-": [{"var": "$flagd.timestamp"}, 5]}], [None, 1]]}),
        targeting({"$ref": "beta"}),
    ],
    ids=numbered(),
)
def test_what_flagd_allows_may_be_defined(stored):
    d.check(CHECKOUT, stored, {"beta": STAFF})


@pytest.mark.parametrize(
    ("declared", "variants", "problem"),
    [
        (CHECKOUT, {"on": 1}, "variants.on: its value is of type boolean, not int"),
        (THEME, {"blue": "blue"}, 'variants.blue: "blue" is none of its values: old, new'),
        (LIMIT, {"a": 1.5}, "variants.a: its value is of type integer, not float"),
        (LIMIT, {"a": True}, "variants.a: its value is of type integer, not bool"),
        (RATE, {"a": True}, "variants.a: its value is of type float, not bool"),
        (LAYOUT, {"a": "x"}, "variants.a: its value is of type object, not str"),
    ],
    ids=numbered(),
)
def test_a_definition_has_values_of_its_flag(declared, variants, problem):
    with pytest.raises(d.InvalidDefinition) as caught:
        d.check(declared, {"state": "ENABLED", "variants": variants}, doing="import")
    assert str(caught.value) == f'Cannot import "{declared.name}": {problem}.'


def test_numbers_and_objects_may_be_tuned_beyond_what_is_declared():
    d.check(LIMIT, {"state": "ENABLED", "variants": {"more": 1000}})
    d.check(RATE, {"state": "ENABLED", "variants": {"whole": 3}})
    d.check(LAYOUT, {"state": "ENABLED", "variants": {"wide": {"columns": 9}}})


@pytest.mark.parametrize(
    ("evaluators", "problem"),
    [
        ([], "shared rules are an object of rules by name, not list"),
        ({"beta": "on"}, "beta: a shared rule is an object with one operator, not str"),
        ({"beta": {"cut": 1}}, "beta.cut: there is no such operator"),
        ({"beta": {"!": [{"$ref": "gamma"}]}}, 'beta.![0].$ref: there is no shared rule "gamma"'),
        (
            {"beta": {"!": [{"$ref": "beta"}]}},
            'beta: the shared rule "beta" refers to itself: beta > beta',
        ),
    ],
    ids=numbered(),
)
def test_shared_rules_are_checked_alike(evaluators, problem):
    with pytest.raises(d.InvalidDefinition) as caught:
        d.check_evaluators(evaluators)
    assert str(caught.value) == f"Cannot share these rules: {problem}."


def nested() -> Any:
    found: Any = {"var": "plan"}
    for _ in range(5_000):
        found = {"!": [found]}
    return found


@pytest.mark.parametrize("value", [float("nan"), object(), "\ud800", nested()], ids=["nan", "object", "half", "deep"])
def test_what_json_cannot_hold_is_refused(value):
    logic = {"===": [{"var": "plan"}, value]}
    for check in (
        lambda: d.check(CHECKOUT, targeting({"if": [logic, "on"]})),
        lambda: d.check_evaluators({"a": logic}),
    ):
        with pytest.raises(d.InvalidDefinition, match=r"cannot be written as JSON|nested too deeply"):
            check()


@pytest.mark.parametrize("name", [1, None, "", ("a",)], ids=repr)
def test_a_shared_rule_has_a_name(name):
    with pytest.raises(d.InvalidDefinition, match="Cannot share these rules"):
        d.check_evaluators({name: STAFF})
    with pytest.raises(d.InvalidDefinition, match="Cannot share these rules"):
        d.check_evaluators({name: {"$ref": "x"}})


def test_a_definition_is_checked_with_the_shared_rules_that_it_names():
    rules = {"circle": {"!": [{"$ref": "circle"}]}, "picks": {"if": [{"var": "is_staff"}, "green", None]}}
    stored = {"state": "ENABLED", "variants": {"new": "new"}, "defaultVariant": "new"}
    for name, problem in (
        ("circle", 'targeting: the shared rule "circle" refers to itself: circle > circle'),
        ("picks", 'targeting.if[1]: there is no variant "green"; there are: new'),
    ):
        assert [str(one) for one in schema.problems({**stored, "targeting": {"$ref": name}}, rules)] == [problem]


def test_shared_rules_may_refer_to_each_other():
    d.check_evaluators({"beta": {"!": [{"$ref": "gamma"}]}, "gamma": STAFF})
    d.check_evaluators({})


def test_what_was_refused_survives_pickling():
    problem = schema.Problem("state", "wrong")
    error = pickle.loads(pickle.dumps(d.InvalidDefinition("no", problems=(problem,))))
    assert (str(error), error.problems, error.type) == ("no", (problem,), "invalid-definition")
