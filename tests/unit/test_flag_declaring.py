"""Declaring flags: what a FlagSet takes, and what `manage.py check` says of it."""

from __future__ import annotations

import datetime as dt
from types import new_class

import pytest
from django.core import mail

from django_natskv import registry
from django_natskv.exceptions import UsageError
from django_natskv.registry._declaring import flag_sets
from django_natskv.registry._flag_checks import expired_flags
from django_natskv.registry.checks import check_registry


@pytest.fixture
def undone():
    """What the test declares is forgotten."""
    before = list(flag_sets)
    yield
    flag_sets[:] = before


def found(cls):
    return [(one.id, one.msg) for one in check_registry() if one.obj is cls]


def test_flags_know_their_names_and_come_in_order(undone):
    class Some(registry.FlagSet):
        first = registry.Flag()
        second = registry.Variant("a", "b", default="b")

    assert [flag.name for flag in Some] == ["first", "second"]
    assert repr(Some.second) == "<Variant second>"
    assert Some.second.declaration.value == "b"
    assert Some._declaration.bucket == "flags"
    assert found(Some) == []
    assert {Some.first, Some.second} <= set(registry.all_flags())


def test_a_set_without_meta_can_be_declared_in_production(undone, monkeypatch):
    monkeypatch.delattr(mail, "outbox")  # neither DEBUG nor a test: a name that is not declared raises nothing

    class Some(registry.FlagSet):
        first = registry.Flag()

    assert Some._declaration.bucket == "flags"


def test_a_base_without_flags_gives_its_meta(undone):
    class Base(registry.FlagSet):
        class Meta:
            bucket = "elsewhere"
            history = 5

    class Some(Base):
        inherited_meta = registry.Flag()

    assert (Some._declaration.bucket, Some._declaration.history) == ("elsewhere", 5)
    assert Base not in flag_sets


def test_what_cannot_be_declared_is_refused():
    with pytest.raises(TypeError, match="buckett"):

        class Some(registry.FlagSet):
            class Meta:
                buckett = "x"

    with pytest.raises(UsageError, match="default is True or False"):

        class Other(registry.FlagSet):
            wrong = registry.Flag(default=1)  # type: ignore[arg-type]


def test_a_name_declared_twice_is_an_error(undone):
    class One(registry.FlagSet):
        twice = registry.Flag()

    class Two(registry.FlagSet):
        twice = registry.Flag()

        class Meta:
            bucket = "another"

    [(identity, text)] = found(Two)
    assert identity == "natskv.E220"
    assert "One" in text


@pytest.mark.parametrize("name", ["_evaluators", "share_rules", "shared_rules", "größe", "mro"])
def test_a_name_that_cannot_be_a_flags_is_an_error(undone, name):
    cls = new_class("Some", (registry.FlagSet,), exec_body=lambda space: space.update({name: registry.Flag()}))
    assert [identity for identity, _ in found(cls)] == ["natskv.E221"]


def test_a_place_that_cannot_be_is_an_error(undone):
    class Some(registry.FlagSet):
        misplaced = registry.Flag()

        class Meta:
            bucket = "no.such"
            connection = "nowhere"

    assert [identity for identity, _ in found(Some)] == ["natskv.E222", "natskv.E222"]


def test_an_expired_flag_is_a_warning_that_names_its_owner(undone):
    class Some(registry.FlagSet):
        lasting = registry.Flag(expires=dt.date(2999, 1, 1))
        gone = registry.Flag(expires=dt.date(2020, 1, 2), owner="payments")
        older = registry.Flag(expires=dt.date(2020, 1, 1))

    [(identity, text), _] = found(Some)
    assert identity == "natskv.W220"
    assert "payments" in text
    assert [flag.name for flag in expired_flags() if flag.flag_set is Some] == ["older", "gone"]
    assert Some.gone not in expired_flags(dt.date(2020, 1, 2))
