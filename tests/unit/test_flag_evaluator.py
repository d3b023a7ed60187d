"""Evaluation: each context gets its answer and the reason for it, and nothing that is wrong raises."""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import json
import logging
import pickle
import sys
from typing import Any

import mmh3
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from hypothesis import given, settings, strategies as st

from django_natskv.registry.flags import definitions as d, evaluator as e, rules as r
from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.targeting import ANYTHING

CHECKOUT = d.flag("new_checkout")
THEME = d.variant("theme", "old", "new", default="old")
LIMIT = d.variant("limit", 10, 50, default=10)
RATE = d.variant("rate", 0.5, 1.5, default=0.5)
LAYOUT = d.variant("layout", {"small": {"columns": 1}, "large": {"columns": 3}}, default="small")
ON_OFF = {"on": True, "off": False}
LOGGER = "django_natskv.flags"


def numbered():
    return map(str, itertools.count())


def ask(declaration, stored, evaluators=None, key=None, **attributes) -> e.Details:
    found = e.compiled(declaration, stored, evaluators=evaluators, revision=7)
    details = found.details(Context(key=key, attributes=attributes))
    assert details == async_to_sync(found.adetails)(Context(key=key, attributes=attributes))
    assert details.revision == 7
    return details


def enabled(declaration: d.Declaration, **more: Any) -> dict[str, Any]:
    return {"state": "ENABLED", "variants": dict(declaration.variants), **more}


def test_what_is_set_for_everyone_is_constant():
    flag = e.compiled(CHECKOUT, d.definition(CHECKOUT, True), revision=3)
    assert flag.constant == e.Details(True, "on", e.STATIC, {}, "", 3)
    assert flag.details(Context()) is flag.constant
    assert (flag.needs, flag.splits) == (frozenset(), False)


def test_what_is_not_stored_is_the_declared_default():
    flag = e.undefined(THEME)
    assert flag.constant == flag.details(Context()) == e.Details("old", "old", e.DEFAULT, {}, "", None)


@pytest.mark.parametrize(
    ("rule", "attributes", "value"),
    [
        (r.staff, {"is_staff": True}, True),
        (r.staff, {"is_staff": False}, False),
        (r.staff, {}, False),
        (~r.staff, {}, True),
        (r.superusers, {"is_superuser": True}, True),
        (r.authenticated, {"is_authenticated": True}, True),
        (r.users(7), {"key": 7}, True),
        (r.users(7), {"key": "77"}, False),
        (r.groups("beta", "press"), {"groups": ["press"]}, True),
        (r.groups("beta"), {"groups": ["beta-2"]}, False),
        (r.groups("beta"), {}, False),
        (r.languages("de"), {"language": "de"}, True),
        (r.languages("de"), {"language": "de-at"}, True),
        (r.languages("de-at"), {"language": "de"}, False),
        (r.languages("de"), {"language": "den"}, False),
        (r.attribute("plan") == "pro", {"plan": "pro"}, True),
        (r.attribute("plan") == "3", {"plan": 3}, False),
        (r.attribute("plan") == 0, {}, False),
        (r.attribute("plan") == None, {}, True),  # noqa: E711 - makes a rule
        (r.attribute("plan") != "pro", {}, True),
        (r.attribute("account.plan") == "pro", {"account": {"plan": "pro"}}, True),
        (r.attribute("plan").in_("pro", "max"), {"plan": "max"}, True),
        (r.attribute("plan").in_("pro", "max"), {"plan": "m"}, False),
        (r.attribute("plan").startswith("p"), {"plan": "pro"}, True),
        (r.attribute("plan").startswith("p"), {"plan": 3}, False),
        (r.attribute("plan").endswith("o"), {"plan": "pro"}, True),
        (r.attribute("app").semver(">=", "2.1.0"), {"app": "2.10.0"}, True),
        (r.attribute("app").semver(">=", "2.1.0"), {"app": "2.1.0-rc.1"}, False),
        (r.attribute("app").semver("~", "2.1.0"), {"app": "2.1.9"}, True),
        (r.attribute("app").semver("^", "2.1.0"), {"app": "3.0.0"}, False),
        (r.staff | r.groups("beta") & ~r.users(7), {"key": "8", "groups": ["beta"]}, True),
        (r.staff | r.groups("beta") & ~r.users(7), {"key": "7", "groups": ["beta"]}, False),
        (r.percentage(100), {"key": "a"}, True),
        (r.percentage(0), {"key": "a"}, False),
        (r.percentage(100), {}, False),  # nobody to divide
        (r.everyone, {}, True),
        (r.nobody, {}, False),
    ],
    ids=numbered(),
)
def test_rules_hold_for_whom_they_say(rule, attributes, value):
    assert ask(CHECKOUT, d.definition(CHECKOUT, True, when=rule, otherwise=False), **attributes).value is value


def test_a_window_of_time_holds_within_it_alone():
    def holds(begin, end):
        flag = e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.between(begin, end)))
        assert flag.constant is None  # the answer changes with the time, though nothing of the context is asked
        assert flag.needs == frozenset()
        return flag.details(Context()).value

    now, hour = dt.datetime.now(dt.UTC), dt.timedelta(hours=1)
    assert holds(now - hour, now + hour)
    assert holds(now - hour, None)
    assert holds(None, now + hour)
    assert not holds(now + hour, now + 2 * hour)
    assert not holds(now - 2 * hour, now - hour)


@pytest.mark.parametrize(
    ("stored", "context", "told"),
    [
        (d.definition(THEME, "new"), {}, ("new", "new", e.STATIC)),
        (d.definition(THEME, "new", when=r.staff), {"is_staff": True}, ("new", "new", e.TARGETING_MATCH)),
        (d.definition(THEME, "new", when=r.staff), {}, ("old", "old", e.DEFAULT)),
        (d.definition(THEME, "new", when=r.percentage(100)), {"key": "a"}, ("new", "new", e.SPLIT)),
        (d.definition(THEME, "new", when=r.percentage(0)), {"key": "a"}, ("old", "old", e.SPLIT)),
        (d.definition(THEME, "new", when=r.percentage(100)), {}, ("old", "old", e.DEFAULT)),
        (
            d.definition(THEME, "new", when=r.percentage(100) | r.staff),
            {"key": "a"},
            ("new", "new", e.TARGETING_MATCH),
        ),
        (
            enabled(THEME, targeting={"fractional": [{"var": "email"}, ["new", 1]]}),
            {"email": "a@example.com"},
            ("new", "new", e.SPLIT),
        ),
        ({**d.definition(THEME, "new"), "state": "DISABLED"}, {}, ("old", None, e.DISABLED)),
        (
            {**d.definition(THEME, "new", when=r.staff), "state": "DISABLED"},
            {"is_staff": True},
            ("old", None, e.DISABLED),
        ),
        (enabled(THEME), {}, ("old", None, e.DEFAULT)),
        (enabled(THEME, defaultVariant=None, targeting={}), {}, ("old", None, e.DEFAULT)),
        (enabled(THEME, defaultVariant="new", description="of another tool"), {}, ("new", "new", e.STATIC)),
        (enabled(CHECKOUT, targeting={"if": [True, "on"]}), {}, (True, "on", e.TARGETING_MATCH)),
    ],
    ids=numbered(),
)
def test_an_answer_tells_its_variant_and_its_reason(stored, context, told):
    declared = CHECKOUT if "on" in stored["variants"] else THEME
    details = ask(declared, stored, **context)
    assert (details.value, details.variant, details.reason) == told
    assert details.error == ""


def test_metadata_is_told_and_cannot_be_changed():
    declared = d.flag("x", owner="payments")
    metadata = ask(declared, d.definition(declared, True, when=r.staff)).metadata
    assert metadata == {"owner": "payments"}
    with pytest.raises(TypeError):
        metadata["owner"] = "me"  # type: ignore[index]


@pytest.mark.parametrize(
    "details", [ask(CHECKOUT, d.definition(CHECKOUT, True)), e.undefined(LAYOUT).details(Context())]
)
def test_an_answer_can_be_sent_elsewhere(details):
    there = pickle.loads(pickle.dumps(details))
    assert (there, copy.deepcopy(details)) == (details, details)
    with pytest.raises(TypeError):
        there.metadata["owner"] = "me"


def test_shared_rules_are_evaluated_where_they_are_named():
    stored = enabled(CHECKOUT, defaultVariant="off", targeting={"if": [{"$ref": "testers"}, "on", None]})
    shared = {
        "testers": {"or": [{"$ref": "staff"}, {"starts_with": [{"var": "name"}, "\\d\u00e9"]}]},
        "staff": {"var": "is_staff"},
    }
    assert ask(CHECKOUT, stored, shared, is_staff=True).value is True
    assert ask(CHECKOUT, stored, shared, name="\\d\u00e9e").value is True
    assert ask(CHECKOUT, stored, shared).value is False
    assert e.compiled(CHECKOUT, stored, evaluators=shared).needs == {"is_staff", "name"}


@pytest.mark.parametrize(
    ("declared", "stored", "error"),
    [
        (CHECKOUT, None, "a definition is an object, not NoneType"),
        (CHECKOUT, "on", "a definition is an object, not str"),
        (CHECKOUT, {}, "state"),
        (CHECKOUT, {"state": "ENABLED"}, "variants"),
        (CHECKOUT, {"state": "ENABLED", "variants": []}, "variants"),
        (CHECKOUT, enabled(CHECKOUT, defaultVariant="blue"), "Resolved variant blue not in variants config."),
        (CHECKOUT, enabled(CHECKOUT, defaultVariant=["on"]), "defaultVariant"),
        (CHECKOUT, enabled(CHECKOUT, metadata={"a": []}), "etadata"),
        (CHECKOUT, enabled(CHECKOUT, targeting="on"), "Invalid 'targeting' value in flag: on"),
        (
            CHECKOUT,
            enabled(CHECKOUT, targeting={"if": [True, "blue"]}),
            "Resolved variant blue not in variants config.",
        ),
        (CHECKOUT, enabled(CHECKOUT, targeting={"cut": [1]}), "Unrecognized operation: 'cut'"),
        (CHECKOUT, enabled(CHECKOUT, targeting={"if": [{"/": [1, 0]}, "on"]}), "division by zero"),
        (CHECKOUT, enabled(CHECKOUT, targeting={"if": [{"/": [1, {"var": "zero"}]}, "on"]}), "division by zero"),
        (CHECKOUT, enabled(CHECKOUT, targeting={"$ref": "beta"}), 'there is no shared rule "beta"; there are: none'),
        (
            CHECKOUT,
            {"state": "ENABLED", "variants": {"on": 1}, "defaultVariant": "on"},
            "Expected type bool but got int",
        ),
        (THEME, {"state": "ENABLED", "variants": {"new": 1}, "defaultVariant": "new"}, "Expected type str but got int"),
        (
            THEME,
            {"state": "ENABLED", "variants": {"blue": "blue"}, "defaultVariant": "blue"},
            'the variant "blue": "blue" is none of its values: old, new',
        ),
        (LIMIT, {"state": "ENABLED", "variants": {"a": True}, "defaultVariant": "a"}, "Expected type int but got bool"),
        (LIMIT, {"state": "ENABLED", "variants": {"a": 1.0}, "defaultVariant": "a"}, "Expected type int but got float"),
        (
            RATE,
            {"state": "ENABLED", "variants": {"a": "1"}, "defaultVariant": "a"},
            "Expected type float but got str",
        ),
        (
            LAYOUT,
            {"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "a"},
            "Expected type dict or list but got",
        ),
        (
            LAYOUT,
            {"state": "ENABLED", "variants": {"a": [1]}, "defaultVariant": "a"},
            'the variant "a": its value is of type object, not list',
        ),
    ],
    ids=numbered(),
)
def test_whatever_is_wrong_gives_the_declared_default_and_one_line_in_the_log(declared, stored, error, caplog):
    flag = e.compiled(declared, stored, revision=7)
    details = flag.details(Context(key="a"))
    for _ in range(3):
        assert flag.details(Context(key="a")) == details
        assert (details.value, details.variant, details.reason) == (declared.value, None, e.ERROR)
        assert error in details.error
    [line] = [record for record in caplog.records if record.name == LOGGER]
    assert line.levelno == logging.WARNING
    assert line.getMessage() == f'The flag "{declared.name}" (revision 7) gives its declared default: {details.error}'


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_in_json_is_no_value(text):
    for declared, value in ((RATE, text), (LAYOUT, f'{{"columns": {text}}}')):
        stored = json.loads(f'{{"state": "ENABLED", "variants": {{"a": {value}}}, "defaultVariant": "a"}}')
        assert ask(declared, stored).error_code == e.PARSE_ERROR
    metadata = {"a": json.loads(text)}
    assert ask(RATE, {"state": "ENABLED", "variants": {"a": 1.5}, "metadata": metadata}).value == 0.5


def test_an_object_that_is_nested_too_deeply_gives_the_declared_default():
    deep: dict[str, Any] = {}
    for _ in range(700):
        deep = {"a": deep}
    flag = e.compiled(LAYOUT, {"state": "ENABLED", "variants": {"a": deep}, "defaultVariant": "a"})
    assert flag.details(Context()).error.startswith("maximum recursion depth")
    assert flag.details(Context()).value == LAYOUT.value


def test_the_declared_object_is_the_callers_own_whatever_failed():
    flag = e.compiled(LAYOUT, d.definition(LAYOUT, LAYOUT.value, when=r.staff))
    flag.details(Asker(RuntimeError())).value["columns"] = "mine"
    e.broken(LAYOUT, "no").details(Context()).value["columns"] = "mine"
    assert LAYOUT.value == {"columns": 1}


def test_the_evaluator_writes_no_log_of_what_is_usual(caplog):
    percentage = e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.percentage(50)))
    version = e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.attribute("version").semver(">=", "2.0.0")))
    for _ in range(3):
        assert percentage.details(Context()).value is False
        assert version.details(Context(attributes={"version": "<script>"})).value is False
    assert caplog.records == []
    logging.getLogger("openfeature.contrib").error("of somebody else")
    assert len(caplog.records) == 1


def test_a_bool_is_no_float():
    # The evaluator takes True for 1.0.
    details = ask(RATE, {"state": "ENABLED", "variants": {"a": True}, "defaultVariant": "a"})
    assert (details.value, details.reason) == (0.5, e.ERROR)


def test_a_whole_number_is_a_float():
    details = ask(RATE, {"state": "ENABLED", "variants": {"a": 3}, "defaultVariant": "a"})
    assert (details.value, type(details.value), details.reason) == (3.0, float, e.STATIC)


def test_a_definition_that_cannot_be_read_gives_the_declared_default(caplog):
    flag = e.broken(THEME, ValueError(), revision=4)
    assert flag.constant == e.Details("old", None, e.ERROR, {}, "ValueError", 4, e.PARSE_ERROR)
    assert e.broken(THEME, "it is no JSON").details(Context()).error == "it is no JSON"
    assert len(caplog.records) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "if",
                    "var",
                    "in",
                    "fractional",
                    "and",
                    "!",
                    "$ref",
                    "<",
                    "/",
                    "sem_ver",
                    "missing",
                    "map",
                    "x",
                    "state",
                ]
            ),
            inner,
        )
    ),
    max_leaves=10,
)


@settings(deadline=None)  # the first example imports the evaluator
@given(json_values, json_values, st.sampled_from([CHECKOUT, THEME, LIMIT, RATE, LAYOUT]))
def test_nothing_that_is_stored_raises(targeting, other, declared):
    for stored in (enabled(declared, targeting=targeting, metadata=other), other):
        flag = e.compiled(declared, stored, evaluators={"a": targeting})
        details = flag.details(Context(key="a", attributes={"x": other}))
        assert declared.allows(details.value) is None
        assert (details.reason == e.ERROR) == bool(details.error)


class Asker:
    """A context that counts, or fails."""

    def __init__(self, error=None):
        self.results = {}
        self.asked = []
        self.error = error

    def gather(self, needs, *, splits):
        self.asked.append((needs, splits))
        if self.error:
            raise self.error
        return "a", {"is_staff": True}

    async def agather(self, needs, *, splits):
        return self.gather(needs, splits=splits)


def test_a_context_is_asked_for_what_is_needed_and_once():
    flag = e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.staff | r.percentage(25)))
    for asked in (flag.details, async_to_sync(flag.adetails)):
        asker = Asker()
        assert asked(asker) is asked(asker)
        assert asker.asked == [({"is_staff", "targetingKey"}, True)]
    static, asker = e.compiled(CHECKOUT, d.definition(CHECKOUT, True)), Asker()
    assert static.details(asker) is async_to_sync(static.adetails)(asker)
    assert asker.asked == []
    assert e.compiled(CHECKOUT, enabled(CHECKOUT, targeting={"if": [{"var": ""}, "on"]})).needs == {ANYTHING}


def test_a_new_definition_is_asked_anew_in_the_same_context():
    asker = Asker()
    assert e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.staff)).details(asker).value is True
    assert e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=~r.staff)).details(asker).value is False


def test_a_context_that_fails_gives_the_declared_default_and_is_asked_again(caplog):
    flag = e.compiled(CHECKOUT, d.definition(CHECKOUT, True, when=r.staff), revision=2)
    asker = Asker(RuntimeError("the database is down"))
    for asked in (flag.details, async_to_sync(flag.adetails)):
        assert asked(asker) == e.Details(False, None, e.ERROR, {}, "the database is down", 2, e.GENERAL)
    assert len(asker.asked) == 2
    assert len(caplog.records) == 1


def test_an_object_may_be_changed_by_who_asked_for_it():
    stored = d.definition(LAYOUT, {"columns": 3})
    flag = e.compiled(LAYOUT, stored)
    assert flag.constant is None
    context = Context()
    flag.details(context).value["columns"] = 99
    assert flag.details(context).value == {"columns": 3}
    assert e.undefined(LAYOUT).constant is None
    e.undefined(LAYOUT).details(context).value["columns"] = 99
    assert LAYOUT.value == {"columns": 1}
    targeted = e.compiled(LAYOUT, d.definition(LAYOUT, {"columns": 3}, when=r.staff))
    targeted.details(context).value["columns"] = 99
    assert targeted.details(context).value == {"columns": 1}


def test_compiling_leaves_what_was_stored_as_it_was():
    stored = d.definition(CHECKOUT, True, when=r.staff)
    before = repr(stored)
    e.compiled(CHECKOUT, stored)
    assert repr(stored) == before


def test_without_the_extra_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "openfeature.contrib.tools.flagd.core", None)
    e._evaluator.cache_clear()
    try:
        with pytest.raises(ImproperlyConfigured, match=r"pip install 'django-natskv\[flags\]'"):
            e.require()
        with pytest.raises(ImproperlyConfigured):
            e.compiled(CHECKOUT, {})
        assert e.undefined(CHECKOUT).details(Context()).value is False
    finally:
        e._evaluator.cache_clear()


# ---------------------------------------------------------------- percentages


def share(percent: float, keys, name: str = "new_checkout") -> set[str]:
    declared = d.flag(name)
    flag = e.compiled(declared, d.definition(declared, True, when=r.percentage(percent)))
    return {key for key in keys if flag.details(Context(key=key)).value}


@pytest.mark.slow
def test_of_100_000_people_a_quarter_is_a_quarter():
    assert abs(len(share(25, (f"user-{number}" for number in range(100_000)))) - 25_000) <= 500


def test_raising_a_percentage_only_adds_people():
    keys = [str(number) for number in range(2_000)]
    before: set[str] = set()
    for percent in (0, 0.1, 1, 10, 12.5, 12.625, 25, 50, 99.9, 100):
        now = share(percent, keys)
        assert before <= now
        before = now
    assert before == set(keys)


@settings(deadline=None)  # the first example imports the evaluator
@given(st.text(min_size=1), st.integers(0, 100_000), st.integers(0, 100_000))
def test_who_belongs_to_a_share_belongs_to_each_larger_one(key, one, other):
    small, large = sorted((one, other))
    assert share(small / 1000, [key]) <= share(large / 1000, [key])


def test_each_flag_divides_people_anew():
    keys = [str(number) for number in range(2_000)]
    both = share(50, keys, "one") & share(50, keys, "two")
    assert 400 < len(both) < 600  # a quarter of them


# The vectors that implementations of flagd are held to: open-feature/flagd-testbed v3.10.1, gherkin/targeting.feature
# and evaluator/gherkin/fractional.feature, tag @fractional-v3 (canonical CBOR, MurmurHash3 x86 32, seed 0).
HALVES = {"fractional": [["heads"], ["tails", 1]]}
SUITS = [["clubs", 25], ["diamonds", 25], ["hearts", 25], ["spades", 25]]
OF_THE_FLAG = {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "user.name"}]}, *SUITS]}
OF_A_SEED = {"fractional": [{"cat": ["shared-seed", {"var": "user.name"}]}, *SUITS]}
BUCKETS = {"fractional": [{"var": "hashing_input"}, *([f"bucket{number}", 1] for number in range(1, 26))]}


@pytest.mark.parametrize(
    ("name", "targeting", "context", "variant"),
    [
        ("fractional-flag-shorthand", HALVES, {"key": "jon@company.com"}, "tails"),
        ("fractional-flag-shorthand", HALVES, {"key": "jane@company.com"}, "tails"),
        ("fractional-flag", OF_THE_FLAG, {"user": {"name": "jack"}}, "diamonds"),
        ("fractional-flag", OF_THE_FLAG, {"user": {"name": "queen"}}, "diamonds"),
        ("fractional-flag", OF_THE_FLAG, {"user": {"name": "ten"}}, "clubs"),
        ("fractional-flag", OF_THE_FLAG, {"user": {"name": "nine"}}, "clubs"),
        ("fractional-flag", OF_THE_FLAG, {"user": {"name": 3}}, "spades"),
        ("fractional-flag-A-shared-seed", OF_A_SEED, {"user": {"name": "seven"}}, "hearts"),
        ("fractional-flag-A-shared-seed", OF_A_SEED, {"user": {"name": "eight"}}, "hearts"),
        ("fractional-flag-B-shared-seed", OF_A_SEED, {"user": {"name": "nine"}}, "diamonds"),
        ("fractional-flag-B-shared-seed", OF_A_SEED, {"user": {"name": "two"}}, "diamonds"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": True}, "bucket5"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": False}, "bucket1"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": "user1"}, "bucket22"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": "user2"}, "bucket16"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": 123}, "bucket20"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": 1.23}, "bucket14"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": 1.0}, "bucket23"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": "null"}, "bucket8"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": {"b": 2, "a": 1}}, "bucket23"),
        ("fractional-basic-flag", BUCKETS, {"hashing_input": 65504.0}, "bucket16"),
    ],
    ids=numbered(),
)
def test_people_are_divided_as_other_implementations_of_flagd_divide_them(name, targeting, context, variant):
    pairs = [pair for pair in targeting["fractional"] if isinstance(pair, list)]
    declared = d.variant(name, *(pair[0] for pair in pairs), default=pairs[0][0])
    assert ask(declared, enabled(declared, targeting=targeting), **context).variant == variant


def cbor(text: str) -> bytes:
    raw = text.encode()
    head = bytes([0x60 + len(raw)]) if len(raw) < 24 else bytes([0x78, len(raw)])
    return head + raw


def test_a_percentage_follows_from_the_flag_and_the_key_as_flagd_documents_it():
    keys = [f"acct-{number}" for number in range(300)] + ["a", "é" * 20]

    def place(key: str) -> float:
        return mmh3.hash(b"\x82" + cbor("new_checkout") + cbor(key), signed=False) / 2**32

    assert share(12.5, keys) == {key for key in keys if place(key) < 0.125}


def test_a_key_keeps_its_answer():
    # Pinned: whoever had a feature yesterday has it today, whatever is upgraded.
    kept = {f"acct-{number}" for number in (0, 9, 10, 19, 20, 21, 23, 24, 30, 32, 35)}
    assert share(25, [f"acct-{number}" for number in range(40)]) == kept
