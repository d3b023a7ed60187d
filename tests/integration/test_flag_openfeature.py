"""The OpenFeature provider: types, reasons, errors and events, on a real server."""

from __future__ import annotations

import asyncio

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode

from django_natskv.contrib.openfeature import NatsKVProvider
from django_natskv.registry import rules as r
from tests.fix_waiting import eventually
from tests.flag_classes import Features


@pytest.fixture
def client(flags):
    api.set_provider(NatsKVProvider())
    yield api.get_client()
    api.shutdown()


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


def test_details_say_why(client):
    Features.theme.set("new", when=r.users(7))
    details = client.get_string_details("theme", "x", EvaluationContext("7"))
    assert (details.value, details.variant, details.reason) == ("new", "new", "TARGETING_MATCH")
    assert details.flag_metadata == {"description": "how it looks"}
    Features.theme.define({"state": "DISABLED", "variants": {"new": "new"}, "defaultVariant": "new"})
    details = client.get_string_details("theme", "x")
    assert (details.value, details.reason, details.error_code) == ("x", "DISABLED", None)


def test_what_cannot_be_resolved_gives_the_callers_default(client, flags):
    for details, code in (
        (client.get_boolean_details("nobody", True), ErrorCode.FLAG_NOT_FOUND),
        (client.get_integer_details("kill_switch", 3), ErrorCode.TYPE_MISMATCH),
        (client.get_float_details("kill_switch", 3.0), ErrorCode.TYPE_MISMATCH),
    ):
        assert (details.error_code, details.reason) == (code, "ERROR")
        assert details.value == 3 or details.value is True
    flags.put("theme", b"{")
    eventually(lambda: client.get_string_details("theme", "x").error_code == ErrorCode.GENERAL)
    assert client.get_string_value("theme", "x") == "x"


def test_changes_are_told_with_the_keys_of_flags(client):
    told = []
    Features.theme.set("old")
    assert Features.theme.value() == "old"
    client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, lambda event: told.append(event.flags_changed))
    Features.theme.set("new")
    eventually(lambda: ["theme"] in told)
