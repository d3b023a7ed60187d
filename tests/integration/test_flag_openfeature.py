"""The OpenFeature provider: types, reasons, errors and events, on a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.provider import ProviderStatus

from django_natskv import connections, signals
from django_natskv.contrib.openfeature import NatsKVProvider
from django_natskv.registry import config_changed, rules as r
from tests.fix_local import insist
from tests.fix_waiting import eventually
from tests.flag_classes import Features

QUARTERS = {"fractional": [{"var": "user.name"}, ["old", 1], ["new", 3]]}


@pytest.fixture
def client(flags):
    api.set_provider_and_wait(NatsKVProvider())
    yield api.get_client()
    api.clear_providers()


@pytest.fixture
def heard():
    """What handlers of the OpenFeature API were told, in order: the event, and the flags that changed."""
    told = []
    handlers = {
        event: lambda details, event=event: told.append((event.name, details.flags_changed)) for event in ProviderEvent
    }
    for event, handler in handlers.items():
        api.add_handler(event, handler)
    yield told
    for event, handler in handlers.items():
        api.remove_handler(event, handler)
    api.clear_providers()


def resolve(client, face, kind, *arguments):
    """Resolve in detail on one of the faces."""
    if face == "plain":
        return getattr(client, f"get_{kind}_details")(*arguments)
    return asyncio.run(getattr(client, f"get_{kind}_details_async")(*arguments))


# --- types and reasons ---


def test_each_type_is_resolved_on_both_faces(client):
    Features.theme.set("new", when=r.users(7) | (r.attribute("plan") == "pro"))

    async def awaited():
        return (
            await client.get_boolean_value_async("kill_switch", False),
            await client.get_string_value_async("theme", "x", EvaluationContext("7")),
            await client.get_integer_value_async("limit", 1),
            await client.get_float_value_async("rate", 1.0),
            await client.get_object_value_async("layout", {}),
        )

    plain = (
        client.get_boolean_value("kill_switch", False),
        client.get_string_value("theme", "x", EvaluationContext(None, {"plan": "pro"})),
        client.get_integer_value("limit", 1),
        client.get_float_value("rate", 1.0),
        client.get_object_value("layout", {}),
    )
    assert plain == asyncio.run(awaited()) == (True, "new", 10, 0.5, {"columns": 1})
    assert isinstance(client.get_float_value("limit", 1.0), float)


@pytest.mark.parametrize("face", ["plain", "awaited"])
def test_details_say_why(client, face):
    Features.theme.set("new", when=r.users(7))
    details = resolve(client, face, "string", "theme", "x", EvaluationContext("7"))
    assert (details.value, details.variant, details.reason) == ("new", "new", "TARGETING_MATCH")
    assert details.flag_metadata == {"description": "how it looks"}
    Features.theme.define({"state": "DISABLED", "variants": {"new": "new"}, "defaultVariant": "new"})
    details = resolve(client, face, "string", "theme", "x")
    assert (details.value, details.variant, details.reason, details.error_code) == ("x", None, "DISABLED", None)


def test_metadata_cannot_be_changed(client):
    Features.theme.set("new")
    metadata = client.get_string_details("theme", "x").flag_metadata
    with pytest.raises(TypeError):
        metadata["description"] = "mine"
    assert client.get_string_details("theme", "x").flag_metadata == {"description": "how it looks"}


def test_attributes_may_have_any_name_and_stay_the_callers(client):
    Features.theme.define({"state": "ENABLED", "variants": {"old": "old", "new": "new"}, "targeting": QUARTERS})
    attributes: dict[str, Any] = {"user": {"name": "ann"}, "key": "k", "request": 1, "self": 2}
    details = client.get_string_details("theme", "x", EvaluationContext("7", attributes))
    assert (details.value, details.reason) == ("new", "SPLIT")
    Features.limit.set(50, when=r.attribute("key") == "k")
    assert client.get_integer_value("limit", 1, EvaluationContext(None, attributes)) == 50
    assert attributes == {"user": {"name": "ann"}, "key": "k", "request": 1, "self": 2}


@pytest.mark.parametrize("face", ["plain", "awaited"])
def test_what_decides_for_no_variant_gives_the_callers_default(client, face):
    pro = {"===": [{"var": "plan"}, "pro"]}
    variants = {"old": "old", "new": "new"}
    Features.theme.define({"state": "ENABLED", "variants": variants, "targeting": {"if": [pro, "new", None]}})
    details = resolve(client, face, "string", "theme", "mine", EvaluationContext(None, {"plan": "free"}))
    assert (details.value, details.variant, details.reason, details.error_code) == ("mine", None, "DEFAULT", None)
    assert resolve(client, face, "string", "theme", "x", EvaluationContext(None, {"plan": "pro"})).value == "new"


# --- errors ---


@pytest.mark.parametrize("face", ["plain", "awaited"])
@pytest.mark.parametrize(
    ("kind", "name", "default", "code"),
    [
        ("boolean", "nobody", True, "FLAG_NOT_FOUND"),
        ("object", "nobody", {"a": 1}, "FLAG_NOT_FOUND"),
        ("integer", "kill_switch", 3, "TYPE_MISMATCH"),
        ("float", "kill_switch", 3.5, "TYPE_MISMATCH"),
        ("string", "kill_switch", "x", "TYPE_MISMATCH"),
        ("object", "kill_switch", {}, "TYPE_MISMATCH"),
        ("boolean", "theme", False, "TYPE_MISMATCH"),
        ("integer", "theme", 3, "TYPE_MISMATCH"),
        ("boolean", "limit", True, "TYPE_MISMATCH"),
        ("string", "limit", "x", "TYPE_MISMATCH"),
        ("integer", "rate", 3, "TYPE_MISMATCH"),
        ("boolean", "rate", True, "TYPE_MISMATCH"),
        ("boolean", "layout", True, "TYPE_MISMATCH"),
        ("string", "layout", "x", "TYPE_MISMATCH"),
        ("integer", "layout", 3, "TYPE_MISMATCH"),
        ("float", "layout", 3.5, "TYPE_MISMATCH"),
    ],
)
def test_what_cannot_be_resolved_gives_the_callers_default(client, face, kind, name, default, code):
    details = resolve(client, face, kind, name, default)
    assert (details.value, details.reason, details.error_code) == (default, "ERROR", code)
    assert type(details.value) is type(default)
    assert name in details.error_message


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"[]", "PARSE_ERROR"),
        ({"state": "ENABLED", "variants": {"a": "old"}, "targeting": {"$ref": "nobody"}}, "PARSE_ERROR"),
        ({"state": "ENABLED", "variants": {"a": "old"}, "targeting": {"no_such": [1]}}, "PARSE_ERROR"),
        ({"state": "ENABLED", "variants": {"a": "old"}, "targeting": {"if": [True, "b"]}}, "GENERAL"),
        ({"state": "ENABLED", "variants": {"a": "unheard"}, "defaultVariant": "a"}, "GENERAL"),
        ({"state": "ENABLED", "variants": {"a": 5}, "defaultVariant": "a"}, "TYPE_MISMATCH"),
    ],
)
def test_a_definition_that_fails_gives_the_callers_default_and_its_kind_of_failure(client, flags, stored, code):
    flags.put("theme", stored)
    eventually(lambda: client.get_string_details("theme", "mine").reason == "ERROR")
    details = client.get_string_details("theme", "mine")
    assert (details.value, details.variant, details.error_code) == ("mine", None, code)
    assert details.error_message


# --- events ---


def test_changes_are_told_with_the_keys_of_flags(client, heard):
    Features.theme.set("old")
    eventually(lambda: ("PROVIDER_CONFIGURATION_CHANGED", ["theme"]) in heard)
    Features.limit.set(50)
    eventually(lambda: ("PROVIDER_CONFIGURATION_CHANGED", ["limit"]) in heard)
    Features.share_rules({"pro": {"===": [{"var": "plan"}, "pro"]}})
    names = sorted(flag.name for flag in Features)
    eventually(lambda: ("PROVIDER_CONFIGURATION_CHANGED", names) in heard)


def test_what_was_there_from_the_start_is_no_change(flags, heard):
    Features.theme.set("new")
    connections.close_all()  # the copy is begun by the provider
    api.set_provider_and_wait(NatsKVProvider())
    Features.limit.set(50)
    eventually(lambda: ("PROVIDER_CONFIGURATION_CHANGED", ["limit"]) in heard)
    assert ("PROVIDER_CONFIGURATION_CHANGED", ["theme"]) not in heard


def test_a_provider_that_was_shut_down_tells_nothing(flags):
    told = []
    provider = NatsKVProvider()
    provider.attach(lambda *event: told.append(event))
    provider.initialize(EvaluationContext())
    provider.shutdown()
    Features.theme.set("new")
    eventually(lambda: Features.theme.value() == "new")
    signals.dispatcher.send(config_changed, Features, {"old": None, "new": None, "changed": ("theme",)})
    eventually(lambda: signals.dispatcher.waiting() == 0)
    assert told == []


def test_it_is_stale_while_the_server_is_away_and_ready_again(make_server, settings, heard):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"WAIT": 30}}}
    Features.theme.set("new")
    api.set_provider_and_wait(NatsKVProvider())
    client = api.get_client()
    eventually(lambda: client.get_string_value("theme", "x") == "new")
    server.stop()
    eventually(lambda: client.get_provider_status() is ProviderStatus.STALE)
    assert client.get_string_details("theme", "x").reason == "STATIC"
    server.restart()
    eventually(lambda: client.get_provider_status() is ProviderStatus.READY)
    insist(Features.theme.set, "old")  # on another connection, which comes back by itself too
    eventually(lambda: client.get_string_value("theme", "x") == "old")
    ready, stale = "PROVIDER_READY", "PROVIDER_STALE"
    eventually(lambda: [name for name, _ in heard if name in (ready, stale)][-3:] == [ready, stale, ready])
    assert "PROVIDER_ERROR" not in [name for name, _ in heard]


@pytest.mark.parametrize("stored", [False, True])
def test_a_server_that_is_down_at_the_start_is_an_error_and_then_ready(make_server, settings, heard, stored):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    if stored:
        Features.theme.set("new")
    server.stop()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"WAIT": 30}}}  # a new connection
    with pytest.raises(ProviderNotReadyError, match="cannot be read"):
        api.set_provider_and_wait(NatsKVProvider())
    client = api.get_client()
    assert client.get_provider_status() is ProviderStatus.ERROR
    details = client.get_string_details("theme", "mine")
    assert (details.value, details.reason, details.error_code) == ("mine", "ERROR", ErrorCode.PROVIDER_NOT_READY)
    server.restart()
    expected = ("new", "STATIC") if stored else ("old", "DEFAULT")

    def answered():
        details = client.get_string_details("theme", "mine")
        return (details.value, details.reason) == expected

    eventually(answered)
    eventually(lambda: client.get_provider_status() is ProviderStatus.READY)
    eventually(lambda: {"PROVIDER_ERROR", "PROVIDER_READY"} <= {name for name, _ in heard})
