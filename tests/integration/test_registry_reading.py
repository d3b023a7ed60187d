"""Reading the registry: from memory, from the server, and when there is neither."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.http import HttpResponse
from django.template import Context, Template
from django.test import RequestFactory
from django.test.utils import override_settings

from django_natskv import connections, registry
from django_natskv.exceptions import OperationalError
from django_natskv.middleware import RegistryMiddleware
from tests.fix_local import insist
from tests.fix_waiting import aeventually, eventually
from tests.registry_classes import BUCKET, Carrier, ShopConfig, Zone

KEY = "shop.ShopConfig"


def carriers(shelf):
    shelf.put("shop.Carrier.dhl", {"name": "D", "price": 5})
    shelf.put("shop.Carrier.ups", {"name": "A", "active": False})
    shelf.put("shop.Carrier.a=2Eb", {"name": "C", "price": 7, "options": {"x": [1]}})
    shelf.put("shop.Carriers.other", {"name": "not one of them"})
    shelf.put("shop.Carrier", {"name": "nor this"})
    shelf.put("shop.Carrier.dhl.more", {"name": "nor this"})
    registry.wait_ready(30)


# --- a config ---


def test_declared_defaults_are_read_where_nothing_is_stored_and_nothing_is_made(shelf):
    assert ShopConfig.current.limit == 10
    assert ShopConfig.current.revision == 0
    assert ShopConfig.objects.get().limit == 10
    assert ShopConfig.objects.strong().get().limit == 10
    assert list(Carrier.objects.all()) == []
    assert list(Carrier.objects.strong()) == []
    assert not shelf.exists


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_stored_is_read_and_a_change_elsewhere_is_seen(shelf, begun):
    if begun:
        assert ShopConfig.current.banner == ""
    revision = shelf.put(KEY, {"banner": "a"})
    eventually(lambda: ShopConfig.current.banner == "a")
    assert ShopConfig.current.revision == revision
    shelf.put(KEY, {"banner": "b", "limit": 3})
    eventually(lambda: ShopConfig.current.banner == "b")
    assert ShopConfig.current.limit == 3
    shelf.bucket.delete(KEY)
    eventually(lambda: ShopConfig.current.banner == "")


def test_the_snapshot_is_one_object_until_it_changes(shelf):
    shelf.put(KEY, {"banner": "a"})
    eventually(lambda: ShopConfig.current.banner == "a")
    first = ShopConfig.current
    assert ShopConfig.current is first
    shelf.put("shop.Carrier.x", {})
    eventually(Carrier.objects.exists)
    assert ShopConfig.current is first  # nothing of it changed
    shelf.put(KEY, {"banner": "b"})
    eventually(lambda: ShopConfig.current is not first)
    assert first.banner == "a"


def test_the_snapshot_of_nothing_is_one_object_too(shelf):
    first = ShopConfig.current
    assert ShopConfig.current is first


def test_an_own_write_makes_one_new_object(shelf):
    registry.wait_ready(0.1)
    ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "own"))
    own = ShopConfig.current
    assert own.banner == "own"
    shelf.put("shop.Carrier.x", {})
    cache: Any = connections["default"].local_cache(BUCKET, codec="bytes")
    eventually(lambda: Carrier.objects.exists() and not cache._own)
    assert ShopConfig.current is own


def test_a_snapshot_is_neither_changed_nor_saved(shelf):
    with pytest.raises(AttributeError, match="snapshot"):
        ShopConfig.current.banner = "x"
    for refused in (ShopConfig.current.save, ShopConfig.current.delete, ShopConfig.current.refresh):
        with pytest.raises(ValueError, match="snapshot"):
            refused()


def test_a_copy_to_change_changes_nothing_else(shelf):
    shelf.put(KEY, {"tags": ["a"]})
    eventually(lambda: ShopConfig.current.tags == ["a"])
    cfg = ShopConfig.objects.get()
    cfg.tags.append("b")
    cfg.banner = "x"
    assert (ShopConfig.current.tags, ShopConfig.current.banner) == (["a"], "")
    assert ShopConfig.objects.get().tags == ["a"]


async def test_the_same_lines_work_in_a_coroutine(shelf):
    await asyncio.to_thread(shelf.put, KEY, {"banner": "a"})
    await registry.await_ready(30)
    await aeventually(lambda: ShopConfig.current.banner == "a")
    assert (await ShopConfig.objects.aget()).banner == "a"
    assert (await ShopConfig.objects.strong().aget()).banner == "a"
    assert ShopConfig.objects.get().banner == "a"


def lines(caplog):
    """What the registry has logged: connections of tests before may end meanwhile, and say so."""
    return [record.getMessage() for record in caplog.records if record.name == "django_natskv.registry"]


def test_what_is_undecodable_keeps_its_last_good_value_and_is_told_of(shelf, caplog):
    told = []

    def hear(sender, connection, bucket, key, error, **_):
        told.append((sender, connection.alias, bucket, key, error.field))

    registry.undecodable.connect(hear)
    try:
        shelf.put(KEY, {"limit": 33, "banner": "a"})
        eventually(lambda: ShopConfig.current.limit == 33)
        shelf.put(KEY, {"limit": "many", "banner": "b"})
        eventually(lambda: ShopConfig.current.banner == "b")
        assert ShopConfig.current.limit == 33
        eventually(lambda: told == [(ShopConfig, "default", BUCKET, KEY, "limit")])
        shelf.put(KEY, b"{broken")
        eventually(lambda: ShopConfig.current.undecodable == ("$",))
        assert (ShopConfig.current.limit, ShopConfig.current.banner) == (33, "b")
        eventually(lambda: told[1:] == [(ShopConfig, "default", BUCKET, KEY, None)])
        assert shelf.bucket.get(KEY).value == b"{broken"
        first, _ = lines(caplog)
        assert "many" not in first.partition("changed.")[0]
    finally:
        registry.undecodable.disconnect(hear)


# --- models ---


def test_models_are_read_by_key_filtered_ordered_and_counted(shelf):
    carriers(shelf)
    assert [one.code for one in Carrier.objects.all()] == ["ups", "a.b", "dhl"]  # Meta.ordering
    assert [one.code for one in Carrier.objects.order_by("-price")] == ["a.b", "dhl", "ups"]
    assert [one.code for one in Carrier.objects.order_by("active", "-code")] == ["ups", "dhl", "a.b"]
    assert [one.code for one in Carrier.objects.filter(active=True).exclude(price__gt=5)] == ["dhl"]
    assert Carrier.objects.get(pk="dhl").name == "D"
    assert Carrier.objects.get(code="a.b").options == {"x": [1]}
    assert Carrier.objects.get(name="A").code == "ups"
    assert Carrier.objects.get(code="dhl", active=True).code == "dhl"
    assert Carrier.objects.count() == len(Carrier.objects.all()) == 3
    assert Carrier.objects.filter(price=7).exists()
    assert not Carrier.objects.filter(price=8)
    assert [one and one.code for one in (Carrier.objects.first(), Carrier.objects.last())] == ["ups", "dhl"]
    assert Carrier.objects.filter(price=8).first() is None
    assert set(Carrier.objects.in_bulk()) == {"dhl", "ups", "a.b"}
    assert list(Carrier.objects.in_bulk(["ups", "none"])) == ["ups"]
    assert Carrier.objects.filter(price=5).values("code", "name") == [{"code": "dhl", "name": "D"}]
    assert Carrier.objects.values_list("code", flat=True) == ["ups", "a.b", "dhl"]
    assert Carrier.objects.filter(price=5).values_list("code", "price") == [("dhl", 5)]
    assert Carrier.objects.all()[0].code == "ups"
    assert [one.code for one in Carrier.objects.all()[1:]] == ["a.b", "dhl"]
    assert "Carrier object (dhl)" in repr(Carrier.objects.all())
    with pytest.raises(Carrier.DoesNotExist):
        Carrier.objects.get(pk="none")
    with pytest.raises(Carrier.DoesNotExist):
        Carrier.objects.get(name="none")
    with pytest.raises(Carrier.MultipleObjectsReturned):
        Carrier.objects.get(active=True)
    for wrong in ({"nothing": 1}, {"name__like": 1}):
        with pytest.raises(FieldError):
            Carrier.objects.filter(**wrong)
    with pytest.raises(FieldError):
        Carrier.objects.order_by("?")


@pytest.mark.parametrize("strong", [False, True])
async def test_every_way_to_read_models_can_be_awaited(shelf, strong):
    await asyncio.to_thread(carriers, shelf)
    objects = Carrier.objects.strong() if strong else Carrier.objects
    await aeventually(lambda: Carrier.objects.count() == 3)
    assert (await objects.aget(pk="dhl")).name == "D"
    assert [one.code async for one in objects.all()] == ["ups", "a.b", "dhl"]
    assert await objects.acount() == 3
    assert await objects.filter(price=7).aexists()
    assert [one and one.code for one in (await objects.afirst(), await objects.alast())] == ["ups", "dhl"]
    assert set(await objects.ain_bulk(["ups"])) == {"ups"}
    assert await objects.avalues_list("code", flat=True) == ["ups", "a.b", "dhl"]
    assert (await objects.avalues("code"))[0] == {"code": "ups"}


def test_a_strong_read_asks_the_server(shelf):
    carriers(shelf)
    connections["default"].local_cache(BUCKET, codec="bytes").close()
    assert Carrier.objects.strong().get(pk="dhl").name == "D"
    assert Carrier.objects.filter(price=7).strong().get().code == "a.b"
    assert registry.status()[("default", BUCKET)].state == "stopped"


def test_a_key_that_holds_no_primary_key_is_left_out(shelf, caplog):
    shelf.put("shop.Zone.7", {"label": "a"})
    shelf.put("shop.Zone.seven", {"label": "b"})
    shelf.put("shop.Zone.=FF", {"label": "c"})
    shelf.put("shop.Zone.07", {"label": "d"})
    registry.wait_ready(30)
    assert [one.pk for one in Zone.objects.all()] == [7]
    assert [one.pk for one in Zone.objects.strong()] == [7]
    assert len(lines(caplog)) == 3
    shelf.put("shop.Zone.8", {})
    eventually(lambda: Zone.objects.count() == 2)
    assert len(lines(caplog)) == 3  # not once a change


def test_what_cannot_be_read_is_counted_until_it_can_or_is_gone(shelf):
    def counted():
        assert Carrier.objects.count() < 4
        assert ShopConfig.current.limit == 10
        return registry.status()[("default", BUCKET)].undecodable

    shelf.put(KEY, {"limit": "many"})
    shelf.put("shop.Carrier.dhl", {"price": "much", "active": "maybe"})
    shelf.put("shop.Carrier.ups", b"{broken")
    shelf.put("shop.Carrier.fine", {})
    registry.wait_ready(30)
    eventually(lambda: counted() == 3)
    shelf.put("shop.Carrier.dhl", {"price": 5})
    eventually(lambda: counted() == 2)
    shelf.bucket.delete("shop.Carrier.ups")
    eventually(lambda: counted() == 1)
    shelf.bucket.delete(KEY)
    eventually(lambda: counted() == 0)


def test_copies_of_models_are_the_readers_own(shelf):
    carriers(shelf)
    one = Carrier.objects.get(pk="a.b")
    one.options["x"].append(2)
    one.name = "changed"
    for again in (Carrier.objects.get(pk="a.b"), Carrier.objects.get(name="C"), Carrier.objects.in_bulk()["a.b"]):
        assert again.options == {"x": [1]}
    rows = Carrier.objects.filter(pk="a.b").values_list("options", flat=True)
    rows[0]["x"].append(3)
    assert Carrier.objects.get(pk="a.b").options == {"x": [1]}


# --- one moment ---


def test_a_snapshot_lets_no_two_reads_disagree(shelf):
    carriers(shelf)
    with registry.snapshot():
        before = ShopConfig.current
        assert Carrier.objects.count() == 3
        shelf.put(KEY, {"banner": "b"})
        shelf.put("shop.Carrier.new", {})
        other = []
        thread = threading.Thread(
            target=lambda: other.append(eventually(lambda: ShopConfig.current.banner and Carrier.objects.count()))
        )
        thread.start()
        thread.join(30)
        assert other == [4]  # outside it is seen
        assert ShopConfig.current is before
        assert Carrier.objects.count() == 3
        assert ShopConfig.objects.get().banner == ""
        with pytest.raises(Carrier.DoesNotExist):
            Carrier.objects.get(pk="new")
        with registry.snapshot():
            assert ShopConfig.current is before
        assert ShopConfig.current is before
    assert ShopConfig.current.banner == "b"
    assert Carrier.objects.get(pk="new").active


def test_a_snapshot_shows_what_was_saved_inside(shelf):
    with registry.snapshot():
        assert ShopConfig.current.banner == ""
        ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "own"))
        assert ShopConfig.current.banner == "own"


def answers(shelf):
    def view(request):
        before = ShopConfig.current
        shelf.put(KEY, {"banner": "b"})
        seen = threading.Thread(target=lambda: eventually(lambda: ShopConfig.current.banner == "b"))
        seen.start()
        seen.join(30)
        return HttpResponse(str(ShopConfig.current is before))

    return view


def test_the_middleware_pins_a_request(shelf):
    registry.wait_ready(0.1)
    middleware: Any = RegistryMiddleware(answers(shelf))
    assert middleware(RequestFactory().get("/")).content == b"True"
    assert ShopConfig.current.banner == "b"


async def test_the_middleware_pins_an_awaited_request(shelf):
    async def view(request):
        return await asyncio.to_thread(answers(shelf), request)

    middleware: Any = RegistryMiddleware(view)
    assert (await middleware(RequestFactory().get("/"))).content == b"True"
    assert ShopConfig.current.banner == "b"


# --- when NATS is down ---

TEMPLATE = "{{ cfg.current.limit }} {% for one in carriers.all %}{{ one.code }}{% endfor %}"


def test_a_template_takes_the_class_as_it_is(shelf, monkeypatch, settings):
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    assert rendered() == "10 "
    monkeypatch.setattr(ShopConfig, "__init__", lambda self: pytest.fail("made an object"))
    assert rendered() == "10 "


def rendered():
    return Template(TEMPLATE).render(Context({"cfg": ShopConfig, "carriers": Carrier.objects}))


# Nothing listens there, which is found out at once: that alone ends the wait for a first replay.
DOWN = {"SERVERS": ["nats://127.0.0.1:1"], "LOCAL_CACHE": {"WAIT": 30}}


@override_settings(NATSKV={"default": DOWN}, TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
def test_without_a_server_defaults_are_read_and_nothing_is_raised():
    assert rendered() == "10 "
    assert registry.status()[("default", BUCKET)].state == "stale"
    with pytest.raises(OperationalError):
        ShopConfig.objects.strong().get()


def test_what_was_read_stays_while_the_server_is_gone_and_comes_back(settings, make_server):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    registry.start()
    ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "kept"))
    eventually(lambda: registry.status()[("default", BUCKET)].state == "live", 20)
    server.stop()
    eventually(lambda: registry.status()[("default", BUCKET)].state == "stale", 20)
    assert ShopConfig.current.banner == "kept"
    server.start()
    eventually(lambda: registry.status()[("default", BUCKET)].state == "live", 30)
    # On another connection, which comes back by itself too.
    insist(ShopConfig.objects.update, lambda cfg: setattr(cfg, "banner", "again"))
    assert ShopConfig.current.banner == "again"


def test_a_process_that_starts_without_a_server_reads_the_snapshot_file(settings, make_server, tmp_path):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"SNAPSHOT_DIR": str(tmp_path), "WAIT": 30}}}
    ShopConfig.objects.update(lambda cfg: setattr(cfg, "banner", "kept"))
    assert registry.wait_ready(30)
    assert ShopConfig.current.banner == "kept"
    eventually(lambda: list(tmp_path.glob("*.natskv")))
    connections.close_all()
    server.stop()
    assert ShopConfig.current.banner == "kept"
    assert registry.status()[("default", BUCKET)].state == "stale"


def test_a_copy_that_was_refused_leaves_the_defaults_and_is_told_once(shelf, settings, caplog):
    shelf.put(KEY, {"banner": "x" * 80})
    settings.NATSKV = {"default": {**settings.NATSKV["default"], "LOCAL_CACHE": {"MAX_BYTES": 10, "WAIT": 30}}}
    assert ShopConfig.current.banner == ""
    assert ShopConfig.current.banner == ""
    assert list(Carrier.objects.all()) == []
    assert ShopConfig.objects.get().banner == ""
    assert len(lines(caplog)) == 1


def test_every_process_reads_the_same_and_a_fork_reads_on(shelf, program, settings):
    shelf.put(KEY, {"banner": "a"})
    code = """
from tests.registry_classes import ShopConfig
from tests.fix_local import insist
from tests.fix_waiting import eventually
eventually(lambda: ShopConfig.current.banner == "a")
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
pid = os.fork()
eventually(lambda: ShopConfig.current.banner == "b")
if pid == 0:
    os.write(1, b'"child"\\n')
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(ShopConfig.current.banner), flush=True)
"""
    programs = [program(code, settings.NATSKV) for _ in range(2)]
    assert [one.read() for one in programs] == ["ready", "ready"]
    shelf.put(KEY, {"banner": "b"})
    for one in programs:
        one.tell()
    assert [one.finish()[0] for one in programs] == [["child", "b"]] * 2
