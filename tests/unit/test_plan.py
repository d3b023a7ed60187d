"""Declared buckets: how declarations come together, and what tells them from what there is."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.connection import ConnectionDoesNotExist

from django_natskv import declarations
from django_natskv.declarations import Declaration, declared_buckets, register
from django_natskv.kv import BucketConfig
from django_natskv.management.plan.difference import compare

PRESENT: dict[str, Any] = {
    "bucket": "b",
    "description": "what it is for",
    "history": 5,
    "ttl_ms": 60_000,
    "max_value_size": -1,
    "max_bucket_size": 1_000,
    "storage": "file",
    "replicas": 1,
    "compression": False,
    "limit_marker_ttl_ms": 0,
    "metadata": {"team": "shop"},
    "placement": {"tags": ("ssd",)},
    "republish": {"source": ">", "destination": "copies.>", "headers_only": False},
    "sources": ({"bucket": "a"},),
}


def _config(**given: Any) -> BucketConfig:
    return BucketConfig.parse({"bucket": "b", **given})


@pytest.mark.parametrize(
    "same",
    [
        {},
        {"history": 5, "storage": "file"},
        {"metadata": {"team": "shop"}},
        {"placement": {"tags": ["ssd"], "cluster": ""}},
        {"republish": {"destination": "copies.>"}},
        {"sources": ["a"]},
        {"sources": [{"bucket": "a"}]},
    ],
    ids=str,
)
def test_what_is_declared_and_there_is_no_difference(same):
    assert compare(_config(**same), BucketConfig(**PRESENT)) == ()


def test_what_is_empty_is_the_same_as_what_is_not_there():
    nothing: dict[str, Any] = {"description": None, "placement": None, "metadata": {}, "sources": (), "republish": None}
    bare = BucketConfig(**{**PRESENT, **nothing})
    assert compare(_config(description="", placement={}, metadata={}, sources=[], republish={}), bare) == ()
    assert [each.new for each in compare(_config(republish={}), BucketConfig(**PRESENT))] == [None]


@pytest.mark.parametrize(
    ("declared", "in_place", "loses"),
    [
        ({"history": 6}, True, False),
        ({"history": 4}, True, True),
        ({"ttl_ms": 0}, True, False),
        ({"ttl_ms": 61_000}, True, False),
        ({"ttl_ms": 59_000}, True, True),
        ({"max_value_size": 10}, True, True),
        ({"max_bucket_size": -1}, True, False),
        ({"max_bucket_size": 1_001}, True, False),
        ({"max_bucket_size": 999}, True, True),
        ({"storage": "memory"}, False, False),
        ({"mirror": "a"}, False, False),
        ({"replicas": 3}, True, False),
        ({"metadata": {"team": "it"}}, True, False),
        ({"description": ""}, True, False),
        ({"republish": {"destination": "copies.>", "headers_only": True}}, True, False),
    ],
    ids=str,
)
def test_a_difference_tells_what_it_costs(declared, in_place, loses):
    (found,) = compare(_config(**declared), BucketConfig(**PRESENT))
    assert (found.option, found.in_place, found.loses_data) == (next(iter(declared)), in_place, loses)


def test_a_life_without_end_becomes_shorter_by_any_limit():
    (found,) = compare(_config(ttl_ms=10**9), BucketConfig(**{**PRESENT, "ttl_ms": 0}))
    assert found.loses_data


# ---------------------------------------------------------------- who declares


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    monkeypatch.setattr(declarations, "_providers", made)
    return made


SETTINGS = {"default": {"BUCKETS": {"z": {"history": 2}, "a": {}}}, "other": {}}


@override_settings(NATSKV=SETTINGS)
def test_settings_declare_by_alias(providers):
    found = declared_buckets("default")
    assert list(found) == ["a", "z"]
    assert found["z"].config == BucketConfig(bucket="z", history=2)
    assert found["z"].sources == ('NATSKV["default"]["BUCKETS"]["z"]',)
    assert declared_buckets("other") == {}
    with pytest.raises(ConnectionDoesNotExist):
        declared_buckets("nowhere")


@override_settings(NATSKV=SETTINGS)
def test_others_declare_too_and_what_they_say_of_one_bucket_comes_together(providers):
    def provide(alias: str) -> list[Declaration]:
        config = BucketConfig(bucket="z", ttl_ms=5_000, history=2)
        return [Declaration(config, "a cache")] if alias == "default" else []

    register(provide)
    register(provide)
    assert len(providers) == 1
    found = declared_buckets("default")["z"]
    assert found.config == BucketConfig(bucket="z", history=2, ttl_ms=5_000)
    assert found.sources == ('NATSKV["default"]["BUCKETS"]["z"]', "a cache")
    assert declared_buckets("other") == {}


@override_settings(NATSKV=SETTINGS)
def test_two_that_want_different_things_are_told(providers):
    register(lambda _alias: [Declaration(BucketConfig(bucket="z", history=3), "a cache")])
    with pytest.raises(ImproperlyConfigured, match=r"history 2 and 3, in NATSKV.*\"z\"\] and a cache"):
        declared_buckets("default")
