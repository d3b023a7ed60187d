"""Overrides of flags: in this context, in every one, around functions and classes of tests; never in the store."""

from __future__ import annotations

import asyncio
import threading
import unittest

import pytest
from django.test import SimpleTestCase

from django_natskv import registry
from django_natskv.exceptions import UsageError
from django_natskv.registry import _views, rules as r
from django_natskv.testing import override_config, override_flag
from tests.fix_waiting import eventually
from tests.flag_classes import Features
from tests.registry_classes import ShopConfig


def elsewhere():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(Features.theme.value()))
    thread.start()
    thread.join(30)
    return seen[0]


def test_an_override_holds_here_until_its_end_and_nowhere_else(flags):
    Features.theme.set("new", when=r.users(7))
    with override_flag(Features.theme, "new") as flag:
        assert flag is Features.theme
        details = Features.theme.details(key=8)
        assert (details.value, details.variant, details.reason) == ("new", "new", "STATIC")
        assert elsewhere() == "old"
        with override_flag("theme", "old"):
            assert Features.theme.value(key=7) == "old"
        assert Features.theme.value(key=8) == "new"
        with registry.snapshot():
            assert Features.theme.value(key=8) == "new"
    assert Features.theme.value(key=8) == "old"
    assert len(Features.theme.history()) == 1


@pytest.mark.parametrize("everywhere", [False, True])
def test_an_override_holds_for_what_was_asked_before_it_at_the_same_pinned_moment(flags, everywhere):
    with registry.snapshot():
        assert [Features.theme.value(), Features.theme.details().value] == ["old", "old"]
        with override_flag(Features.theme, "new", everywhere=everywhere):
            assert [Features.theme.value(), Features.theme.details().value] == ["new", "new"]
        assert [Features.theme.value(), Features.theme.details().value] == ["old", "old"]


def test_an_override_needs_no_server():
    with override_flag(Features.new_checkout, True), override_flag(Features.layout, {"columns": 7}):
        assert Features.new_checkout.on() is True
        assert Features.layout.value() == {"columns": 7}
        assert Features.layout.details().variant is None

        async def ask():
            return await Features.new_checkout.aon()

        assert asyncio.run(ask()) is True


def test_an_override_everywhere_holds_in_other_threads(flags):
    assert elsewhere() == "old"
    with override_flag(Features.theme, "new", everywhere=True):
        assert elsewhere() == Features.theme.value() == "new"
    assert elsewhere() == Features.theme.value() == "old"


def test_an_override_everywhere_that_begins_while_a_flag_is_looked_up_holds(flags, monkeypatch):
    override = override_flag(Features.theme, "new", everywhere=True)
    told = _views.overrides_everywhere

    def and_then_it_begins(of):
        found = told(of)
        monkeypatch.setattr(_views, "overrides_everywhere", told)
        override.__enter__()
        return found

    revision = flags.put("theme", {"state": "ENABLED", "variants": {"old": "old"}, "defaultVariant": "old"})
    eventually(lambda: Features.theme.details().revision == revision)  # nothing more is to come that is looked up
    Features.theme.slow_down()
    monkeypatch.setattr(_views, "overrides_everywhere", and_then_it_begins)
    try:
        assert Features.theme.value() == "old"
        assert Features.theme.value() == "new"
    finally:
        override.__exit__(None, None, None)
    assert Features.theme.value() == "old"


def test_overrides_everywhere_may_end_in_any_order(flags):
    first, second = (override_flag(Features.limit, value, everywhere=True) for value in (50, 60))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert Features.limit.value() == 60
    second.__exit__(None, None, None)
    assert Features.limit.value() == 10


def test_an_override_gives_the_type_of_the_flag():
    with override_flag(Features.rate, 3):
        assert (Features.rate.value(), type(Features.rate.value())) == (3.0, float)


@override_flag(Features.new_checkout, True)
@override_config(ShopConfig, banner="x")
def test_it_decorates_a_function():
    assert Features.new_checkout.on() is True


@override_flag(Features.new_checkout, True)
async def test_it_decorates_a_coroutine_function():
    assert await Features.new_checkout.aon() is True


@override_flag(Features.new_checkout, True)
class TestPlain:
    def test_it_decorates_a_class(self):
        assert Features.new_checkout.on() is True


@override_flag(Features.new_checkout, True)
class CaseOfDjango(SimpleTestCase):
    def setUp(self):
        assert Features.new_checkout.on() is True

    def test_it_decorates_a_case(self):
        assert Features.new_checkout.on() is True


@override_flag(Features.new_checkout, True)
class CaseAwaited(unittest.IsolatedAsyncioTestCase):
    async def test_it_decorates_an_awaited_case(self):
        assert await Features.new_checkout.aon() is True


def test_what_cannot_be_overridden_is_refused():
    with pytest.raises(UsageError, match="blue"):
        override_flag(Features.theme, "blue")
    with pytest.raises(UsageError, match="boolean"):
        override_flag(Features.new_checkout, 1)
    with pytest.raises(TypeError, match="override_flag"):
        override_flag(Features, True)
    with pytest.raises(registry.UnknownFlag):
        override_flag("nobody", True)


def test_a_fixture_overrides_for_one_test(natskv_flags):
    natskv_flags(Features.new_checkout, True)
    natskv_flags("theme", "new")
    assert (Features.new_checkout.on(), Features.theme.value()) == (True, "new")
