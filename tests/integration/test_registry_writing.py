"""Writing the registry: what is stored, and who wins a race."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.connection import ConnectionDoesNotExist

from django_natskv import connections, registry
from django_natskv.exceptions import BucketNotFound, CodecError, UsageError, WrongRevision
from django_natskv.registry import _declaring, _writing
from tests.fix_registry import set_to
from tests.registry_classes import BUCKET, Carrier, ShopConfig

KEY = "shop.ShopConfig"
CARRIER = "shop.Carrier.dhl"


@pytest.fixture
def stale(shelf):
    """A config that was read, and then changed by somebody else: banner "theirs", limit 20."""
    shelf.put(KEY, {"banner": "base", "unknown": 1})
    cfg = ShopConfig.objects.strong().get()
    shelf.put(KEY, {"banner": "theirs", "limit": 20, "unknown": 2})
    return cfg


# --- saving ---


def test_a_save_stores_what_differs_with_who_and_why(shelf, do):
    cfg = ShopConfig.objects.get()
    cfg.banner = "Sale"
    do(cfg.save, actor="änn", comment="10% off")
    assert shelf.read(KEY) == {"banner": "Sale"}
    assert cfg.revision == shelf.bucket.get(KEY).revision
    assert ShopConfig.current.banner == "Sale"
    assert shelf.bucket.get(KEY).headers == {"Natskv-Actor": "%C3%A4nn", "Natskv-Comment": "10%25 off"}
    cfg.limit = 3
    do(cfg.save)
    assert shelf.read(KEY) == {"banner": "Sale", "limit": 3}
    assert shelf.bucket.get(KEY).headers == {}


def test_the_first_write_makes_the_bucket_as_it_is_declared(shelf, do):
    do(ShopConfig.objects.update, set_to(limit=3))
    assert connections["default"].kv().bucket_status(BUCKET).history == 30  # the most that a class wants


def test_the_settings_overrule_how_the_bucket_is_made(shelf, settings):
    buckets = {BUCKET: {"history": 7, "description": "made by hand"}}
    settings.NATSKV = {"default": {**settings.NATSKV["default"], "BUCKETS": buckets}}
    ShopConfig.objects.update(set_to(limit=3))
    status = connections["default"].kv().bucket_status(BUCKET)
    assert (status.history, status.description) == (7, "made by hand")


def test_a_bucket_that_is_deleted_is_made_again(shelf):
    ShopConfig.objects.update(set_to(limit=3))
    shelf.drop()
    assert ShopConfig.objects.strong().get().limit == 10
    ShopConfig.objects.update(set_to(limit=4))
    assert shelf.read(KEY) == {"limit": 4}


def test_where_the_bucket_is_not_to_be_made_the_command_that_does_is_named(shelf, do, monkeypatch):
    class Reserved(registry.Config):
        class Meta:
            bucket = BUCKET
            CREATE = False
            app_label = f"reserved{id(do)}"

    _declaring.declared.remove(Reserved)  # the other classes of its bucket do make it
    with pytest.raises(BucketNotFound, match="natskv_bucket sync"):
        do(Reserved().save)
    assert not shelf.exists
    shelf.make()
    do(Reserved().save)


def test_the_settings_may_say_that_no_class_makes_its_bucket(shelf, do, settings):
    settings.NATSKV = {"default": {**settings.NATSKV["default"], "REGISTRY": {"CREATE": False}}}
    with pytest.raises(BucketNotFound, match="natskv_bucket sync"):
        do(ShopConfig.objects.update, set_to(limit=3))
    assert not shelf.exists
    shelf.make()
    do(ShopConfig.objects.update, set_to(limit=3))
    assert shelf.read(KEY) == {"limit": 3}


def test_what_is_not_valid_is_not_saved(shelf, do):
    cfg = ShopConfig.objects.get()
    cfg.limit = 101
    with pytest.raises(ValidationError):
        do(cfg.save)
    with pytest.raises(ValidationError):
        do(ShopConfig.objects.update, set_to(banner="forbidden"))
    with pytest.raises(ValidationError):
        do(Carrier.objects.create, code="")
    with pytest.raises(ValidationError):
        do(Carrier.objects.create, code="x" * 201)
    assert not shelf.exists


def test_unknown_fields_and_undecodable_ones_survive_a_save(shelf, do):
    shelf.put(KEY, {"banner": "a", "limit": "many", "later": [1]})
    do(ShopConfig.objects.update, set_to(banner="b"))
    assert shelf.read(KEY) == {"banner": "b", "limit": "many", "later": [1]}
    do(ShopConfig.objects.update, set_to(limit=4))
    assert shelf.read(KEY) == {"banner": "b", "limit": 4, "later": [1]}


def test_a_field_that_could_not_be_read_is_one_like_others_once_it_was_given_a_value(shelf, do):
    shelf.put(KEY, {"limit": "many", "open": "perhaps"})
    cfg = ShopConfig.objects.strong().get()
    assert (cfg.limit, cfg.undecodable) == (10, ("open", "limit"))
    for limit, stored in ((5, {"limit": 5}), (10, {})):
        cfg.limit = limit
        do(cfg.save)
        assert (shelf.read(KEY), cfg.undecodable) == ({"open": "perhaps", **stored}, ("open",))


def test_what_cannot_be_read_at_all_is_never_overwritten(shelf, do):
    good = shelf.put(KEY, {"banner": "good"})
    shelf.put(KEY, b"{broken")
    with pytest.raises(CodecError, match="roll it back"):
        do(ShopConfig.objects.update, set_to(banner="b"))
    assert shelf.bucket.get(KEY).value == b"{broken"
    do(ShopConfig.rollback, good)
    assert shelf.read(KEY) == {"banner": "good"}


# --- conflicts ---


def test_a_lost_race_is_a_conflict_with_all_sides(stale, shelf, do):
    stale.banner = "mine"
    stale.limit = 20
    stale.open = False
    with pytest.raises(registry.Conflict) as caught:
        do(stale.save)
    conflict = caught.value
    assert isinstance(conflict, WrongRevision)
    assert (conflict.bucket, conflict.key) == (BUCKET, KEY)
    assert [one.banner for one in (conflict.base, conflict.theirs, conflict.mine)] == ["base", "theirs", "mine"]
    assert conflict.fields == ("banner",)  # both set the limit to 20
    with pytest.raises(registry.Conflict):
        conflict.merge()
    assert shelf.read(KEY) == {"banner": "theirs", "limit": 20, "unknown": 2}
    again = pickle.loads(pickle.dumps(conflict))
    assert (again.fields, again.theirs.banner) == (("banner",), "theirs")


def told(operation, *arguments, **options):
    with pytest.raises(registry.Conflict) as caught:
        operation(*arguments, **options)
    return str(caught.value).partition("key ")[2]


def test_a_conflict_says_what_has_come_between(shelf):
    config, one = ShopConfig(limit=3), Carrier.objects.create(code="dhl")
    at = shelf.put(KEY, {})
    assert told(config.save).startswith(
        f"'{KEY}', is there already, at revision {at}. Nothing was written: see `theirs`"
    )
    assert told(Carrier.objects.create, code="dhl").startswith(
        f"'{CARRIER}', is there already, at revision {one.revision}"
    )
    config = ShopConfig.objects.strong().get()
    for stored in (config, one):
        key = KEY if stored is config else CARRIER
        shelf.put(key, {})
        assert told(stored.save).startswith(f"'{key}', was changed by somebody else since revision {stored.revision}.")
        shelf.bucket.delete(key)
        assert told(stored.save).startswith(f"'{key}', was deleted by somebody else since revision {stored.revision}.")
    assert told(one.save).endswith("create it anew.")
    assert told(config.save).endswith("read it anew.")


def test_an_object_with_another_primary_key_is_another_object(shelf, do):
    one = do(Carrier.objects.create, code="dhl", name="D")
    shelf.put("shop.Carrier.ups", {"name": "U"})
    one.code, one.price = "dpd", 5
    assert do(one.delete) == (0, {})
    do(one.save)
    assert (shelf.read(CARRIER), shelf.read("shop.Carrier.dpd")) == ({"name": "D"}, {"name": "D", "price": 5})
    one.code = "ups"
    assert "is there already" in told(do, one.save)
    assert shelf.read("shop.Carrier.ups") == {"name": "U"}
    with pytest.raises(UsageError, match=r"update\(\) of 'shop\.Carrier\.dhl' cannot change its primary key"):
        do(Carrier.objects.update, "dhl", set_to(code="gls"))
    assert shelf.read("shop.Carrier.gls") is None


def test_a_conflict_in_no_field_is_merged(stale, shelf, do):
    stale.open = False
    stale.tags.append("mine")
    with pytest.raises(registry.Conflict) as caught:
        do(stale.save)
    assert caught.value.fields == ()
    merged = caught.value.merge()
    merged.tags.append("and more")
    assert caught.value.mine.tags == ["mine"]
    do(merged.save)
    assert shelf.read(KEY) == {
        "banner": "theirs",
        "limit": 20,
        "open": False,
        "tags": ["mine", "and more"],
        "unknown": 2,
    }


def test_a_conflict_with_a_deletion_has_no_other_side(shelf, do):
    one = Carrier.objects.create(code="dhl")
    shelf.bucket.delete("shop.Carrier.dhl")
    one.name = "x"
    with pytest.raises(registry.Conflict) as caught:
        do(one.save)
    assert (caught.value.theirs, caught.value.fields) == (None, ("name",))
    with pytest.raises(registry.Conflict):
        caught.value.merge()


def test_saving_some_fields_leaves_the_others_as_they_are_by_now(stale, shelf, do):
    stale.open = False
    stale.banner = "not saved"
    do(stale.save, update_fields=["open"], comment="closed")
    assert shelf.read(KEY) == {"banner": "theirs", "limit": 20, "open": False, "unknown": 2}
    assert (stale.limit, stale.banner) == (20, "not saved")  # what was not changed here follows
    do(stale.save)
    assert shelf.read(KEY)["banner"] == "not saved"


def test_saving_some_fields_of_what_is_gone_is_a_conflict(shelf, do):
    one = Carrier.objects.create(code="dhl")
    shelf.bucket.delete("shop.Carrier.dhl")
    with pytest.raises(registry.Conflict):
        do(one.save, update_fields=["name"])
    assert shelf.bucket.get("shop.Carrier.dhl") is None


def test_saving_no_field_or_one_that_there_is_not(shelf, do):
    do(ShopConfig().save, update_fields=[])
    assert not shelf.exists
    with pytest.raises(ValueError, match="nothing"):
        do(ShopConfig().save, update_fields=["nothing"])


def test_an_update_is_run_again_on_a_lost_race(shelf, do):
    shelf.put(KEY, {"limit": 1})
    seen = []

    def change(cfg):
        seen.append(cfg.limit)
        if len(seen) < 3:
            shelf.put(KEY, {"limit": cfg.limit + 1, "banner": "theirs"})
        cfg.open = False

    done = do(ShopConfig.objects.update, change, actor="ann")
    assert seen == [1, 2, 3]
    assert (done.limit, done.open) == (3, False)
    assert shelf.read(KEY) == {"limit": 3, "banner": "theirs", "open": False}


def test_an_update_that_loses_a_hundred_races_in_a_row_is_made(shelf, do, monkeypatch):
    monkeypatch.setattr(_writing, "LONGEST_PAUSE", 0.001)
    shelf.put(KEY, {})
    seen = []

    def change(cfg):
        seen.append(cfg.limit)
        if len(seen) <= 100:
            shelf.put(KEY, {"limit": len(seen)})
        cfg.open = False

    do(ShopConfig.objects.update, change)
    assert len(seen) == 101
    assert shelf.read(KEY) == {"limit": 100, "open": False}


def test_an_update_gives_up_after_a_bounded_number_of_races(shelf, do, monkeypatch):
    monkeypatch.setattr(_writing, "ATTEMPTS", 3)
    shelf.put(KEY, {})
    seen = []

    def change(cfg):
        seen.append(shelf.put(KEY, {"banner": "theirs"}))
        cfg.banner = "mine"

    with pytest.raises(registry.Conflict):
        do(ShopConfig.objects.update, change)
    assert len(seen) == 3


async def test_an_awaited_update_takes_a_coroutine_function_and_a_plain_one_does_not(shelf):
    async def change(cfg):
        await asyncio.sleep(0)
        cfg.limit = 5

    assert (await ShopConfig.objects.aupdate(change)).limit == 5
    with pytest.raises(UsageError, match="begins with an a"):
        await asyncio.to_thread(ShopConfig.objects.update, change)


# --- models ---


def test_models_are_made_changed_and_deleted(shelf, do):
    one = do(Carrier.objects.create, code="dhl", name="D", actor="ann", comment="new")
    assert shelf.read("shop.Carrier.dhl") == {"name": "D"}
    assert one.revision > 0
    with pytest.raises(registry.Conflict):
        do(Carrier.objects.create, code="dhl")
    changed = do(Carrier.objects.update, "dhl", set_to(price=5))
    assert (changed.name, changed.price) == ("D", 5)
    with pytest.raises(Carrier.DoesNotExist):
        do(Carrier.objects.update, "none", set_to(price=5))
    with pytest.raises(registry.Conflict):
        do(one.delete)
    do(one.refresh)
    assert one.price == 5
    assert do(one.delete, actor="bob") == (1, {"shop.Carrier": 1})
    assert not Carrier.objects.filter(pk="dhl")
    assert do(one.delete) == (0, {})
    with pytest.raises(Carrier.DoesNotExist):
        do(changed.refresh)
    do(one.save)
    assert Carrier.objects.get(pk="dhl").price == 5


def test_get_or_create_makes_it_once(shelf, do):
    one, made = do(Carrier.objects.get_or_create, {"name": lambda: "D"}, code="dhl", actor="ann")
    assert (one.name, made) == ("D", True)
    one, made = do(Carrier.objects.get_or_create, {"name": "E"}, code="dhl")
    assert (one.name, made) == ("D", False)
    with pytest.raises(TypeError):
        do(Carrier.objects.get_or_create, name="D")


def test_get_or_create_gives_what_somebody_else_made_meanwhile(shelf, do):
    def name():
        shelf.put("shop.Carrier.dhl", {"name": "theirs"})
        return "mine"

    one, made = do(Carrier.objects.get_or_create, {"name": name}, code="dhl")
    assert (one.name, made) == ("theirs", False)


def test_a_config_that_is_deleted_reads_as_its_defaults(shelf, do):
    cfg = do(ShopConfig.objects.update, set_to(limit=3))
    do(cfg.delete, comment="start over")
    assert ShopConfig.current.limit == 10
    do(cfg.refresh)
    assert (cfg.limit, cfg.revision) == (10, 0)


def test_refresh_is_what_refresh_from_db_does(stale):
    stale.refresh_from_db()
    assert stale.banner == "theirs"


def test_a_model_form_saves(shelf):
    class Form(forms.ModelForm):
        class Meta:
            model = ShopConfig
            fields = ("banner", "limit")

    form = Form({"banner": "by form", "limit": "5"}, instance=ShopConfig.objects.get())
    form.save()
    assert shelf.read(KEY) == {"banner": "by form", "limit": 5}
    form = Form({"banner": "by form", "limit": "7"}, instance=ShopConfig.objects.get())
    form.save(commit=False).save(actor="ann")
    assert ShopConfig.history()[-1].actor == "ann"


# --- with the database ---


@pytest.mark.django_db(transaction=True)
def test_a_save_on_commit_waits_for_the_transaction(shelf):
    cfg = ShopConfig.objects.get()
    cfg.banner = "committed"
    with transaction.atomic():
        cfg.save_on_commit(actor="ann")
        assert not shelf.exists
    assert shelf.read(KEY) == {"banner": "committed"}
    cfg.banner = "never"
    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012 - it fails after the save was asked for
        cfg.save_on_commit()
        1 / 0  # noqa: B018
    assert shelf.read(KEY) == {"banner": "committed"}
    cfg.limit = 101
    with transaction.atomic(), pytest.raises(ValidationError):
        cfg.save_on_commit()  # and not only when it is too late for the transaction
    cfg.limit = 10
    with pytest.raises(ConnectionDoesNotExist):
        cfg.save_on_commit(using="another")


@pytest.mark.django_db(transaction=True)
async def test_an_awaited_save_on_commit_saves(shelf):
    cfg = ShopConfig.objects.get()
    cfg.banner = "x"
    await cfg.asave_on_commit()
    assert (await ShopConfig.objects.strong().aget()).banner == "x"
