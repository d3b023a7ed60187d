"""Overrides: in this context, in every one, around functions and classes of tests; never in the store."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import unittest

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.test import SimpleTestCase

from django_natskv import registry
from django_natskv.registry import _views
from django_natskv.testing import override_config
from tests.fix_waiting import eventually
from tests.registry_classes import Carrier, ShopConfig, SiteConfig

KEY = "shop.ShopConfig"


def elsewhere():
    """Return the banner and the limit that another thread reads."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append((ShopConfig.current.banner, ShopConfig.current.limit)))
    thread.start()
    thread.join(30)
    return seen[0]


def test_an_override_holds_here_until_its_end_and_nowhere_else(shelf):
    shelf.put(KEY, {"banner": "stored", "limit": 5})
    eventually(lambda: ShopConfig.current.banner == "stored")
    with override_config(ShopConfig, banner="x") as cfg:
        assert cfg is ShopConfig.current
        assert ShopConfig.current is ShopConfig.current
        assert (ShopConfig.current.banner, ShopConfig.current.limit) == ("x", 5)
        assert elsewhere() == ("stored", 5)
        assert ShopConfig.objects.get().banner == "stored"
        with pytest.raises(AttributeError):
            ShopConfig.current.banner = "y"
    assert ShopConfig.current.banner == "stored"
    assert shelf.read(KEY) == {"banner": "stored", "limit": 5}
    assert ShopConfig.history()[1:] == []


def test_what_is_not_overridden_follows_the_store(shelf):
    with override_config(ShopConfig, banner="x"):
        shelf.put(KEY, {"banner": "stored", "limit": 5})
        eventually(lambda: ShopConfig.current.limit == 5)
        assert ShopConfig.current.banner == "x"


def test_overrides_nest_and_the_innermost_wins(shelf):
    with override_config(ShopConfig, banner="outer", limit=1):
        with override_config(ShopConfig, banner="inner"):
            assert (ShopConfig.current.banner, ShopConfig.current.limit) == ("inner", 1)
        assert (ShopConfig.current.banner, ShopConfig.current.limit) == ("outer", 1)


def test_one_override_is_used_by_several_threads_at_once(shelf):
    override, both, seen = override_config(ShopConfig, banner="x"), threading.Barrier(2), []

    def use():
        with override:
            both.wait(30)
            seen.append(ShopConfig.current.banner)
            both.wait(30)
        seen.append(ShopConfig.current.banner)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == ["", "", "x", "x"]


def test_a_generator_that_ends_in_another_context_ends_its_override(shelf):
    async def fixture():
        with override_config(ShopConfig, banner="x"):
            yield ShopConfig.current.banner

    async def use():
        made = fixture()
        seen = await asyncio.create_task(anext(made))
        await asyncio.create_task(made.aclose())
        return seen, ShopConfig.current.banner

    assert asyncio.run(use()) == ("x", "")


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("around", [contextlib.nullcontext, registry.snapshot])
def test_overrides_may_end_in_any_order(shelf, everywhere, around):
    first, second, third = (override_config(ShopConfig, everywhere=everywhere, banner=each) for each in "aba")
    for order, expected in (
        ((second, third, first), "aa"),
        ((third, first, second), "bb"),
        ((first, third, second), "ab"),
    ):
        with around():
            for each in (first, second, third):
                each.__enter__()
            for each, left in zip(order, (*expected, ""), strict=True):
                each.__exit__(None, None, None)
                assert ShopConfig.current.banner == left
        assert ShopConfig.current.banner == ""


def test_overrides_and_pinned_moments_may_end_in_any_order(shelf):
    shelf.put(KEY, {"limit": 1})
    eventually(lambda: ShopConfig.current.limit == 1)
    for around in (True, False):
        override, pinned = override_config(ShopConfig, banner="x"), registry.snapshot()
        first, second = (override, pinned) if around else (pinned, override)
        first.__enter__()
        second.__enter__()
        assert ShopConfig.current.banner == "x"
        first.__exit__(None, None, None)
        assert ShopConfig.current.banner == ("" if around else "x")
        second.__exit__(None, None, None)
        assert _views.view.get() is None
    assert ShopConfig.current.banner == ""


def test_a_pinned_moment_that_a_generator_ends_in_another_context_ends(shelf):
    async def pinned():
        with registry.snapshot():
            yield

    async def use():
        made = pinned()
        await asyncio.create_task(anext(made))
        await asyncio.create_task(made.aclose())
        with registry.snapshot():
            other = pinned()
            await anext(other)
            await other.aclose()
            return _views.current_pin()

    assert asyncio.run(use()) is not None


def test_the_snapshot_of_an_override_is_one_object_until_its_end(shelf):
    with override_config(ShopConfig, banner="x") as outer:
        with override_config(ShopConfig, limit=3), registry.snapshot():
            assert ShopConfig.current is not outer
        assert ShopConfig.current is outer
        with registry.snapshot():
            pass
        assert ShopConfig.current is outer


def test_an_override_ends_with_an_exception_too(shelf):
    with contextlib.suppress(ZeroDivisionError), override_config(ShopConfig, banner="x"):
        1 / 0  # noqa: B018
    assert ShopConfig.current.banner == ""


def test_an_override_holds_within_a_pinned_moment_and_around_one(shelf):
    with registry.snapshot(), override_config(ShopConfig, banner="x"):
        assert ShopConfig.current.banner == "x"
    with override_config(ShopConfig, banner="x"), registry.snapshot():
        assert ShopConfig.current.banner == "x"
        with override_config(ShopConfig, banner="y"):
            assert ShopConfig.current.banner == "y"
    assert ShopConfig.current.banner == ""


def test_an_override_everywhere_holds_in_other_threads(shelf):
    assert ShopConfig.current.banner == ""
    with override_config(ShopConfig, everywhere=True, banner="x"):
        assert ShopConfig.current.banner == "x"
        assert elsewhere() == ("x", 10)
        assert ShopConfig.current is ShopConfig.current
        with override_config(ShopConfig, banner="y"):
            assert (ShopConfig.current.banner, elsewhere()[0]) == ("y", "x")
    assert (ShopConfig.current.banner, elsewhere()[0]) == ("", "")


@pytest.mark.parametrize("owner", [ShopConfig, SiteConfig.for_scope(site=3)], ids=["class", "scope"])
def test_an_override_everywhere_that_begins_while_another_thread_reads_holds(shelf, monkeypatch, owner):
    reader = vars(ShopConfig)["current"] if owner is ShopConfig else owner
    real, override = _views.overrides_everywhere, override_config(owner, everywhere=True, banner="x")
    other = threading.Thread(target=override.__enter__)

    def begin_after(of):
        found = real(of)
        if other.ident is None and sys._getframe(1).f_locals["self"] is reader:
            other.start()
            other.join(30)
        return found

    owner.objects.update(lambda cfg: setattr(cfg, "limit", 3))
    monkeypatch.setattr(_views, "overrides_everywhere", begin_after)
    try:
        seen = [owner.current.banner for _ in range(3)][1:]
    finally:
        override.__exit__(None, None, None)
    assert (seen, owner.current.banner) == (["x", "x"], "")


def test_an_override_everywhere_shows_in_a_scope_that_was_read_before(shelf):
    site = SiteConfig.for_scope(site=3)
    shelf.make()
    assert registry.wait_ready(30)
    assert site.current.banner == ""
    with override_config(SiteConfig, everywhere=True, banner="x"):
        assert site.current.banner == "x"
    assert site.current.banner == ""


async def test_overrides_of_tasks_side_by_side_are_their_own(shelf):
    barrier = asyncio.Barrier(2)

    async def one(banner):
        with override_config(ShopConfig, banner=banner):
            await barrier.wait()
            seen = ShopConfig.current.banner
            in_thread = await asyncio.to_thread(lambda: ShopConfig.current.banner)
            await barrier.wait()
            return seen, in_thread

    assert list(await asyncio.gather(one("a"), one("b"))) == [("a", "a"), ("b", "b")]
    assert ShopConfig.current.banner == ""


@override_config(ShopConfig, banner="decorated")
def test_a_function_is_decorated(shelf):
    assert ShopConfig.current.banner == "decorated"


@override_config(ShopConfig, banner="decorated")
async def test_a_coroutine_function_is_decorated(shelf):
    await asyncio.sleep(0)
    assert ShopConfig.current.banner == "decorated"


@pytest.fixture
@override_config(ShopConfig, banner="fixture")
def banner(shelf):
    yield ShopConfig.current.banner
    assert ShopConfig.current.banner == "fixture"


def test_a_fixture_is_decorated(banner):
    assert (banner, ShopConfig.current.banner) == ("fixture", "fixture")


def test_an_asynchronous_generator_is_not():
    async def fixture():
        yield

    with pytest.raises(TypeError, match="cannot decorate fixture"):
        override_config(ShopConfig, banner="x")(fixture)


@override_config(ShopConfig, banner="class")
class TestOfPytest:
    def test_a_method(self, shelf):
        assert ShopConfig.current.banner == "class"
        assert self.helper() == "class"

    async def test_an_awaited_method(self, shelf):
        assert ShopConfig.current.banner == "class"

    @override_config(ShopConfig, banner="method")
    def test_a_method_of_its_own(self, shelf):
        assert ShopConfig.current.banner == "method"

    @staticmethod
    def helper():
        return ShopConfig.current.banner


@override_config(ShopConfig, banner="class")
class TestOfUnittest(SimpleTestCase):
    def setUp(self):
        self.before = ShopConfig.current.banner

    def tearDown(self):
        assert ShopConfig.current.banner == "class"

    def test_all_of_a_test(self):
        assert (self.before, ShopConfig.current.banner) == ("class", "class")

    async def test_an_awaited_test(self):
        assert ShopConfig.current.banner == "class"


@override_config(ShopConfig, banner="class")
class TestOfUnittestAwaited(unittest.IsolatedAsyncioTestCase):
    async def test_an_awaited_test(self):
        assert ShopConfig.current.banner == "class"


def test_nothing_is_left_of_the_classes_above():
    assert ShopConfig.current.banner == ""


def test_values_are_read_as_fields_read_them_and_mistakes_are_told(shelf):
    with override_config(ShopConfig, limit="7"):
        assert ShopConfig.current.limit == 7
    with pytest.raises(FieldError, match="no field 'bannner'"):
        override_config(ShopConfig, bannner="x")
    with pytest.raises(FieldError, match="cannot be overridden"):
        override_config(ShopConfig, pk="x")
    with pytest.raises(ValidationError):
        override_config(ShopConfig, limit="many")
    with pytest.raises(TypeError, match=r"registry\.Config"):
        override_config(Carrier, name="x")
