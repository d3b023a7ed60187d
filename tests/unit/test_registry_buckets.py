"""The buckets of declared classes, and who reads a bucket: what ``natskv_bucket sync`` and ``status`` are told."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_natskv import declarations, registry
from django_natskv.cache.options import BACKEND
from django_natskv.checks import TAG
from django_natskv.declarations import Declaration, declared_buckets, declared_readers, register
from django_natskv.kv import BucketConfig
from django_natskv.registry import _declaring, _place, buckets, checks as rules

NATSKV = {"default": {"BUCKETS": {"said": {"history": 3}}}, "other": {}}


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test declares is declared."""
    mine: list[Any] = []
    for module in (_declaring, rules, buckets, _place):
        monkeypatch.setattr(module, "declared", mine)
    flags: list[Any] = []
    for module in (_declaring, buckets, _place):
        monkeypatch.setattr(module, "flag_sets", flags)
    monkeypatch.setattr("django_natskv.registry._flag_sets.flag_sets", flags)
    monkeypatch.setattr(_declaring, "apps", type(_declaring.apps)())
    monkeypatch.setattr(declarations, "_providers", list(declarations._providers))


@pytest.fixture(autouse=True)
def settings() -> Any:
    with override_settings(NATSKV=NATSKV):
        yield


def config(label: str, **options: Any) -> Any:
    meta = type("Meta", (), {"app_label": label, **options})
    base: Any = registry.Config
    return type(base)("Made", (base,), {"__module__": "tests.made_up", "Meta": meta})


def test_the_class_that_wants_the_longest_history_has_its_way():
    config("a", bucket="b", history=5)
    config("b", bucket="b", history=30)
    config("c", bucket="b", connection="other")
    found = declared_buckets("default")["b"]
    assert found.config == BucketConfig(bucket="b", history=30)
    assert found.sources == ("a.Made", "b.Made")
    assert declared_buckets("other")["b"].config.history == 20
    assert _place.declared_bucket("default", "b") == found.config.given()


def test_flags_declare_theirs():
    meta = type("Meta", (), {"bucket": "f", "history": 7})
    base: Any = registry.FlagSet
    type(base)("Features", (base,), {"__module__": "tests.made_up", "Meta": meta, "on": registry.Flag(default=False)})
    found = declared_buckets("default")["f"]
    assert (found.config, found.sources) == (BucketConfig(bucket="f", history=7), ("tests.made_up.Features",))


def test_the_settings_overrule_it():
    config("a", bucket="said", history=30)
    assert declared_buckets("default")["said"].config == BucketConfig(bucket="said", history=3)


def test_a_class_that_cannot_be_kept_is_named():
    config("a", history=65)
    with pytest.raises(ImproperlyConfigured, match=r"a\.Made cannot be kept: .*from 1 to 64"):
        declared_buckets("default")


def test_readers_are_those_who_say_so():
    config("a", bucket="b")
    register(lambda _alias: [Declaration(BucketConfig(bucket="b", history=9), "code")])
    caches = {
        "default": {"BACKEND": BACKEND, "LOCATION": "b", "OPTIONS": {"LOCAL_CACHE": "invalidate"}},
        "far": {"BACKEND": BACKEND, "LOCATION": "b"},
        "elsewhere": {"BACKEND": BACKEND, "LOCATION": "c", "OPTIONS": {"LOCAL_CACHE": "mirror"}},
    }
    with override_settings(CACHES=caches):
        # That they contradict one another is no reason to be silent.
        assert declared_readers("default", "b") == {'CACHES["default"]': "invalidate", "a.Made": "mirror"}
        assert declared_readers("other", "b") == {}


def test_e120_two_that_want_different_things_of_a_bucket():
    assert checks.run_checks(tags=[TAG]) == []
    config("a", bucket="b")
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": "b"}}):
        (message,) = checks.run_checks(tags=[TAG])
    assert message.id == "natskv.E120"
    assert "history 1 and 20" in message.msg
    assert 'CACHES["default"] and a.Made' in message.msg


def test_what_other_checks_tell_is_not_told_twice():
    config("a", bucket="no name")
    assert [message.id for message in checks.run_checks(tags=[TAG])] == ["natskv.E204"]
    with override_settings(NATSKV={"default": {"BUCKETS": 7}}):
        ids = [message.id for message in checks.run_checks(tags=[TAG])]
    assert "natskv.E120" not in ids
