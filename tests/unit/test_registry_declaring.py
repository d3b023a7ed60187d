"""Declaring: what a class statement makes, and what ``manage.py check`` says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django import forms
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core import checks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import models
from django.db.models.functions import Abs
from django.test import override_settings
from django.utils import timezone

from django_natskv import registry
from django_natskv.checks import TAG
from django_natskv.exceptions import UsageError
from django_natskv.registry import _declaring, checks as rules
from tests.flag_classes import Features
from tests.registry_classes import BUCKET, Carrier, ShopConfig

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "registry.md"


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Classes that a test declares are its own."""
    monkeypatch.setattr(_declaring, "declared", list(_declaring.declared))
    monkeypatch.setattr(rules, "declared", _declaring.declared)
    monkeypatch.setattr(_declaring, "apps", type(_declaring.apps)())


def said(**options):
    return type("Meta", (), {"app_label": "shop", **options})


def declare(base, meta=None, **attributes):
    return type(base)("Declared", (base,), {"__module__": "tests.made_up", "Meta": meta or said(), **attributes})


def config(meta=None, **fields):
    return declare(registry.Config, meta, **fields)


def model(meta=None, **fields):
    return declare(registry.Model, meta, **{"code": models.SlugField(primary_key=True), **fields})


def found():
    """Return the ids of what is wrong with what the test declared."""
    return [message.id for message in rules.check_registry()]


# --- what a class statement makes ---


def test_the_classes_are_django_models_with_all_that_belongs_to_them():
    assert issubclass(ShopConfig, models.Model)
    assert [field.name for field in ShopConfig._meta.fields if not field.primary_key] == [
        "free_shipping_from",
        "banner",
        "open",
        "tags",
        "limit",
    ]
    assert ShopConfig._meta.verbose_name == "shop settings"
    assert ShopConfig._meta.get_field("banner").verbose_name == "the banner"
    assert issubclass(ShopConfig.DoesNotExist, Exception)
    assert issubclass(Carrier.MultipleObjectsReturned, Exception)
    assert [code for code, _ in Carrier._meta.permissions] == []
    assert Carrier._meta.default_permissions == ("add", "change", "delete", "view")


def test_meta_says_where_and_how():
    made = config(said(bucket="other", key="here.there", connection="far", history=5, version=3, CREATE=False))
    assert made._declaration == _declaring.Declaration("other", "here.there", "far", 5, 3, False, False, None)
    plain = config(said(app_label="other"))
    expected = _declaring.Declaration("config", "other.Declared", "default", None, 1, True, False, None)
    assert plain._declaration == expected
    assert ShopConfig._declaration.fieldsets == ((None, {"fields": ("banner", "open")}),)


def test_an_abstract_base_hands_down_fields_and_meta():
    class Base(registry.Config):
        common = models.IntegerField(default=1)

        class Meta:
            abstract = True
            bucket = "handed-down"
            app_label = "shop"

    class Child(Base):
        mine = models.IntegerField(default=2)

    class Other(Base):
        class Meta(Base.Meta):
            history = 3

    assert not hasattr(Base, "_declaration")
    assert [field.name for field in Child._meta.fields if not field.primary_key] == ["common", "mine"]
    assert (Child._declaration.bucket, Child._declaration.key) == ("handed-down", "shop.Child")
    assert (Other._declaration.bucket, Other._declaration.history) == ("handed-down", 3)
    assert not Other._meta.abstract


def test_a_class_outside_of_every_application_is_of_the_package_it_stands_in():
    class Elsewhere(registry.Config):
        pass

    assert Elsewhere._declaration.key == "unit.Elsewhere"


def test_an_unknown_option_of_meta_is_refused():
    with pytest.raises(TypeError, match="buckets"):

        class Wrong(registry.Config):
            class Meta:
                app_label = "shop"
                buckets = "typo"


@pytest.mark.parametrize("base", [ShopConfig, Carrier])
@pytest.mark.parametrize("proxy", [False, True])
def test_only_abstract_classes_are_inherited_from(base, proxy):
    with pytest.raises(TypeError, match="abstract"):
        declare(base, said(proxy=proxy))


def test_neither_migrations_nor_content_types_nor_tables_know_of_them():
    assert ShopConfig not in apps.get_models(include_auto_created=True)
    assert not ShopConfig._meta.managed
    with pytest.raises(LookupError):
        apps.get_model("shop", "ShopConfig")  # type: ignore[misc]


@pytest.mark.django_db
def test_makemigrations_has_nothing_to_do():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
    assert not ContentType.objects.filter(app_label="shop").exists()


def test_where_django_looks_for_a_manager_it_hears_that_there_is_no_table():
    with pytest.raises(UsageError, match=r"Carrier\.objects"):
        Carrier._default_manager.filter(pk="dhl")


def test_validation_is_that_of_the_fields_and_of_clean():
    for wrong in (ShopConfig(limit=101), ShopConfig(banner="x" * 81), ShopConfig(banner="forbidden")):
        with pytest.raises(ValidationError):
            wrong.full_clean()
    ShopConfig().full_clean()


def test_a_model_form_is_made_of_it():
    class Form(forms.ModelForm):
        class Meta:
            model = ShopConfig
            fields = "__all__"  # noqa: DJ007 - what it leaves out is asked

    form = Form({"free_shipping_from": "20", "banner": "b", "open": "on", "tags": "[1]", "limit": "101"})
    assert list(form.fields) == ["free_shipping_from", "banner", "open", "tags", "limit"]
    assert form.errors == {"limit": ["Ensure this value is less than or equal to 100."]}
    fine = Form({"free_shipping_from": "20", "banner": "b", "open": "on", "tags": "[1]", "limit": "9"})
    assert fine.is_valid()
    assert fine.instance.banner == "b"


# --- what check says ---


def test_the_check_is_registered_and_has_nothing_against_the_classes_of_the_tests():
    config(threshold=models.TextField())
    assert "natskv.E205" in [message.id for message in checks.run_checks(tags=[TAG])]


def test_what_is_sound_is_said_nothing_of():
    assert found() == []


def test_e200_relations():
    model(
        owner=models.ForeignKey("auth.User", models.CASCADE),
        friends=models.ManyToManyField("auth.User"),
    )
    assert found() == ["natskv.E200", "natskv.E200"]


def test_e201_files():
    config(logo=models.FileField(blank=True), picture=models.ImageField(blank=True))
    assert found() == ["natskv.E201"] * 2


def test_e202_what_only_a_database_fills():
    model(code=models.AutoField(primary_key=True))
    assert found() == ["natskv.E202"]


def test_e202_what_a_database_computes():
    config(
        a=models.IntegerField(default=1),
        b=models.GeneratedField(expression=Abs("a"), output_field=models.IntegerField(), db_persist=True),
    )
    assert "natskv.E202" in found()


def test_e202_what_a_database_gives_a_default():
    config(a=models.CharField(max_length=3, blank=True, db_default="x"))
    assert found() == ["natskv.E202"]


def test_e203_two_classes_on_one_key():
    config(said(key="same"))
    model(said(key="same", app_label="other"))
    assert found() == []  # the one above the others is in nobody's way
    config(said(key="same", app_label="third"))
    assert found() == ["natskv.E203"]
    config(said(key="same", bucket="elsewhere", app_label="fourth"))
    assert found() == ["natskv.E203"]


def test_e210_two_classes_that_disagree_on_who_makes_their_bucket():
    config(said(bucket="made", CREATE=False))
    model(said(bucket="made", app_label="other", CREATE=False))
    config(said(bucket="another", app_label="third"))
    assert found() == []
    config(said(bucket="made", app_label="fourth"))
    assert found() == ["natskv.E210"]


def test_e203_a_config_among_the_objects_of_a_model():
    model(said(key="same"))
    config(said(key="same.one", app_label="other"))
    assert found() == ["natskv.E203"]


@pytest.mark.parametrize("key", ["theme", "_evaluators"])
def test_e203_a_config_among_flags(key):
    config(said(key=key))
    assert found() == []
    config(said(key=key, bucket=Features._declaration.bucket, app_label="other"))
    assert found() == ["natskv.E203"]


@pytest.mark.parametrize("key", ["same.site", "same.site.3", "same.site.3.tenant.x"])
@pytest.mark.parametrize("declare", [config, model])
def test_e203_a_class_where_the_scopes_of_another_are(declare, key):
    config(said(key="same", scopes=("site", "tenant")))
    declare(said(key=key, app_label="other"))
    assert found() == ["natskv.E203"]
    declare(said(key="same.other", app_label="third"))
    assert found() == ["natskv.E203"]


@pytest.mark.parametrize(
    "scopes", [("si te",), ("site.x",), ("é",), ("",), (3,), ("site", "site"), ("a", "b", "c", "d", "e")]
)
def test_e211_scopes(scopes):
    config(said(scopes=scopes))
    assert found() == ["natskv.E211"]


def test_e211_a_model_has_no_scopes():
    model(said(scopes=("site",)))
    assert found() == ["natskv.E211"]


def test_one_scope_may_be_a_text():
    assert config(said(scopes="site"))._declaration.scopes == ("site",)
    assert found() == []


@pytest.mark.parametrize("wrong", [{"bucket": "with space"}, {"key": "a..b"}, {"key": ""}])
def test_e204_names(wrong):
    config(said(**wrong))
    assert found() == ["natskv.E204"]


def test_e205_a_config_has_defaults():
    config(
        number=models.IntegerField(),
        name=models.CharField(max_length=5),
        maybe=models.IntegerField(null=True),
        blank=models.CharField(max_length=5, blank=True),
        given=models.DateTimeField(default=timezone.now),
    )
    assert found() == ["natskv.E205"] * 2


def test_e206_a_model_has_a_primary_key_and_a_config_has_none():
    declare(registry.Model, name=models.CharField(max_length=5))
    config(said(app_label="other"), name=models.CharField(max_length=5, primary_key=True))
    assert found() == ["natskv.E206"] * 2


@pytest.mark.parametrize("name", ["history", "revision", "objects", "current", "save", "_frozen"])
def test_e207_names_that_are_taken(name):
    config(**{name: models.IntegerField(default=0)})
    assert found() == ["natskv.E207"]


def test_e208_connections():
    config(said(connection="nowhere"))
    assert found() == ["natskv.E208"]
    with override_settings(NATSKV=None):
        assert found() == []  # told by the check of the settings


@pytest.mark.parametrize(
    "wrong", [{"history": 0}, {"history": 65}, {"history": "5"}, {"version": 0}, {"version": True}]
)
def test_e209_numbers(wrong):
    config(said(**wrong))
    assert found() == ["natskv.E209"]


def test_what_django_says_of_fields_and_ordering_is_said():
    config(said(ordering=("nothing",)), text=models.CharField(blank=True, max_length=-1))
    assert found() == ["fields.E121", "models.E015"]


@pytest.mark.parametrize("name", ["?", models.F("code").desc()], ids=["chance", "expression"])
def test_e212_an_order_that_only_a_database_knows(name):
    model(said(ordering=("-code", name)))
    assert found() == ["natskv.E212"]


@pytest.mark.parametrize("name", ["objects", "others"])
def test_e213_a_manager_of_its_own(name):
    base = model(said(abstract=True), **{name: models.Manager()})
    assert found() == []
    declare(base)
    assert found() == ["natskv.E213"]


def test_e214_a_bucket_that_keeps_nothing_to_go_back_to():
    config(said(bucket="short", history=6))
    with override_settings(NATSKV={"default": {"BUCKETS": {"short": {"history": 1}}}}):
        assert found() == ["natskv.E214"]


@pytest.mark.parametrize(
    ("kept", "wanted", "expected"), [(1, None, ["W200"]), (5, 6, ["W200"]), (5, 5, []), (1, 1, [])]
)
def test_w200_a_bucket_that_keeps_less_than_is_wanted(kept, wanted, expected):
    config(said(bucket="short", **({} if wanted is None else {"history": wanted})))
    with override_settings(NATSKV={"default": {"BUCKETS": {"short": {"history": kept}}}}):
        assert found() == [f"natskv.{one}" for one in expected]


def test_w201_what_is_not_unique():
    model(name=models.CharField(max_length=5, unique=True))
    config(
        said(
            app_label="other",
            constraints=[models.UniqueConstraint(fields=["number"], name="one")],
        ),
        number=models.IntegerField(default=0),
    )
    assert found() == ["natskv.W201"] * 2


def test_every_message_has_a_place_and_every_id_is_documented_and_tested():
    config(
        said(bucket="a b", history=0, connection="x"), logo=models.FileField(), history=models.IntegerField(unique=True)
    )
    for message in rules.check_registry():
        assert message.obj is not None
        assert message.msg.endswith(".")
    code = (ROOT / "django_natskv" / "registry" / "checks.py").read_text(encoding="utf-8")
    used = set(re.findall(r'"natskv\.([EW]\d{3})"', code))
    assert used == set(re.findall(r"`natskv\.([EW]\d{3})`", REFERENCE.read_text(encoding="utf-8")))
    tested = set(re.findall(r"def test_([ew]\d{3})_", Path(__file__).read_text(encoding="utf-8")))
    assert {one.lower() for one in used} == tested


def test_the_bucket_of_the_classes_of_the_tests_is_their_own():
    assert {each._declaration.bucket for each in (ShopConfig, Carrier)} == {BUCKET}
