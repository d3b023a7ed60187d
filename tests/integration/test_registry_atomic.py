"""Several objects at once, all or nothing: what is gathered in a block, and what its end does."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from django_natskv import connections, registry
from django_natskv.exceptions import BucketNotFound, JetStreamApiError, UsageError
from django_natskv.registry import _declaring
from tests.fix_registry import set_to
from tests.fix_servers import takes_several_as_one
from tests.registry_classes import BUCKET, Carrier, Limits, ShopConfig, Zone

KEY = "shop.ShopConfig"


@pytest.fixture(autouse=True)
def _a_server_that_can(request: pytest.FixtureRequest) -> None:
    if not takes_several_as_one() and "any_server" not in request.fixturenames:
        pytest.skip("nats-server 2.11 cannot; what it says then is tested on any_server")


@pytest.fixture(params=["with", "async with"])
def block(request: pytest.FixtureRequest) -> Any:
    """Run a function, or a coroutine function, in a block."""

    def plain(work: Any) -> Any:
        with registry.atomic():
            return work()

    def awaited(work: Any) -> Any:
        async def main() -> Any:
            async with registry.atomic():
                return await asyncio.to_thread(work)  # the context goes with it

        return asyncio.run(main())

    return plain if request.param == "with" else awaited


def test_saves_and_deletes_of_a_block_are_one_moment(shelf, block):
    Carrier.objects.create(code="old")
    Carrier.objects.create(code="kept", name="before")
    base = shelf.bucket.get("shop.Carrier.kept").revision
    seen = []

    def work() -> None:
        cfg = ShopConfig.objects.get()
        cfg.banner = "Sale"
        cfg.save(actor="ann", comment="all")
        Carrier.objects.create(code="new", actor="ann")
        Carrier.objects.get(pk="old").delete(actor="ann")
        Carrier.objects.update("kept", set_to(name="after"))
        Carrier.objects.update("kept", set_to(price=3))
        assert Carrier.objects.get_or_create(code="new")[1] is False
        assert shelf.bucket.get(KEY) is None
        assert sorted(one.code for one in Carrier.objects.all()) == ["kept", "old"]
        assert ShopConfig.current.banner == ""
        seen.append(cfg)
        assert cfg.revision == 0

    block(work)
    revisions = [shelf.bucket.get(key).revision for key in (KEY, "shop.Carrier.new", "shop.Carrier.kept")]
    assert revisions == [base + 1, base + 2, base + 4]
    assert seen[0].revision == base + 1
    assert ShopConfig.current.banner == "Sale"
    assert {one.code: (one.name, one.price) for one in Carrier.objects.all()} == {
        "kept": ("after", 3),
        "new": ("", None),
    }
    assert shelf.bucket.get("shop.Carrier.new").headers == {"Natskv-Actor": "ann"}
    assert [(one.actor, one.operation) for one in Carrier.history("old")] == [("", "put"), ("ann", "delete")]
    seen[0].banner = "Later"
    seen[0].save()


def test_one_conflict_writes_nothing_and_has_its_object(shelf, block):
    cfg = ShopConfig.objects.get()
    cfg.save()
    cfg.banner = "mine"
    shelf.put(KEY, {"banner": "theirs"})

    def work() -> None:
        Carrier.objects.create(code="new")
        cfg.save()

    with pytest.raises(registry.Conflict) as caught:
        block(work)
    conflict = caught.value
    assert (conflict.base.banner, conflict.mine.banner, conflict.theirs.banner) == ("", "mine", "theirs")
    assert conflict.key == KEY
    assert shelf.read("shop.Carrier.new") is None
    with pytest.raises(registry.Conflict):
        block(lambda: (Carrier.objects.create(code="new"), cfg.delete()))
    assert shelf.read("shop.Carrier.new") is None


def test_a_block_that_raises_or_is_not_valid_writes_nothing(shelf, block):
    def fails() -> None:
        Carrier.objects.create(code="new")
        raise ZeroDivisionError

    def wrong() -> None:
        Carrier.objects.create(code="new")
        ShopConfig.objects.update(set_to(limit=1000))

    with pytest.raises(ZeroDivisionError):
        block(fails)
    with pytest.raises(ValidationError):
        block(wrong)
    block(lambda: None)
    assert not shelf.exists
    Carrier.objects.create(code="new")  # the block is over
    assert shelf.read("shop.Carrier.new") == {}


def test_blocks_inside_one_another_are_one(shelf):
    with registry.atomic():
        Carrier.objects.create(code="a")
        with registry.atomic():
            Carrier.objects.create(code="b")
        assert not shelf.exists
    assert [one.code for one in Carrier.objects.all()] == ["a", "b"]

    def failing_inside() -> None:
        with contextlib.suppress(ZeroDivisionError), registry.atomic():
            raise ZeroDivisionError

    with pytest.raises(UsageError, match="both are one"):
        together(lambda: Carrier.objects.create(code="c"), failing_inside)
    assert [one.code for one in Carrier.objects.all()] == ["a", "b"]


def together(*works: Any) -> None:
    with registry.atomic():
        for work in works:
            work()


def test_what_cannot_go_together_is_told(shelf, monkeypatch):
    class Elsewhere(registry.Config):
        class Meta:
            bucket = f"{BUCKET}-2"
            app_label = "shop"

    _declaring.declared.remove(Elsewhere)
    with pytest.raises(UsageError, match="one bucket"):
        together(lambda: Carrier.objects.create(code="a"), lambda: Elsewhere.objects.update(lambda _: None))
    one, other = ShopConfig.objects.get(), ShopConfig.objects.get()
    with pytest.raises(UsageError, match="twice"):
        together(one.save, other.save)
    assert not shelf.exists
    for cls in (Carrier, Zone):
        monkeypatch.setattr(cls, "_declaration", replace(cls._declaration, create=cls is Zone))
    with pytest.raises(BucketNotFound, match="natskv_bucket sync"):
        together(lambda: Zone.objects.create(number=1), lambda: Carrier.objects.create(code="a"))
    with registry.atomic():
        Zone.objects.create(number=1)
        Zone.objects.create(number=2)
    assert len(Zone.objects.all()) == 2


def test_one_object_may_be_changed_more_than_once(shelf):
    cfg = ShopConfig.objects.get()
    with registry.atomic():
        cfg.banner = "one"
        cfg.save(update_fields=["banner"])
        cfg.limit = 5
        cfg.open = False
        cfg.save(update_fields=["limit"])
        new = Carrier(code="a")
        new.save()
        assert new.delete() == (1, {"shop.Carrier": 1})
        assert new.delete() == (0, {})
    assert shelf.read(KEY) == {"banner": "one", "limit": 5}
    assert (cfg.open, cfg.revision) == (False, shelf.bucket.get(KEY).revision)
    assert shelf.bucket.history("shop.Carrier.a") == []
    cfg.save()
    assert shelf.read(KEY) == {"banner": "one", "limit": 5, "open": False}
    with registry.atomic():
        cfg.save()
        cfg.delete()
        with pytest.raises(Carrier.DoesNotExist):
            Carrier.objects.update("a", set_to(name="x"))
    assert shelf.read(KEY) is None


def test_what_is_made_and_deleted_in_one_block_never_was_and_others_are_left_alone(shelf):
    told: list[Any] = []

    def note(instance: Any, **_: Any) -> None:
        told.append(instance.code)

    registry.post_save.connect(note, sender=Carrier)
    try:
        with registry.atomic():
            Carrier.objects.create(code="a")
            brief = Carrier.objects.create(code="b")
            assert Carrier(code="a").delete() == (0, {})
            assert brief.delete() == (1, {"shop.Carrier": 1})
    finally:
        registry.post_save.disconnect(note, sender=Carrier)
    assert (shelf.read("shop.Carrier.a"), shelf.bucket.history("shop.Carrier.b"), told) == ({}, [], ["a"])


def test_signals_after_a_save_are_sent_after_the_end(shelf):
    told: list[Any] = []

    def before(sender: Any, **_: Any) -> None:
        told.append(("before", sender))

    def after(sender: Any, **_: Any) -> None:
        told.append(("after", sender, len(shelf.bucket.keys())))

    registry.pre_save.connect(before)
    registry.post_save.connect(after)
    try:
        with registry.atomic():
            Carrier.objects.create(code="a")
            ShopConfig.objects.update(set_to(limit=1))
            assert told == [("before", Carrier), ("before", ShopConfig)]
    finally:
        registry.pre_save.disconnect(before)
        registry.post_save.disconnect(after)
    assert told[2:] == [("after", Carrier, 2), ("after", ShopConfig, 2)]


def test_a_receiver_that_fails_after_the_end_keeps_no_other_from_being_told(shelf):
    told: list[Any] = []

    def fail(sender: Any, **_: Any) -> None:
        told.append(sender)
        raise ZeroDivisionError(sender.__name__)

    registry.post_save.connect(fail)
    try:
        with pytest.raises(ZeroDivisionError, match="Carrier"), registry.atomic():  # noqa: PT012 - its end does
            Carrier.objects.create(code="a")
            ShopConfig.objects.update(set_to(limit=1))
    finally:
        registry.post_save.disconnect(fail)
    assert told == [Carrier, ShopConfig]
    assert (shelf.read("shop.Carrier.a"), shelf.read(KEY)) == ({}, {"limit": 1})


def test_a_pinned_moment_shows_what_the_block_wrote(shelf):
    with registry.snapshot():
        assert ShopConfig.current.banner == ""
        with registry.atomic():
            ShopConfig.objects.update(set_to(banner="Sale"))
            Carrier.objects.create(code="a")
        assert ShopConfig.current.banner == "Sale"
        assert [one.code for one in Carrier.objects.all()] == ["a"]


def test_a_task_that_outlives_the_block_cannot_write_into_it(shelf):
    async def main() -> None:
        over = asyncio.Event()

        async def late() -> None:
            await over.wait()
            await Carrier.objects.acreate(code="late")

        async with registry.atomic():
            await Carrier.objects.acreate(code="a")
            await Limits.objects.aupdate(set_to(seconds=1))
            task = asyncio.create_task(late())
        over.set()
        with pytest.raises(UsageError, match="over"):
            await task

    asyncio.run(main())
    assert shelf.read("shop.Carrier.a") == {}


def test_an_older_server_says_so_and_takes_one_object(any_server, settings):
    settings.NATSKV = {"default": {"SERVERS": [any_server.url]}}
    with contextlib.suppress(BucketNotFound):
        connections["default"].kv().delete_bucket(BUCKET)
    with registry.atomic():
        Carrier.objects.create(code="one")
    try:
        with registry.atomic():
            Carrier.objects.create(code="two")
            Carrier.objects.create(code="three")
        there = 3
    except JetStreamApiError as error:
        assert "2.12" in str(error)  # noqa: PT017
        there = 1
    assert len(Carrier.objects.strong().all()) == there
    assert there == (1 if "2.11" in json.dumps(any_server.ask("varz")["version"]) else 3)
