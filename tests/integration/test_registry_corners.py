"""Corners of the registry: what is rare, and must not surprise."""

from __future__ import annotations

import copy
import dis
import itertools
import json
import logging
import pickle
import sys
import tracemalloc
from datetime import UTC, datetime
from types import CodeType

import pytest
from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from django_natskv import connections, registry
from django_natskv.exceptions import OperationTimedOut
from django_natskv.kv import Bucket
from django_natskv.registry._encoding import to_bytes
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._storing import load, to_document
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET, Carrier, Limits, ShopConfig, SiteConfig, Zone

KEY = "shop.ShopConfig"


class Upper(json.JSONDecoder):
    def decode(self, text, *arguments):
        found = super().decode(text, *arguments)
        return found.upper() if isinstance(found, str) else found


class Coded(registry.Config):
    data = models.JSONField(default=str, blank=True, encoder=DjangoJSONEncoder, decoder=Upper)

    class Meta:
        bucket = BUCKET
        app_label = "shop"


def test_a_json_field_has_its_own_encoder_and_decoder():
    from datetime import date  # noqa: PLC0415

    document = to_document(Coded(data=date(2026, 1, 2)))
    assert document == {"data": "2026-01-02"}
    assert load(Coded, "shop.Coded", b'{"data": "abc"}', 1)[0].data == "ABC"
    assert load(Coded, "shop.Coded", to_bytes({"data": [1]}), 1)[0].data == [1]


@pytest.mark.parametrize("pk", ["", "x" * 1200, None])
def test_what_cannot_be_a_key_is_no_object(shelf, pk):
    with pytest.raises(Carrier.DoesNotExist):
        Carrier.objects.get(pk=pk)
    with pytest.raises(ValidationError):
        Carrier.history(pk)


def test_what_is_no_primary_key_is_no_object(shelf):
    with pytest.raises(Zone.DoesNotExist):
        Zone.objects.get(pk="seven")


def test_a_strong_read_by_primary_key_reads_nothing_else(shelf, monkeypatch, do):
    Carrier.objects.create(code="dhl", name="D")
    monkeypatch.delattr(Place, "below")
    objects = Carrier.objects.strong()
    assert do(objects.get, pk="dhl").name == do(objects.get, code="dhl").name == "D"
    for pk in ("ups", "", None):
        with pytest.raises(Carrier.DoesNotExist):
            do(objects.get, pk=pk)
    with pytest.raises(AttributeError, match="below"):
        objects.get(pk="dhl", active=True)


def test_reading_writes_nothing(shelf, do):
    documents = {
        "shop.Limits": {"minutes": 2},  # of an earlier version
        "shop.Limits.site.3": {"minutes": "many"},
        "shop.Carrier.dhl": {"price": "much", "unknown": 1},
        "shop.Zone.07": {},
        KEY: [],
    }
    revisions = {key: shelf.put(key, document) for key, document in documents.items()}
    registry.wait_ready(30)
    for cls in (Limits, ShopConfig):
        assert cls.current.pk == cls._declaration.key
        for call in (cls.objects.get, cls.objects.strong().get, cls.history):
            do(call)
        do(cls.as_of, datetime.now(UTC))
    scope = Limits.for_scope(site=3)
    assert (scope.current.seconds, do(scope.objects.get).undecodable) == (120, ("seconds",))
    assert do(Carrier.objects.get, pk="dhl").undecodable == ("price",)
    assert do(Carrier.objects.get_or_create, code="dhl")[1] is False
    assert (do(Carrier.objects.count), do(Carrier.objects.strong().count), do(Zone.objects.exists)) == (1, 1, False)
    assert {entry.key: entry.revision for entry in shelf.bucket.get_many(shelf.bucket.keys()).values()} == revisions


def test_a_flat_list_is_of_one_field(shelf):
    with pytest.raises(TypeError, match="one field"):
        Carrier.objects.values_list("code", "name", flat=True)


def test_values_of_a_snapshot_are_copied_as_plain_ones(shelf):
    shelf.put(KEY, {"tags": [{"a": [1]}]})
    eventually(lambda: ShopConfig.current.tags)
    tags = ShopConfig.current.tags
    for made in (copy.copy(tags), copy.deepcopy(tags), pickle.loads(pickle.dumps(tags))):
        made.append(1)
        assert made == [{"a": [1]}, 1]
    for made in (copy.copy(tags[0]), copy.deepcopy(tags[0]), pickle.loads(pickle.dumps(tags[0]))):
        made["b"] = 1
        assert made == {"a": [1], "b": 1}


def test_a_receiver_that_fails_keeps_no_other_from_being_told(shelf, caplog):
    told = []

    def fails(sender, **_):
        raise RuntimeError

    def hears(sender, **_):
        told.append(sender)

    registry.config_changed.connect(fails)
    registry.config_changed.connect(hears)
    try:
        shelf.put("shop.Zone.seven", {})  # no primary key: nobody's
        shelf.put("shop.Other", {})
        shelf.put(KEY, {"banner": "a"})
        assert registry.wait_ready(30)
        shelf.put(KEY, {"banner": "b"})
        shelf.put("shop.Zone.seven", {"label": "x"})
        shelf.put(KEY, {"banner": "c"})
        eventually(lambda: ShopConfig in told)
    finally:
        registry.config_changed.disconnect(fails)
        registry.config_changed.disconnect(hears)
    assert set(told) == {ShopConfig}
    assert "config_changed failed" in caplog.text


def test_another_copy_of_the_bucket_tells_nothing_twice(shelf):
    told = []

    def hears(sender, revision, **_):
        told.append(revision)

    registry.config_changed.connect(hears)
    try:
        shelf.put(KEY, {"banner": "a"})
        other = connections["default"].local_cache(BUCKET, codec="text")
        assert other.wait_ready(30)
        assert registry.wait_ready(30)
        last = shelf.put(KEY, {"banner": "b"})
        eventually(lambda: other.value(KEY) == '{"banner": "b"}' and last in told)
        end = shelf.put(KEY, {"banner": "c"})
        eventually(lambda: end in told)
    finally:
        registry.config_changed.disconnect(hears)
    assert told == [last, end]


def test_two_processes_that_make_the_bucket_differently_get_along(shelf, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    place = place_of(ShopConfig._declaration)
    make = type(place)._make

    def late(self):
        shelf.make(history=3)
        return (yield from make(self))

    monkeypatch.setattr(type(place), "_make", late)
    ShopConfig.objects.update(lambda cfg: setattr(cfg, "limit", 3))
    assert shelf.read(KEY) == {"limit": 3}
    assert "made by another process" in caplog.text


def test_get_or_create_that_loses_to_one_that_is_gone_again_says_so(shelf, monkeypatch):
    place = place_of(Carrier._declaration)
    write = type(place).write

    def beaten(self, *arguments, **options):
        shelf.put("shop.Carrier.dhl", {})
        try:
            return (yield from write(self, *arguments, **options))
        finally:
            shelf.bucket.delete("shop.Carrier.dhl")

    monkeypatch.setattr(type(place), "write", beaten)
    with pytest.raises(registry.Conflict):
        Carrier.objects.get_or_create(code="dhl")
    with pytest.raises(registry.Conflict):
        Carrier.objects.create(code="dhl")


def test_saving_some_fields_gives_up_after_a_bounded_number_of_races(shelf, monkeypatch):
    from django_natskv.registry import _writing  # noqa: PLC0415

    monkeypatch.setattr(_writing, "ATTEMPTS", 3)
    cfg = ShopConfig.objects.update(lambda cfg: setattr(cfg, "limit", 3))
    place = place_of(ShopConfig._declaration)
    write = type(place).write
    count = []

    def beaten(self, *arguments, **options):
        count.append(shelf.put(KEY, {"banner": "theirs"}))
        return (yield from write(self, *arguments, **options))

    monkeypatch.setattr(type(place), "write", beaten)
    with pytest.raises(registry.Conflict) as caught:
        cfg.save(update_fields=["limit"])
    assert len(count) == 3
    assert caught.value.theirs.banner == "theirs"


def test_a_save_whose_answer_is_lost_is_no_conflict_of_fields_when_it_is_repeated(shelf, monkeypatch):
    cfg = ShopConfig.objects.update(lambda cfg: setattr(cfg, "limit", 3))
    write_many = Bucket.write_many

    def lost(self, *arguments, **options):
        write_many(self, *arguments, **options)
        raise OperationTimedOut(may_have_been_applied=True)

    cfg.limit = 4
    monkeypatch.setattr(Bucket, "write_many", lost)
    with pytest.raises(OperationTimedOut):
        cfg.save()
    monkeypatch.undo()
    with pytest.raises(registry.Conflict) as caught:
        cfg.save()
    assert caught.value.fields == ()
    caught.value.merge().save()
    assert shelf.read(KEY) == {"limit": 4}


async def test_refresh_by_djangos_name_is_awaited_too(shelf):
    cfg = await ShopConfig.objects.aupdate(lambda cfg: setattr(cfg, "limit", 3))
    cfg.limit = 5
    await cfg.arefresh_from_db()
    assert cfg.limit == 3


def test_a_snapshot_shows_what_was_deleted_inside(shelf):
    made = Carrier.objects.create(code="dhl")
    assert registry.wait_ready(30)
    with registry.snapshot():
        assert Carrier.objects.exists()
        made.delete()
        assert not Carrier.objects.exists()


SITE = SiteConfig.for_scope(site=3)


@pytest.fixture(params=["class", "scope"])
def read(request, shelf):
    """A read of a setting, which has been read before."""
    shelf.put(KEY, {"limit": 3})
    assert registry.wait_ready(30)
    found = (lambda: ShopConfig.current.limit) if request.param == "class" else (lambda: SITE.current.limit)
    found()
    return found


def test_a_read_takes_no_lock(read):
    called = []
    sys.setprofile(lambda frame, event, given: called.append(given if event == "c_call" else frame.f_code))
    try:
        read()
    finally:
        sys.setprofile(None)
    codes = {one for one in called if isinstance(one, CodeType)}
    # A lock is taken by a call, or by a `with`, which calls without telling.
    taking = {"acquire", "__enter__"}
    assert not [one for one in called if getattr(one, "__name__", "") in taking]
    for step in (step for code in codes for step in dis.get_instructions(code)):
        assert step.opname != "BEFORE_WITH"
        assert step.argval not in taking
    assert "moment" in {code.co_name for code in codes}  # else nothing was seen


def test_a_read_allocates_nothing(read):
    tracer = sys.gettrace()  # what measures coverage allocates as well
    sys.settrace(None)
    tracemalloc.start()
    try:
        assert allocated(read) == allocated(lambda: 3)
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)


def allocated(read):
    """Return the most bytes that a hundred reads hold: the least of several times, for other threads go on."""
    found = []
    for _ in range(20):
        times = itertools.repeat(None, 100)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for _ in times:
            read()
        found.append(tracemalloc.get_traced_memory()[1] - before)
    return min(found)
