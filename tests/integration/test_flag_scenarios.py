"""What the specification of OpenFeature and flagd's test harness ask of a provider today, on a real server.

The scenarios are theirs, and in words and definitions of our own: no package holds the current files.
``tests/contract/test_flagd.py`` runs those that one does hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.evaluation_context import EvaluationContext

from django_natskv import registry
from django_natskv.contrib.openfeature import NatsKVProvider
from django_natskv.registry._declaring import flag_sets
from tests.fix_registry import Shelf
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET

SHARED = {"insider": {"===": [{"var": "mail"}, "ann@example.com"]}}
INSIDER = {"if": [{"$ref": "insider"}, "zero"]}  # and no variant for anybody else
PICK = {"yes": "yes", "no": "no", "fallback": "fallback"}
ANN = {"mail": "ann@example.com"}
TEXT: dict[str, Any] = {"variants": PICK, "defaultVariant": "fallback"}


def condition(logic: Any) -> dict[str, Any]:
    return {**TEXT, "targeting": {"if": [logic, "yes", "no"]}}


def version(comparison: str, wanted: str) -> dict[str, Any]:
    return condition({"sem_ver": [{"var": "version"}, comparison, wanted]})


def shares(*pairs: Any, by: str = "targetingKey") -> dict[str, Any]:
    return {**TEXT, "targeting": {"fractional": [{"var": by}, *pairs]}}


VALUES: dict[str, tuple[dict[str, Any], Any]] = {  # by type: the variants, and a caller's default
    "boolean": ({"on": True, "zero": False}, True),
    "string": ({"on": "hi", "zero": ""}, "mine"),
    "integer": ({"on": 10, "zero": 0, "large": 2**31 - 1, "huge": 2**53 - 1}, 7),
    "float": ({"on": 0.5, "zero": 0.0}, 7.5),
    "object": ({"on": {"title": "x", "images": True, "count": 100}, "zero": {}}, {"mine": 1}),
}

STORED: dict[str, tuple[str, dict[str, Any]]] = {  # by name: the type, and what is stored beside the state
    **{
        f"{kind}-{name}": (kind, {"variants": variants, "defaultVariant": name})
        for kind, (variants, _) in VALUES.items()
        for name in variants
    },
    **{
        f"{kind}-targeted": (kind, {"variants": variants, "defaultVariant": "zero", "targeting": INSIDER})
        for kind, (variants, _) in VALUES.items()
    },
    **{
        f"{kind}-disabled": (kind, {"state": "DISABLED", "variants": variants, "defaultVariant": "on"})
        for kind, (variants, _) in VALUES.items()
    },
    **{f"{kind}-null-default": (kind, {"variants": VALUES[kind][0], "defaultVariant": None}) for kind in VALUES},
    **{f"{kind}-no-default": (kind, {"variants": VALUES[kind][0]}) for kind in VALUES},
    **{f"{kind}-no-else": (kind, {"variants": VALUES[kind][0], "targeting": INSIDER}) for kind in VALUES},
    "metadata": ("string", {**TEXT, "metadata": {"text": "1.0.2", "whole": 2, "part": 0.1, "flag": True}}),
    "several": (
        "string",
        condition({"and": [{"===": [{"var": "age"}, 65]}, {"===": [{"var": "customer"}, False]}, {"$ref": "insider"}]}),
    ),
    "unheard": ("string", condition({"$ref": "nobody"})),
    "prefix": ("string", version("=", "v1.0.0")),
    "partial": ("string", version("^", "1")),
    "build": ("string", version("=", "1.0.0+build")),
    "starts": ("string", condition({"starts_with": [{"var": "id"}, "abc"]})),
    "ends": ("string", condition({"ends_with": [{"var": "id"}, "xyz"]})),
    "single": ("string", {**TEXT, "targeting": {"fractional": [["yes", 1]]}}),
    "negative": ("string", shares(["yes", -50], ["no", 10])),
    "nothing": ("string", shares(["yes", 0], ["no", 0])),
    "nested": ("string", shares([{"if": [{"===": [{"var": "tier"}, "pro"]}, "yes", "no"]}, 1])),
    "computed": ("string", shares([{"var": "color"}, 1])),
    "weighed": ("string", shares(["yes", {"if": [{"===": [{"var": "tier"}, "pro"]}, 100, 0]}], ["no", 0], ["no", 1])),
    "certain": ("string", condition({"fractional": [[False, 0], [True, 100]]})),
    "never": ("string", condition({"fractional": [[False, 100], [True, 0]]})),
}


def declare(kind: str, variants: dict[str, Any]) -> registry.AnyFlag[Any]:
    if kind == "boolean":
        return registry.Flag()
    if kind == "object":
        return registry.Variant(variants, default="on")
    values = [*variants.values()]
    return registry.Variant(*values, default=values[0])


@pytest.fixture
def client(flags: Shelf) -> Iterator[OpenFeatureClient]:
    before = list(flag_sets)
    body: dict[str, Any] = {name: declare(kind, stored["variants"]) for name, (kind, stored) in STORED.items()}
    type("Scenarios", (registry.FlagSet,), {**body, "Meta": type("Meta", (), {"bucket": BUCKET})})
    flags.put("_evaluators", SHARED)
    for name, (_, stored) in STORED.items():
        flags.put(name, {"state": "ENABLED", **stored})
    eventually(lambda: all(flag.definition is not None for flag in body.values()))
    api.set_provider_and_wait(NatsKVProvider())
    yield api.get_client()
    flag_sets[:] = before
    api.clear_providers()


def both(client: OpenFeatureClient, name: str, default: Any, key: str | None = None, **attributes: Any) -> Any:
    """Resolve on both faces, which must agree; return the details."""
    kind, context = STORED[name][0], EvaluationContext(key, attributes)
    plain = getattr(client, f"get_{kind}_details")(name, default, context)
    awaited = asyncio.run(getattr(client, f"get_{kind}_details_async")(name, default, context))
    assert plain == awaited
    assert plain.flag_key == name
    assert (plain.error_code is None) == (plain.error_message is None) == (plain.reason != "ERROR")
    return plain


def test_values_are_resolved_with_variant_and_reason(client):
    for kind, (variants, default) in VALUES.items():
        for name, value in variants.items():
            found = both(client, f"{kind}-{name}", default, "anybody", mail="x")
            assert (found.value, found.variant, found.reason) == (value, name, "STATIC")
            assert type(found.value) is type(value)


def test_a_context_that_matches_decides_and_any_other_does_not(client):
    for kind, (variants, default) in VALUES.items():
        found = both(client, f"{kind}-targeted", default, **ANN)
        assert (found.value, found.variant, found.reason) == (variants["zero"], "zero", "TARGETING_MATCH")
        contexts: tuple[dict[str, Any], ...] = ({"mail": "bob@example.com"}, {"mail": None}, {})
        for context in contexts:
            found = both(client, f"{kind}-targeted", default, **context)
            assert (found.value, found.variant, found.reason) == (variants["zero"], "zero", "DEFAULT")


def test_what_is_disabled_or_decides_for_no_variant_gives_the_callers_default(client):
    for kind, (variants, default) in VALUES.items():
        for name, reason in (("disabled", "DISABLED"), ("null-default", "DEFAULT"), ("no-default", "DEFAULT")):
            found = both(client, f"{kind}-{name}", default)
            assert (found.value, found.variant, found.reason, found.error_code) == (default, None, reason, None)
        found = both(client, f"{kind}-no-else", default, mail="bob@example.com")
        assert (found.value, found.variant, found.reason) == (default, None, "DEFAULT")
        assert both(client, f"{kind}-no-else", default, **ANN).value == variants["zero"]


def test_metadata_is_told_with_its_types(client):
    metadata = both(client, "metadata", "mine").flag_metadata
    assert metadata == {"text": "1.0.2", "whole": 2, "part": 0.1, "flag": True}
    assert [type(value) for value in metadata.values()] == [str, int, float, bool]


@pytest.mark.parametrize(
    ("name", "context", "value"),
    [
        ("several", {**ANN, "age": 65, "customer": False}, "yes"),
        ("several", {**ANN, "age": 65, "customer": True}, "no"),
        ("prefix", {"version": "1.0.0"}, "yes"),
        ("prefix", {"version": "V1.0.0"}, "yes"),
        ("prefix", {"version": "2.0.0"}, "no"),
        ("partial", {"version": "1.5.0"}, "yes"),
        ("partial", {"version": "1"}, "yes"),
        ("partial", {"version": 1}, "yes"),
        ("partial", {"version": "2.0.0"}, "no"),
        ("build", {"version": "1.0.0+other"}, "yes"),
        ("build", {"version": "2.0.0"}, "no"),
        ("starts", {"id": "abcxyz"}, "yes"),
        ("starts", {"id": "xyz"}, "no"),
        ("starts", {"id": 3}, "no"),
        ("ends", {"id": "abcxyz"}, "yes"),
        ("ends", {"id": 3}, "no"),
        ("single", {"key": "anybody"}, "yes"),
        ("single", {}, "fallback"),
        ("negative", {"key": "anybody"}, "no"),
        ("nothing", {"key": "anybody"}, "fallback"),
        ("nested", {"key": "anybody", "tier": "pro"}, "yes"),
        ("nested", {"key": "anybody", "tier": "basic"}, "no"),
        ("computed", {"key": "anybody", "color": "no"}, "no"),
        ("weighed", {"key": "jon@company.com", "tier": "pro"}, "yes"),
        ("weighed", {"key": "jon@company.com", "tier": "basic"}, "no"),
        ("certain", {"key": "anybody"}, "yes"),
        ("never", {"key": "anybody"}, "no"),
    ],
)
def test_operators_decide(client, name, context, value):
    found = both(client, name, "mine", **context)
    assert (found.value, found.error_code) == (value, None)


@pytest.mark.parametrize(
    ("name", "context", "code"),
    [("unheard", {}, "PARSE_ERROR"), ("computed", {"key": "anybody", "color": "yellow"}, "GENERAL")],
)
def test_what_cannot_be_decided_is_an_error_and_gives_the_callers_default(client, name, context, code):
    found = both(client, name, "mine", **context)
    assert (found.value, found.variant, found.error_code) == ("mine", None, code)
