"""What is told of writes, here and in every process; and many writers at once."""

from __future__ import annotations

import json
import threading
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError

from django_natskv import registry
from tests.fix_registry import set_to
from tests.fix_waiting import eventually
from tests.registry_classes import Carrier, ShopConfig

KEY = "shop.ShopConfig"


# --- signals ---


@pytest.fixture
def heard():
    """What the signals of the registry told: (name, arguments)."""
    all_of_it = []
    receivers = []
    for name in ("pre_save", "post_save", "pre_delete", "post_delete", "config_changed"):

        def receive(sender, signal, name=name, **arguments):
            all_of_it.append((name, {"sender": sender, "thread": threading.current_thread().name, **arguments}))

        receivers.append((getattr(registry, name), receive))
        getattr(registry, name).connect(receive)
    yield all_of_it
    for signal, receive in receivers:
        signal.disconnect(receive)


def test_saves_and_deletes_are_told_where_they_happen(shelf, heard, do):
    one = do(Carrier.objects.create, code="dhl", actor="ann", comment="new")
    do(one.save, update_fields=["name"])
    do(one.delete, actor="bob")
    told = [(name, arguments) for name, arguments in heard if name != "config_changed"]
    assert [name for name, _ in told] == ["pre_save", "post_save"] * 2 + ["pre_delete", "post_delete"]
    first = told[1][1]
    assert (first["sender"], first["instance"], first["created"], first["actor"]) == (Carrier, one, True, "ann")
    assert (told[3][1]["update_fields"], told[3][1]["created"]) == (("name",), False)
    assert told[5][1]["actor"] == "bob"


def test_an_update_tells_whether_it_made_something(shelf, heard, do):
    for _ in range(2):
        do(ShopConfig.objects.update, set_to(limit=3), actor="ann", comment="why")
        do(Carrier.objects.get_or_create, code="dhl")
        do(Carrier.objects.update, "dhl", set_to(name="D"))
    told = [(arguments["sender"], arguments["created"]) for name, arguments in heard if name == "post_save"]
    made = [(ShopConfig, True), (Carrier, True), (Carrier, False)]
    assert told == [*made, (ShopConfig, False), (Carrier, False)]
    first = heard[0][1]
    assert (first["update_fields"], first["actor"], first["comment"]) == (None, "ann", "why")


def test_a_receiver_of_pre_save_can_change_and_refuse(shelf, do):
    def receive(sender, instance, **_):
        if instance.banner == "no":
            raise ValidationError("no")
        instance.banner = instance.banner.upper()

    registry.pre_save.connect(receive, sender=ShopConfig)
    try:
        do(ShopConfig.objects.update, set_to(banner="yes"))
        assert shelf.read(KEY) == {"banner": "YES"}
        with pytest.raises(ValidationError):
            do(ShopConfig.objects.update, set_to(banner="no"))
    finally:
        registry.pre_save.disconnect(receive, sender=ShopConfig)


def test_changes_are_told_with_both_sides(shelf, heard):
    def changes():
        return [arguments for name, arguments in heard if name == "config_changed"]

    registry.wait_ready(0.1)
    ShopConfig.objects.update(set_to(limit=3), actor="änn", comment="less")
    registry.wait_ready(30)
    eventually(lambda: ShopConfig.current.limit == 3)
    heard.clear()
    done = ShopConfig.objects.update(set_to(limit=4, banner="x"), actor="änn", comment="more")
    # The change before may be told after it was seen, or not at all where the first replay brought it.
    [told] = eventually(lambda: [one for one in changes() if one["new"].limit == 4])
    assert (told["sender"], told["old"].limit, told["new"].limit) == (ShopConfig, 3, 4)
    assert set(told["changed"]) == {"limit", "banner"}
    assert (told["revision"], told["actor"], told["comment"]) == (done.revision, "änn", "more")
    assert told["thread"] == "natskv-signals"
    heard.clear()
    Carrier.objects.create(code="dhl").delete()
    made, gone = eventually(lambda: changes() if len(changes()) == 2 else [])
    assert (made["old"], made["new"].pk, "name" in made["changed"]) == (None, "dhl", True)
    assert (gone["old"].pk, gone["new"]) == ("dhl", None)
    heard.clear()
    done.delete()
    [told] = eventually(changes)
    assert (told["old"].limit, told["new"].limit) == (4, 10)


def test_changes_are_told_in_every_process(shelf, program, settings):
    ShopConfig.objects.update(set_to(limit=3))
    code = """
from django_natskv import registry
from tests.registry_classes import ShopConfig
def told(sender, old, new, changed, revision, actor, comment, **_):
    print(json.dumps([sender.__name__, old.limit, new.limit, changed, revision, actor, comment]), flush=True)
registry.config_changed.connect(told)
assert registry.wait_ready(30)
print(json.dumps(ShopConfig.current.limit), flush=True)
sys.stdin.readline()
"""
    programs = [program(code, settings.NATSKV) for _ in range(2)]
    assert [one.read() for one in programs] == [3, 3]
    done = ShopConfig.objects.update(set_to(limit=4), actor="ann", comment="why")
    assert [one.read() for one in programs] == [["ShopConfig", 3, 4, ["limit"], done.revision, "ann", "why"]] * 2


# --- many writers ---

WRITER = """
from tests.registry_classes import ShopConfig
first, count, field = json.loads(sys.stdin.readline())
def add(number):
    if field == "tags":
        return lambda cfg: cfg.tags.append(number)
    return lambda cfg: setattr(cfg, field, getattr(cfg, field) + 1)
if os.environ["TEST_FACE"] == "awaited":
    import asyncio
    async def main():
        await asyncio.gather(*(ShopConfig.objects.aupdate(add(first + n)) for n in range(count)))
    asyncio.run(main())
else:
    for n in range(count):
        ShopConfig.objects.update(add(first + n))
print(json.dumps("done"), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("face", ["plain", "awaited"])  # all of the awaited ones at once
@pytest.mark.parametrize("other", ["tags", "free_shipping_from"])
def test_two_writers_of_one_field_or_of_two_lose_nothing(shelf, program, settings, face, other):
    count = 500
    programs = [program(WRITER, settings.NATSKV, TEST_FACE=face) for _ in range(2)]
    for number, (one, field) in enumerate(zip(programs, ("tags", other), strict=True)):
        one.tell(json.dumps([number * count, count, field]))
    for one in programs:
        out, err = one.finish(110)
        assert out == ["done"], err
    found = shelf.read(KEY)
    assert sorted(found["tags"]) == list(range(2 * count if other == "tags" else count))
    assert Decimal(found.get("free_shipping_from", 50)) == 50 + (0 if other == "tags" else count)
