"""Overrides of flags: in this context, in every one, around functions and classes of tests; never in the store."""

from __future__ import annotations

import asyncio
import sys
import threading
import unittest

import pytest
from django.test import SimpleTestCase

from django_natskv import registry
from django_natskv.exceptions import UsageError
from django_natskv.registry import _views, rules as r
from django_natskv.testing import override_config, override_flag
from tests.flag_classes import Features
from tests.registry_classes import ShopConfig


def elsewhere():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(Features.theme.value()))
    thread.start()
    thread.join(10)
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


def test_an_override_everywhere_that_begins_while_another_thread_asks_holds(flags, monkeypatch):
    real, override = _views.overrides_everywhere, override_flag(Features.theme, "new", everywhere=True)
    other = threading.Thread(target=override.__enter__)

    def begin_after(of):
        found = real(of)
        if other.ident is None and sys._getframe(1).f_locals["self"] is Features.theme:
            other.start()
            other.join(10)
        return found

    Features.limit.set(50)  # or there is no bucket, and nothing to be read once
    assert registry.wait_ready(5)
    monkeypatch.setattr(_views, "overrides_everywhere", begin_after)
    try:
        seen = [Features.theme.value() for _ in range(3)][1:]
    finally:
        override.__exit__(None, None, None)
    assert (seen, Features.theme.value()) == (["new", "new"], "old")


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
