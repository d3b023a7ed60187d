"""Rules: what people write becomes the JSON that flagd knows, and words that say the same."""

from __future__ import annotations

import datetime as dt
import itertools
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import given, settings, strategies as st

from django_natskv.exceptions import UsageError
from django_natskv.registry.flags import definitions as d, explaining, rules as r, schema
from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.targeting import ANYTHING, asked_by, is_split, with_evaluators
from django_natskv.registry.flags.words import describe

NEW_YEAR = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
PLAN = {"var": "plan"}
TIME = {"var": "$flagd.timestamp"}
QUARTER = {"fractional": [[True, 25], [False, 75]]}
GERMAN = {"or": [{"===": [{"var": "language"}, "de"]}, {"starts_with": [{"var": "language"}, "de-"]}]}


@pytest.mark.parametrize(
    ("rule", "logic", "words"),
    [
        (r.everyone, True, "everyone"),
        (r.nobody, False, "nobody"),
        (r.staff, {"var": "is_staff"}, "staff"),
        (r.superusers, {"var": "is_superuser"}, "superusers"),
        (r.authenticated, {"var": "is_authenticated"}, "people who are signed in"),
        (r.percentage(25), QUARTER, "25 % of users"),
        (r.percentage(25.0), QUARTER, "25 % of users"),
        (r.percentage(0), {"fractional": [[True, 0], [False, 100]]}, "0 % of users"),
        (r.percentage(100), {"fractional": [[True, 100], [False, 0]]}, "100 % of users"),
        (r.percentage(0.1), {"fractional": [[True, 1], [False, 999]]}, "0.1 % of users"),
        (r.percentage(Decimal("12.345")), {"fractional": [[True, 12345], [False, 87655]]}, "12.345 % of users"),
        (r.users(7), {"in": [{"var": "targetingKey"}, ["7"]]}, "user 7"),
        (r.users(User(pk=7), "8"), {"in": [{"var": "targetingKey"}, ["7", "8"]]}, "users 7, 8"),
        (
            r.users(uuid.UUID(int=1)),
            {"in": [{"var": "targetingKey"}, ["00000000-0000-0000-0000-000000000001"]]},
            "user 00000000-0000-0000-0000-000000000001",
        ),
        (r.groups("beta"), {"in": ["beta", {"var": "groups"}]}, "group beta"),
        (
            r.groups("beta", "press"),
            {"or": [{"in": ["beta", {"var": "groups"}]}, {"in": ["press", {"var": "groups"}]}]},
            "group beta or group press",
        ),
        (r.languages("DE"), GERMAN, "language de"),
        (r.languages("pt_BR") | r.staff, None, "language pt-br or staff"),
        (r.languages("de") | r.staff, {"or": [GERMAN, {"var": "is_staff"}]}, "language de or staff"),
        (r.between(NEW_YEAR, None), {">=": [TIME, 1798761600]}, "from 2027-01-01 00:00:00 UTC"),
        (r.between(None, NEW_YEAR), {"<": [TIME, 1798761600]}, "until 2027-01-01 00:00:00 UTC"),
        (
            r.between(NEW_YEAR, NEW_YEAR + dt.timedelta(days=1)) & r.staff,
            {"and": [{"and": [{">=": [TIME, 1798761600]}, {"<": [TIME, 1798848000]}]}, {"var": "is_staff"}]},
            "from 2027-01-01 00:00:00 UTC until 2027-01-02 00:00:00 UTC and staff",
        ),
        (r.attribute("plan") == "pro", {"===": [PLAN, "pro"]}, 'plan is "pro"'),
        (r.attribute("plan") == None, {"===": [PLAN, None]}, "plan is null"),  # noqa: E711 - makes a rule
        (r.attribute("plan") != "pro", {"!==": [PLAN, "pro"]}, 'plan is not "pro"'),
        (r.attribute("plan").in_("pro", 3), {"in": [PLAN, ["pro", 3]]}, 'plan is one of "pro", 3'),
        (r.attribute("plan").startswith("p"), {"starts_with": [PLAN, "p"]}, 'plan starts with "p"'),
        (r.attribute("plan").endswith("o"), {"ends_with": [PLAN, "o"]}, 'plan ends with "o"'),
        (
            r.attribute("app").semver(">=", "2.1.0"),
            {"sem_ver": [{"var": "app"}, ">=", "2.1.0"]},
            "app >= version 2.1.0",
        ),
        (~r.staff, {"!": [{"var": "is_staff"}]}, "not staff"),
        (~~r.staff, {"var": "is_staff"}, "staff"),
        (~r.everyone, False, "nobody"),
        (~(r.staff | r.superusers), None, "not (staff or superusers)"),
        (~r.groups("a") & r.staff, None, "not group a and staff"),
        (r.staff | r.superusers | r.authenticated, None, "staff or superusers or people who are signed in"),
        (r.staff & (r.superusers & r.authenticated), None, "staff and superusers and people who are signed in"),
        (
            r.percentage(25) | r.groups("beta") & ~r.users(7),
            {"or": [QUARTER, {"and": [{"in": ["beta", {"var": "groups"}]}, {"!": [r.users(7).logic]}]}]},
            "25 % of users or (group beta and not user 7)",
        ),
        (r.everyone | r.staff, True, "everyone"),
        (r.staff | r.nobody, {"var": "is_staff"}, "staff"),
        (r.staff & r.nobody, False, "nobody"),
        (r.everyone & r.staff, {"var": "is_staff"}, "staff"),
    ],
    ids=map(str, itertools.count()),
)
def test_a_rule_is_the_targeting_of_flagd_and_says_itself_in_words(rule, logic, words):
    assert logic is None or rule.logic == logic
    assert str(rule) == words
    assert repr(rule) == f"<Rule: {words}>"
    targeting = {"if": [rule.logic, "on", None]}
    assert describe(targeting) == f'"on" for {words}, otherwise the default'
    assert schema.problems({"state": "ENABLED", "variants": {"on": True}, "targeting": targeting}) == []


def test_a_window_begins_and_ends_with_a_whole_second_never_too_early():
    half = NEW_YEAR + dt.timedelta(milliseconds=500)
    assert r.between(half, None).logic == {">=": [TIME, 1798761601]}
    assert r.between(None, half).logic == {"<": [TIME, 1798761601]}


def test_a_window_knows_the_hour_that_comes_twice_and_the_one_that_does_not_come():
    vienna = zoneinfo.ZoneInfo("Europe/Vienna")
    first = dt.datetime(2026, 10, 25, 2, 30, tzinfo=vienna)
    assert str(r.between(first, first.replace(fold=1))) == "from 2026-10-25 00:30:00 UTC until 2026-10-25 01:30:00 UTC"
    gone, after = dt.datetime(2026, 3, 29, 2, 30, tzinfo=vienna), dt.datetime(2026, 3, 29, 3, 15, tzinfo=vienna)
    assert gone < after
    with pytest.raises(UsageError, match="is not after"):  # 03:30 comes after 03:15
        r.between(gone, after)


def test_rules_joined_by_one_operator_are_not_nested():
    assert len((r.staff | r.superusers | r.authenticated).logic["or"]) == 3
    assert len((r.staff & (r.superusers & r.authenticated)).logic["and"]) == 3
    assert len((r.staff | r.superusers & r.authenticated).logic["or"]) == 2


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: r.percentage(101), "from 0 to 100"),
        (lambda: r.percentage(-1), "from 0 to 100"),
        (lambda: r.percentage(True), "from 0 to 100"),
        (lambda: r.percentage(float("nan")), "from 0 to 100"),
        (lambda: r.percentage("many"), "from 0 to 100"),  # type: ignore[arg-type]
        (lambda: r.percentage(0.0001), "up to 3 decimals"),
        (r.users, "wants a primary key"),
        (lambda: r.users([7, 8]), "takes each by itself"),
        (lambda: r.users(User()), "no primary key"),
        (lambda: r.users(""), "no primary key"),
        (r.groups, "wants a name"),
        (lambda: r.groups(7), "a string that is not empty"),  # type: ignore[arg-type]
        (r.languages, "wants a code"),
        (lambda: r.languages(""), "a string that is not empty"),
        (lambda: r.between(None, None), "a beginning, an end, or both"),
        (lambda: r.between(NEW_YEAR, NEW_YEAR), "is not after"),
        (lambda: r.between(NEW_YEAR.replace(tzinfo=None), None), "aware datetimes"),
        (lambda: r.between(NEW_YEAR.date(), None), "aware datetimes"),  # type: ignore[arg-type]
        (lambda: r.between(None, "2027-01-01"), "aware datetimes"),  # type: ignore[arg-type]
        (lambda: r.attribute(""), "a string that is not empty"),
        (lambda: r.attribute("$flagd.timestamp"), r"use between\(\)"),
        (lambda: r.attribute("plan") == ["pro"], "compares with"),
        (lambda: r.attribute("plan") != float("inf"), "compares with"),
        (lambda: r.attribute("plan").in_(), "wants a value"),
        (lambda: r.attribute("plan").startswith(3), "a string that is not empty"),  # type: ignore[arg-type]
        (lambda: r.attribute("app").semver("==", "2.1.0"), "Versions compare by"),
        (lambda: r.attribute("app").semver("=", "2.1"), "no semantic version"),
        (lambda: r.attribute("app").semver("=", "2.1.0\n"), "no semantic version"),
    ],
    ids=map(str, itertools.count()),
)
def test_a_mistake_in_a_rule_is_told_where_it_is_made(make, says):
    with pytest.raises(UsageError, match=says):
        make()


def test_python_cannot_ask_a_rule_for_its_truth():
    with pytest.raises(TypeError, match=r"with &, \| and ~"):
        bool(r.staff and r.superusers)
    with pytest.raises(TypeError, match="brackets"):
        r.attribute("plan") == "pro" | r.staff  # type: ignore[arg-type]  # noqa: B015 - as one would forget the brackets
    with pytest.raises(TypeError, match="brackets"):
        r.staff & "pro"  # type: ignore[operator]
    with pytest.raises(TypeError, match="unhashable"):
        hash(r.staff)
    assert repr(r.attribute("plan")) == "<Attribute: plan>"
    assert r.staff == r.staff
    assert r.staff != r.superusers


@pytest.mark.parametrize(
    ("targeting", "words"),
    [
        ({"fractional": [["on", 25], ["off", 75]]}, '"on" 25 %, "off" 75 %'),
        ({"fractional": [["a"], ["b", 3]]}, '"a" 25 %, "b" 75 %'),
        ({"fractional": [{"var": "email"}, ["on", 1], ["off", 2]]}, '"on" 33.3333 %, "off" 66.6667 % by email'),
        ({"fractional": [["on", {"var": "x"}]]}, '{"fractional": [["on", {"var": "x"}]]}'),
        ({"fractional": ["on"]}, '{"fractional": ["on"]}'),
        (
            {"if": [{"var": "is_staff"}, "on", {"if": [QUARTER, "off", None]}]},
            '"on" for staff, "off" for 25 % of users, otherwise the default',
        ),
        ({"if": [{"var": "a"}, "x", {"var": "b"}, "y", "z"]}, '"x" for a is set, "y" for b is set, otherwise "z"'),
        (
            {"if": [{"var": "a"}, {"fractional": [["x", 1], ["y", 1]]}]},
            '("x" 50 %, "y" 50 %) for a is set, otherwise the default',
        ),
        ({"if": []}, "otherwise the default"),
        ({"if": [{"==": [{"var": ["plan"]}, 3]}, True, False]}, "true for plan is 3, otherwise false"),
        ({"!=": [PLAN, 3]}, "plan is not 3"),
        ({">": [PLAN, 3]}, "plan > 3"),
        ({">=": [PLAN, 3]}, "plan >= 3"),
        ({"<": [PLAN, 3]}, "plan < 3"),
        ({"<=": [PLAN, 3]}, "plan <= 3"),
        ({"<": [1, PLAN, 3]}, "1 < plan < 3"),
        ({"<=": [1, PLAN, 3]}, "1 <= plan <= 3"),
        ({">=": [TIME, 10**18]}, f"from {10**18}"),
        ({"in": [PLAN, {"var": "plans"}]}, "plan in plans"),
        ({"in": ["pro", {"var": "plans"}]}, '"pro" in plans'),
        ({"in": [PLAN, []]}, "plan in []"),
        ({"sem_ver": [{"var": "app"}, "=", {"var": "newest"}]}, "app = version newest"),
        ({"var": [["x"]]}, '{"var": [["x"]]}'),
        ({"var": ["plan", "free"]}, '{"var": ["plan", "free"]}'),
        ({"$ref": "beta testers"}, 'the shared rule "beta testers"'),
        ({"if": [{"$ref": "beta"}, "on", None]}, '"on" for the shared rule "beta", otherwise the default'),
        ({"or": [{"===": [{"var": "language"}, "de"]}, {"starts_with": [{"var": "language"}, "d"]}]}, None),
        ({"and": [{">=": [PLAN, 1]}, {"<": [PLAN, 2]}]}, "plan >= 1 and plan < 2"),
        ({"and": [{">=": [TIME, 1]}, {"<": [PLAN, 2]}]}, "from 1970-01-01 00:00:01 UTC and plan < 2"),
        ({"fractional": [[True, 0], [False, 0]]}, "true 0 %, false 0 %"),
        ({"fractional": [[True, 3], [False, 1]]}, "75 % of users"),
        ({"or": [{"var": "a"}]}, "a is set"),
        ({"cat": ["é", 1]}, '{"cat": ["é", 1]}'),
        ({"a": 1, "b": 2}, '{"a": 1, "b": 2}'),
        ("on", '"on"'),
        (None, "null"),
    ],
    ids=map(str, itertools.count()),
)
def test_targeting_made_by_hand_is_said_in_words_as_far_as_there_are_any(targeting, words):
    said = describe(targeting)
    assert said == (words or 'language is "de" or language starts with "d"')


@pytest.mark.parametrize(
    ("rule", "told"), [(r.staff & r.groups("beta"), "staff and group beta"), (r.superusers | r.staff, "staff")], ids=str
)
def test_the_rule_that_decided_is_told_and_all_of_several_that_had_to_hold(rule, told):
    declared = d.flag("x")
    context = Context(attributes={"is_staff": True, "is_superuser": False, "groups": ["beta"]})
    assert explaining.matched(declared, d.definition(declared, True, when=rule), {}, context) == told


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**60) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["if", "var", "in", "fractional", "and", "or", "!", "$ref", "<", "x"]), inner)
    ),
    max_leaves=12,
)


@settings(deadline=None)  # a busy machine is no mistake
@given(json_values)
def test_whatever_is_stored_can_be_described_and_looked_through(logic):
    assert isinstance(describe(logic), str)
    assert isinstance(asked_by(logic).needs, frozenset)
    assert isinstance(is_split(logic), bool)
    assert isinstance(schema.problems({"state": "ENABLED", "variants": {"on": True}, "targeting": logic}), list)


@pytest.mark.parametrize(
    ("logic", "needs", "by_time", "splits"),
    [
        ({"var": "is_staff"}, {"is_staff"}, False, False),
        ({"var": ["account.plan", "free"]}, {"account"}, False, False),
        ({"var": 3}, {"3"}, False, False),
        ({"var": ""}, {ANYTHING}, True, False),
        ({"var": []}, {ANYTHING}, True, False),
        ({"var": {"cat": ["a", {"var": "b"}]}}, {ANYTHING, "b"}, True, False),
        ({"missing": ["a", "b.c"]}, {"a", "b"}, False, False),
        ({"missing": [["a"]]}, {"a"}, False, False),
        ({"missing_some": [1, ["a", "b"]]}, {"a", "b"}, False, False),
        ({">": [TIME, 3]}, set(), True, False),
        ({"var": "$flagd"}, set(), True, False),
        ({"cat": [{"var": "$flagd.flagKey"}]}, set(), False, False),
        (QUARTER, {"targetingKey"}, False, True),
        ({"if": [{"var": "x"}, QUARTER]}, {"x", "targetingKey"}, False, True),
        ({"fractional": [{"var": "email"}, ["a", 1]]}, {"email"}, False, False),
        ({"fractional": [{"var": "targetingKey"}, ["a", 1]]}, {"targetingKey"}, False, True),
        ({"fractional": [{"var": ""}, ["a", 1]]}, {ANYTHING}, True, True),
        ({"fractional": []}, set(), False, False),
        (r.users(7).logic, {"targetingKey"}, False, False),
        ({"some": [{"var": "groups"}, {"==": [{"var": ""}, "beta"]}]}, {"groups"}, False, False),
        ({"a": 1, "b": {"var": "c"}}, set(), False, False),
        (["on", {"var": "c"}], {"c"}, False, False),
        (True, set(), False, False),
    ],
    ids=map(str, itertools.count()),
)
def test_targeting_tells_what_it_asks_for(logic, needs, by_time, splits):
    asked = asked_by(logic)
    assert (asked.needs, asked.by_time, asked.splits) == (needs, by_time, splits)


@pytest.mark.parametrize(
    ("logic", "split"),
    [
        (QUARTER, True),
        ({"if": [QUARTER, "on", None]}, True),
        ({"if": [{"or": [QUARTER, {"var": "is_staff"}]}, "on", None]}, False),
        ({"if": []}, False),
        ({"var": "x"}, False),
        ("on", False),
    ],
    ids=map(str, itertools.count()),
)
def test_a_split_is_a_percentage_and_nothing_else(logic, split):
    assert is_split(logic) is split


def test_shared_rules_are_put_where_they_are_named():
    evaluators = {
        "beta": {"or": [{"$ref": "staff"}, {"starts_with": [{"var": "email"}, "\\d\u00e9"]}]},
        "staff": {"var": "s"},
    }
    logic = {"if": [{"$ref": "beta"}, ["on", 1], None]}
    assert with_evaluators(logic, evaluators) == {
        "if": [{"or": [{"var": "s"}, {"starts_with": [{"var": "email"}, "\\d\u00e9"]}]}, ["on", 1], None]
    }


def test_shared_rules_that_multiply_are_told_and_not_carried_out():
    doubled: dict[str, Any] = {f"a{n}": {"or": [{"$ref": f"a{n + 1}"}, {"$ref": f"a{n + 1}"}]} for n in range(40)}
    doubled["a40"] = {"var": "is_staff"}
    with pytest.raises(ValueError, match="more than 1,000 shared rules"):
        with_evaluators({"$ref": "a0"}, doubled)
    assert with_evaluators([{"$ref": "a40"}] * 1_000, doubled) == [{"var": "is_staff"}] * 1_000


def test_what_is_nested_too_deeply_is_said_to_be():
    nested: Any = {"var": "is_staff"}
    for depth in range(1, 1_500):
        nested = {"!": [nested]}
        if depth % 10 == 9:  # Python's parts give up at different depths
            assert isinstance(describe({"if": [nested, "on", None]}), str)
            assert isinstance(schema.evaluator_problems({"a": nested}), list)
            assert isinstance(
                schema.problems({"state": "ENABLED", "variants": {"on": True}, "targeting": nested}), list
            )
    assert describe({"if": [nested, "on", None]}) == "what is nested too deeply to be told"
    assert schema.evaluator_problems({"a": nested}) == [schema.Problem("", "it is nested too deeply")]
    assert schema.problems({"state": "ENABLED", "variants": {"on": True}, "targeting": nested})


def test_a_shared_rule_that_is_missing_or_goes_in_a_circle_is_told():
    with pytest.raises(ValueError, match='no shared rule "beta"; there are: none'):
        with_evaluators({"$ref": "beta"}, {})
    with pytest.raises(ValueError, match='no shared rule "\\[1\\]"; there are: a'):
        with_evaluators({"$ref": [1]}, {"a": True})
    circle = {"a": {"!": [{"$ref": "b"}]}, "b": {"!": [{"$ref": "a"}]}}
    with pytest.raises(ValueError, match="refers to itself: a > b > a"):
        with_evaluators({"$ref": "a"}, circle)
