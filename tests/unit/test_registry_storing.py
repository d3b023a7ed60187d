"""The stored form: what JSON is made of an object, and what object of JSON."""

from __future__ import annotations

import copy
import json
import pickle
import string
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import models
from django.test import override_settings
from django.utils import timezone
from hypothesis import given, settings, strategies as st

from django_natskv import registry
from django_natskv.registry._encoding import to_bytes
from django_natskv.registry._names import from_headers, from_token, to_headers, to_token
from django_natskv.registry._storing import (
    VERSION,
    base_of,
    changed_fields,
    copy_of,
    frozen,
    load,
    to_document,
    token_text,
    values,
)
from tests.registry_classes import BUCKET, Carrier, Limits, ShopConfig, Zone

KEY = "shop.ShopConfig"


class Everything(registry.Config):
    """A field of every kind that Django ships, relations and files apart."""

    big = models.BigIntegerField(default=0)
    binary = models.BinaryField(default=b"", editable=True, blank=True)
    boolean = models.BooleanField(default=False)
    char = models.CharField(max_length=50, blank=True)
    chosen = models.CharField(max_length=5, default="a", choices={"a": "A", "b": "B"})
    day = models.DateField(default=date(2026, 1, 1))
    moment = models.DateTimeField(null=True, blank=True)
    decimal = models.DecimalField(max_digits=12, decimal_places=4, default=0)
    duration = models.DurationField(default=timedelta)
    email = models.EmailField(blank=True)
    path = models.FilePathField(path="/", blank=True)
    floating = models.FloatField(default=0.0)
    address = models.GenericIPAddressField(null=True, blank=True)
    integer = models.IntegerField(default=0)
    json = models.JSONField(null=True, blank=True)
    positive_big = models.PositiveBigIntegerField(default=0)
    positive = models.PositiveIntegerField(default=0)
    positive_small = models.PositiveSmallIntegerField(default=0)
    slug = models.SlugField(blank=True)
    small = models.SmallIntegerField(default=0)
    text = models.TextField(blank=True)
    time = models.TimeField(null=True, blank=True)
    url = models.URLField(blank=True)
    uuid = models.UUIDField(null=True, blank=True)
    nothing = models.CharField(max_length=5, null=True, blank=True)  # noqa: DJ001 - null is the point

    class Meta:
        app_label = "shop"
        bucket = BUCKET


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=50)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
INSTANCES = st.builds(
    Everything,
    big=st.integers(-(2**63), 2**63 - 1),
    binary=st.binary(max_size=50),
    boolean=st.booleans(),
    char=TEXT,
    chosen=st.sampled_from(["a", "b"]),
    day=st.dates(),
    moment=st.none() | st.datetimes(timezones=st.timezones()),
    decimal=st.decimals(min_value=-(10**7), max_value=10**7, places=4),
    duration=st.timedeltas(),
    email=st.just("") | st.emails(),
    path=st.just(""),
    floating=st.floats(allow_nan=False),
    address=st.none() | st.ip_addresses().map(str),
    integer=st.integers(-(2**31), 2**31 - 1),
    json=JSON,
    positive_big=st.integers(0, 2**63 - 1),
    positive=st.integers(0, 2**31 - 1),
    positive_small=st.integers(0, 32767),
    slug=st.text(string.ascii_letters + string.digits + "-_", max_size=50),
    small=st.integers(-32768, 32767),
    text=TEXT,
    time=st.none() | st.times(),
    url=st.just("") | st.sampled_from(["https://example.org/a?b=c", "http://[::1]/"]),
    uuid=st.none() | st.uuids(),
    nothing=st.none() | st.just("x"),
)


def test_the_class_above_has_every_kind_of_field():
    shipped = {
        each
        for each in vars(models).values()
        if isinstance(each, type)
        and issubclass(each, models.Field)
        and each is not models.Field
        and each.system_check_removed_details is None
    }
    without = {models.AutoField, models.BigAutoField, models.SmallAutoField, models.FileField, models.ImageField}
    without |= {models.ForeignKey, models.ForeignObject, models.OneToOneField, models.ManyToManyField}
    without |= {models.GeneratedField, models.CompositePrimaryKey, models.OrderWrt}
    assert {type(field) for field in Everything._meta.fields} == shipped - without


def at(instance, field):
    """Return the value of a field; a time in UTC: one that a zone has twice, or not at all, equals none of another."""
    value = getattr(instance, field.attname)
    return value.astimezone(UTC) if isinstance(value, datetime) else value


@settings(max_examples=300, deadline=None)
@given(INSTANCES)
def test_any_valid_object_survives_the_way_through_json(instance):
    instance.full_clean(exclude=["email"])
    there = to_bytes(to_document(instance))
    back, errors = load(Everything, "shop.Everything", there, 7)
    assert errors == []
    assert back.revision == 7
    for field in Everything._meta.concrete_fields:
        assert at(back, field) == at(instance, field), field.name
        assert type(getattr(back, field.attname)) is type(getattr(instance, field.attname)), field.name
    assert to_bytes(to_document(back)) == there
    json.loads(there, parse_constant=pytest.fail)  # no NaN, no Infinity: they are not JSON


def stored(cls, document, last=None):
    return load(cls, cls._declaration.key, json.dumps(document).encode(), 3, last)


def test_only_what_differs_from_the_defaults_is_stored():
    assert to_document(ShopConfig()) == {}
    assert to_document(ShopConfig(banner="Sale", free_shipping_from=Decimal(50))) == {"banner": "Sale"}


@pytest.mark.parametrize(("given", "default"), [(1, True), (1.0, 1), (0, False)])
def test_what_python_calls_equal_is_not_the_same_json(given, default):
    one, other = ShopConfig(tags=[given]), ShopConfig(tags=[default])
    assert changed_fields(one, other) == ("tags",)


def test_a_default_that_is_computed_is_stored_lest_it_be_another_one_tomorrow():
    class Stamped(registry.Config):
        since = models.DateTimeField(default=timezone.now)

        class Meta:
            app_label = "shop"
            bucket = BUCKET

    assert "since" in to_document(Stamped())


def test_what_is_unknown_stays():
    cfg, errors = stored(ShopConfig, {"banner": "a", "later": {"x": 1}, "$note": "by hand"})
    assert errors == []
    cfg.banner = "b"
    assert to_document(cfg) == {"banner": "b", "later": {"x": 1}, "$note": "by hand"}


def test_a_field_that_cannot_be_read_is_its_default_and_stays_as_it_is_stored():
    cfg, [error] = stored(ShopConfig, {"limit": "many", "banner": "a"})
    assert (cfg.limit, cfg.banner, cfg.undecodable) == (10, "a", ("limit",))
    assert (error.field, error.bucket, error.key) == ("limit", "registry-tests", KEY)
    assert "many" not in str(error)  # messages hold no values
    cfg.banner = "b"
    assert to_document(cfg) == {"limit": "many", "banner": "b"}


def test_a_field_that_cannot_be_read_is_replaced_by_what_is_chosen_instead():
    cfg, _ = stored(ShopConfig, {"limit": "many"})
    cfg.limit = 20
    assert to_document(cfg) == {"limit": 20}


def test_a_field_that_cannot_be_read_keeps_its_last_good_value():
    last, _ = stored(ShopConfig, {"limit": 33, "tags": ["a"]})
    cfg, errors = stored(ShopConfig, {"limit": "many", "tags": ["b"]}, frozen(last))
    assert (cfg.limit, cfg.tags, len(errors)) == (33, ["b"], 1)
    assert to_document(cfg) == {"limit": "many", "tags": ["b"]}
    assert changed_fields(base_of(cfg), cfg) == ()


@pytest.mark.parametrize("value", [{"x": 1}, [1], None, "yes, please"])
def test_json_of_another_kind_is_no_value_of_a_field(value):
    cfg, errors = stored(ShopConfig, {"open": value})
    assert cfg.open is True
    assert len(errors) == 1


def test_a_number_that_would_lose_something_is_no_whole_number():
    cfg, errors = stored(ShopConfig, {"limit": 1.5})
    assert (cfg.limit, len(errors)) == (10, 1)
    assert to_document(cfg) == {"limit": 1.5}
    assert stored(ShopConfig, {"limit": 2.0})[0].limit == 2


def test_a_number_is_the_decimal_that_it_is_written_as():
    cfg, errors = stored(ShopConfig, {"free_shipping_from": 49.9})
    assert (str(cfg.free_shipping_from), errors) == ("49.9", [])
    cfg, errors = stored(ShopConfig, {"free_shipping_from": 1234567890.125})  # of eight digits, two behind the point
    assert (str(cfg.free_shipping_from), errors) == ("1234567890.125", [])
    with pytest.raises(ValidationError):
        cfg.full_clean()


@pytest.mark.parametrize("value", [5, True, 1.5])
def test_only_text_is_binary(value):
    back, errors = load(Everything, "shop.Everything", to_bytes({"binary": value}), 7)
    assert (back.binary, len(errors)) == (b"", 1)


@pytest.mark.parametrize(
    ("use_tz", "text", "moment"),
    [
        (True, "2026-01-02T10:00:00", "2026-01-02T10:00:00+14:00"),
        (True, "2026-01-02", "2026-01-02T00:00:00+14:00"),
        (True, "2026-01-02T10:00:00Z", "2026-01-02T10:00:00+00:00"),
        (False, "2026-01-02T10:00:00", "2026-01-02T10:00:00"),
        (False, "2026-01-02T10:00:00Z", "2026-01-03T00:00:00"),
    ],
)
def test_a_time_has_a_zone_or_none_as_django_is_told_whoever_wrote_it(use_tz, text, moment):
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Pacific/Kiritimati"):  # 14 hours before UTC
        back, errors = load(Everything, "shop.Everything", to_bytes({"moment": text}), 7)
        assert (back.moment.isoformat(), errors) == (moment, [])


@pytest.mark.parametrize("value", [{"x": 1}, [1]])
def test_json_of_another_kind_is_no_text(value):
    cfg, errors = stored(ShopConfig, {"banner": value})
    assert (cfg.banner, len(errors)) == ("", 1)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1]", b"null", b'{"limit": 1', b'"text"'])
def test_a_document_that_cannot_be_read_is_the_last_good_one_or_the_defaults(data):
    cfg, [error] = load(ShopConfig, KEY, data, 4)
    assert (cfg.limit, cfg.revision, cfg.undecodable, error.field) == (10, 4, ("$",), None)
    last, _ = stored(ShopConfig, {"limit": 33})
    cfg, _ = load(ShopConfig, KEY, data, 4, last)
    assert cfg.limit == 33
    assert changed_fields(base_of(cfg), cfg) == ()


def test_what_is_older_is_upgraded_and_says_its_version():
    cfg, errors = stored(Limits, {"minutes": 3})
    assert errors == []
    assert cfg.seconds == 180
    assert to_document(cfg) == {VERSION: 2, "seconds": 180}


@pytest.mark.parametrize("version", [2, 2.0])
def test_what_is_of_today_is_not_upgraded(version):
    cfg, _ = stored(Limits, {VERSION: version, "minutes": 3})
    assert cfg.seconds == 60
    assert to_document(cfg) == {VERSION: 2, "minutes": 3}


def test_what_is_newer_keeps_its_version():
    cfg, errors = stored(Limits, {VERSION: 3, "hours": 1, "seconds": 5})
    assert (cfg.seconds, errors) == (5, [])
    assert to_document(cfg) == {VERSION: 3, "hours": 1, "seconds": 5}


def test_an_upgrade_that_fails_is_a_document_that_cannot_be_read(monkeypatch):
    monkeypatch.setattr(Limits, "upgrade", classmethod(lambda cls, data, version: 1 / 0))
    cfg, [error] = stored(Limits, {"minutes": 3})
    assert (cfg.seconds, cfg.undecodable) == (60, ("$",))
    assert "upgrade" in error.detail


def test_a_snapshot_cannot_be_changed_and_its_copy_can():
    cfg, _ = stored(ShopConfig, {"tags": [{"a": [1]}]})
    frozen(cfg)
    for change in (
        lambda: setattr(cfg, "banner", "x"),
        lambda: delattr(cfg, "limit"),
        lambda: cfg.tags.append(1),
        lambda: cfg.tags[0].update(b=1),
        lambda: cfg.tags[0]["a"].__setitem__(0, 2),
        lambda: cfg.tags.__iadd__([1]),
    ):
        with pytest.raises((AttributeError, TypeError), match="snapshot"):
            change()
    assert json.dumps(cfg.tags) == '[{"a": [1]}]'
    assert cfg.tags == [{"a": [1]}]
    other = copy_of(cfg)
    other.tags[0]["a"].append(2)
    other.tags.append(other.tags[0].copy())
    other.banner = "x"
    assert (cfg.banner, cfg.tags) == ("", [{"a": [1]}])
    assert type(other.tags) is list
    assert type(other.tags[0]) is dict
    assert changed_fields(cfg, other) == ("banner", "tags")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))])
def test_it_is_pickled_and_copied(copied):
    cfg, _ = stored(ShopConfig, {"limit": 5, "tags": [1], "unknown": 1})
    other = copied(frozen(cfg))
    assert (other.limit, other.tags, other.revision) == (5, [1], 3)
    assert to_document(other) == to_document(cfg)
    assert other._state is not cfg._state
    with pytest.raises(AttributeError):
        other.limit = 6


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_primary_key_is_one_word_of_a_key_and_comes_back(pk):
    token = to_token(pk)
    assert from_token(token) == pk
    assert all(character.isascii() and (character.isalnum() or character in "-_/=") for character in token)


def test_primary_keys_are_read_as_their_field_reads_them():
    zone, _ = load(Zone, "shop.Zone.7", b"{}", 1)
    assert (zone.pk, token_text(Zone, "7"), token_text(Zone, "07"), token_text(Zone, 7.0)) == (7, "7", "7", "7")
    assert values(zone) == {"label": ""}
    with pytest.raises(ValidationError):
        load(Zone, "shop.Zone.seven", b"{}", 1)
    assert load(Carrier, "shop.Carrier.a=2Eb", b"{}", 1)[0].pk == "a.b"


@pytest.mark.parametrize(
    "key",
    ["Carrier.=41", "Carrier.=ZZ", "Carrier.a=2eb", "Carrier.a=", "Zone.07", "Zone.=37", "Zone.7=20", "Zone.1_0"],
)
def test_an_object_has_one_key_and_what_is_under_another_is_none(key):
    cls = Carrier if key.startswith("Carrier") else Zone
    with pytest.raises(ValueError, match="kept under"):
        load(cls, f"shop.{key}", b"{}", 1)


@given(TEXT, TEXT)
def test_actor_and_comment_travel_as_printable_ascii(actor, comment):
    headers = to_headers(actor, comment)
    assert from_headers(headers) == (actor, comment)
    for value in headers.values():
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()


def test_what_is_readable_stays_readable_in_headers():
    assert to_headers("ann@example.org", "10% off, now") == {
        "Natskv-Actor": "ann@example.org",
        "Natskv-Comment": "10%25 off, now",
    }
    assert to_headers(None, "") == {}
