"""The system checks of ``settings.CACHES``, by their ids; none of them connects."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core import checks
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_natskv.cache import NatsKVCache
from django_natskv.cache.options import parse, problems, setting_problems
from django_natskv.checks import TAG

ROOT = Path(__file__).parents[2]


def found(location="cache", **options):
    """Give code and place of each problem of a cache."""
    return [(each.code, each.path) for each in problems(location, {"OPTIONS": options}, "C")]


def option(name):
    return f'C["OPTIONS"]["{name}"]'


def cache(**params):
    return {"default": {"BACKEND": "django_natskv.cache.NatsKVCache", **params}}


def test_the_check_is_registered():
    with override_settings(CACHES=cache(LOCATION="a b")):
        [message] = checks.run_checks(tags=[TAG])
    assert (message.level, message.id) == (checks.ERROR, "natskv.E100")
    assert message.msg.startswith('CACHES["default"]["LOCATION"] ')
    assert message.hint


def test_caches_of_others_are_not_looked_at():
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        assert list(setting_problems()) == []


def test_all_that_the_contract_shows_passes():
    options = {
        "CONNECTION": "default",
        "CREATE": True,
        "BUCKET": {"storage": "memory"},
        "CODEC": "pickle",
        "LOCAL_CACHE": None,
        "LOCAL_CACHE_MAX_BYTES": 64 * 2**20,
        "ON_ERROR": "raise",
    }
    assert found(**options) == []
    assert found("nats://host:4222/cache") == []
    assert found("tls://user:secret@host/cache") == []
    assert found(MAX_ENTRIES=30, CULL_FREQUENCY=0, COMPRESS="zlib", COMPRESS_MIN=0, LOCAL_CACHE="mirror") == []


@pytest.mark.parametrize(
    "location",
    [None, "", 5, "a b", "a.b", "nats://host:4222", "nats://host:4222/", "http://host/cache", "nats://a b/c"],
)
def test_e100_a_location_is_a_bucket_or_a_url_with_one(location):
    assert {code for code, _ in found(location)} == {"E100"}


def test_e100_shows_nothing_of_a_url():
    for problem in problems("nats://user:secret@host/no name", {}, "C"):
        assert "secret" not in problem.message + problem.hint


@pytest.mark.parametrize("options", [[], "x", 5])
def test_e101_options_are_a_mapping(options):
    assert [each.code for each in problems("cache", {"OPTIONS": options}, "C")] == ["E101"]


@pytest.mark.parametrize(("name", "guess"), [("BUCKETS", "BUCKET"), ("codec", "CODEC"), ("ONERROR", "ON_ERROR")])
def test_e102_there_are_no_unknown_options(name, guess):
    [problem] = problems("cache", {"OPTIONS": {name: 1}}, "C")
    assert problem.code == "E102"
    assert f'Did you mean "{guess}"?' in problem.hint


@pytest.mark.parametrize(("name", "value"), [("CONNECTION", ""), ("CONNECTION", 5), ("CREATE", "yes"), ("CREATE", 1)])
def test_e103_an_option_has_its_type(name, value):
    assert found(**{name: value}) == [("E103", option(name))]


@pytest.mark.parametrize("value", [None, "memory", {"storage": "disk"}, {"stroage": "file"}, {"bucket": "x"}])
def test_e104_bucket_holds_options_of_a_bucket(value):
    assert found(BUCKET=value) == [("E104", option("BUCKET"))]


def test_e105_a_cache_has_no_history():
    assert found(BUCKET={"history": 5}) == [("E105", option("BUCKET"))]
    assert found(BUCKET={"history": 1}) == []


@pytest.mark.parametrize("value", ["jsn", dict, 5, "no.such.codec"])
def test_e106_a_codec_is_one(value):
    assert found(CODEC=value) == [("E106", option("CODEC"))]


@pytest.mark.parametrize(
    ("name", "value"), [("LOCAL_CACHE", "Mirror"), ("LOCAL_CACHE", True), ("ON_ERROR", "ignore"), ("COMPRESS", "gzip")]
)
def test_e107_a_choice_is_one_of_those_that_there_are(name, value):
    assert found(**{name: value}) == [("E107", option(name))]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_ENTRIES", 0),
        ("MAX_ENTRIES", "30"),
        ("CULL_FREQUENCY", -1),
        ("LOCAL_CACHE_MAX_BYTES", 0),
        ("COMPRESS_MIN", True),
    ],
)
def test_e108_a_number_is_whole_and_within_its_range(name, value):
    assert found(**{name: value}) == [("E108", option(name))]


def test_e109_a_url_needs_no_connection():
    assert found("nats://host/cache", CONNECTION="default") == [("E109", option("CONNECTION"))]


@override_settings(CACHES=cache(LOCATION="cache", OPTIONS={"CONNECTION": "sessions"}))
def test_e110_the_connection_is_declared():
    [problem] = setting_problems()
    assert (problem.code, problem.path) == ("E110", 'CACHES["default"]')
    with override_settings(CACHES=cache(LOCATION="nats://host/cache")):
        assert list(setting_problems()) == []


def bounded(most, local_cache="mirror", **params):
    options = {"LOCAL_CACHE": local_cache, "LOCAL_CACHE_MAX_BYTES": most, **params.pop("OPTIONS", {})}
    return {"BACKEND": "django_natskv.cache.NatsKVCache", "LOCATION": "cache", **params, "OPTIONS": options}


OTHERS = {
    "another prefix": bounded(2_000, KEY_PREFIX="b"),
    "another bucket": bounded(2_000, LOCATION="other", KEY_PREFIX="a"),
    "another server": bounded(2_000, LOCATION="nats://host/cache", KEY_PREFIX="a"),
    "another mode": bounded(2_000, "invalidate", KEY_PREFIX="a"),
    "no local cache": bounded(2_000, None, KEY_PREFIX="a"),
    "the same bound": bounded(1_000, KEY_PREFIX="a", OPTIONS={"ON_ERROR": "miss"}),
    "another backend": {"BACKEND": "django.core.cache.backends.dummy.DummyCache", "LOCATION": "cache"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_e111_is_for_those_who_share_a_local_cache(other):
    with override_settings(CACHES={"one": bounded(1_000, KEY_PREFIX="a"), "two": other}):
        assert list(setting_problems()) == []


def test_e111_a_local_cache_has_one_bound():
    with override_settings(CACHES={"one": bounded(1_000), "two": bounded(2_000)}):
        [problem] = setting_problems()
        assert (problem.code, problem.path) == ("E111", 'CACHES["two"]["OPTIONS"]["LOCAL_CACHE_MAX_BYTES"]')
        assert '1,000 of CACHES["one"]' in problem.message
    with override_settings(CACHES={"one": bounded(1_000, None), "two": bounded(2_000, None)}):
        assert list(setting_problems()) == []
    with override_settings(CACHES={"one": bounded(0), "two": bounded(2_000)}):
        assert [problem.code for problem in setting_problems()] == ["E108"]


def test_a_mistake_is_told_at_first_use_and_not_before():
    made = NatsKVCache("a b", {"OPTIONS": {"ON_EROR": "miss"}})
    made.close()
    with pytest.raises(ImproperlyConfigured, match=r"natskv\.E100.*\n.*natskv\.E102"):
        made.get("k")


def test_django_makes_it_without_a_look_at_anything(settings):
    settings.CACHES = cache(LOCATION="cache")
    assert type(caches["default"]) is NatsKVCache


def test_the_options_that_are_not_given_have_the_defaults_of_the_contract():
    options = parse("cache", {})
    assert (options.bucket, options.url, options.connection, options.create) == ("cache", "", "default", True)
    assert options.config == {"bucket": "cache", "storage": "memory", "history": 1, "discard": "old"}
    assert (options.codec, options.local_cache, options.on_error) == ("pickle", None, "raise")
    assert options.local_cache_max_bytes == 64 * 2**20
    assert "secret" not in repr(parse("nats://u:secret@host/cache", {}))
