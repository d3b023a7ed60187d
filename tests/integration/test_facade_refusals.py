"""Mistakes in the call are refused before anything is sent, by every operation; property-based where it can be.

Nothing listens at the address of these handles, and a request, even a refused one, would begin to connect: a
connection that is still idle proves that nothing was sent.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from django_natskv import kv
from django_natskv.exceptions import (
    InvalidKey,
    InvalidKeys,
    InvalidName,
    InvalidTTL,
    MissingRequiredKey,
    UnknownConfigKey,
    UsageError,
)
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.verbs import Wire
from tests.fix_facade import Face

NOBODY = "nats://127.0.0.1:1"
# That a machine is slow to think of examples is no fault of what is tested.
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=CHECKS)

KEY = re.compile(r"[-/_=A-Za-z0-9]+(\.[-/_=A-Za-z0-9]+)*")
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
BREAKING = [
    "",
    " ",
    ".",
    "..",
    ".a",
    "a.",
    "a..b",
    "a b",
    " a",
    "a ",
    "a\t",
    "a\r\n",
    "a\n",
    "\na",
    "a\r\nPUB x 1\r\nA\r\n",
    "a\x00b",
    "*",
    ">",
    "a.*",
    "a.>",
    "a*",
    "$KV",
    "a:b",
    "a\\b",
    "é",
    "\u0430",  # a Cyrillic letter that looks like an a
    "\u0663",  # a digit, to Unicode
    "a\u200b",
    "\ud800",
    "k" * 1025,
]
NO_STRINGS = [None, 7, 7.0, True, b"a", ["a"], ("a",), {"a": 1}, ...]

breaking = st.one_of(
    st.sampled_from(BREAKING),
    st.text(max_size=30).filter(lambda text: not KEY.fullmatch(text)),
    st.from_regex(r"[a-z.]*[\r\n \t\x00*>$:;,'\"]+[a-z.]*", fullmatch=True),
    st.integers(1025, 100_000).map(lambda length: "k" * length),
    st.sampled_from(NO_STRINGS[:-1]),
)

WITH_KEY = {
    "get": lambda bucket, key: bucket.get(key),
    "get pinned": lambda bucket, key: bucket.get(key, revision=1),
    "put": lambda bucket, key: bucket.put(key, 1),
    "create": lambda bucket, key: bucket.create(key, 1),
    "create with ttl": lambda bucket, key: bucket.create(key, 1, ttl_ms=1000),
    "update": lambda bucket, key: bucket.update(key, 1, 1),
    "delete": lambda bucket, key: bucket.delete(key),
    "delete guarded": lambda bucket, key: bucket.delete(key, revision=1),
    "purge": lambda bucket, key: bucket.purge(key),
    "purge guarded": lambda bucket, key: bucket.purge(key, revision=1, marker_ttl_ms=1000),
    "history": lambda bucket, key: bucket.history(key),
    "get_many": lambda bucket, key: bucket.get_many([key]),
    "get_many with others": lambda bucket, key: bucket.get_many(["fine", key, "fine.too"]),
    "write_many": lambda bucket, key: bucket.write_many([kv.Change.put("fine", 1), kv.Change.put(key, 1)]),
    "write_many atomic": lambda bucket, key: bucket.write_many([kv.Change.put(key, 1)], atomic=True),
}
WITH_FILTER = {
    "keys": lambda bucket, keys: bucket.keys(keys),
    "erase": lambda bucket, keys: bucket.erase(keys),
    "entries": lambda bucket, keys: list(bucket.entries(keys)),
    "entries with history": lambda bucket, keys: list(bucket.entries(keys, history=True)),
    "watch": lambda bucket, keys: bucket.watch(print, keys=keys),
}
WITH_NAME = {
    "create_bucket": lambda context, name: context.create_bucket({"bucket": name}),
    "mirror": lambda context, name: context.create_bucket({"bucket": "fine", "mirror": name}),
    "sources": lambda context, name: context.create_bucket({"bucket": "fine", "sources": ["fine", {"bucket": name}]}),
    "open_bucket": lambda context, name: context.open_bucket(name),
    "update_bucket": lambda context, name: context.update_bucket({"bucket": name}),
    "delete_bucket": lambda context, name: context.delete_bucket(name),
    "bucket_status": lambda context, name: context.bucket_status(name),
    "bucket_health": lambda context, name: context.bucket_health(name),
}


class Nobody:
    """A connection that was never used, and handles on it as if it had been."""

    def __init__(self, connection: kv.Connection, face: Face) -> None:
        self.connection = connection
        plain = connection._context(Wire(connection._requests))
        self.context = face.wrap(plain)
        info = BucketInfo("b", {"name": "KV_b", "allow_direct": True}, datetime.now(UTC), 0, 0, 0, 0)
        self.bucket = face.wrap(plain._handle(info, plain._codec(None)))

    def refuses(self, error: type[Exception], call: Any) -> Any:
        """Return the error that ``call`` raises, having made sure that nothing was sent for it."""
        with pytest.raises(error) as caught:
            call()
        assert self.connection.status == "idle"
        assert not self.connection._requests.driver._posted
        return caught.value


@pytest.fixture
def nobody(connect_kv, face):
    return Nobody(connect_kv(NOBODY), face)


def test_an_idle_connection_is_proof(nobody):
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        nobody.bucket.get("fine")
    assert nobody.connection.status != "idle"


@pytest.mark.parametrize("operation", WITH_KEY)
@QUICK
@given(key=breaking)
def test_a_key_that_is_none_is_refused(nobody, operation, key):
    error = nobody.refuses(InvalidKey, lambda: WITH_KEY[operation](nobody.bucket, key))
    assert error.key == key
    assert "key" in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize("operation", WITH_KEY)
@pytest.mark.parametrize("key", [*BREAKING, *NO_STRINGS], ids=lambda key: f"{key!r:.40}"[:40])
def test_each_key_that_could_break_the_protocol_is_refused(nobody, operation, key):
    nobody.refuses(InvalidKey, lambda: WITH_KEY[operation](nobody.bucket, key))


@pytest.mark.parametrize("operation", WITH_NAME)
@QUICK
@given(
    name=st.one_of(
        st.sampled_from([*BREAKING, "a.b", "a/b", "a=b", "n" * 129]),
        st.text(max_size=200).filter(lambda text: not NAME.fullmatch(text)),
    )
)
def test_a_name_that_is_none_is_refused(nobody, operation, name):
    error = nobody.refuses(InvalidName, lambda: WITH_NAME[operation](nobody.context, name))
    assert error.name == name
    assert "name" in str(error)


@pytest.mark.parametrize("operation", ["open_bucket", "delete_bucket", "bucket_status", "bucket_health"])
@pytest.mark.parametrize("name", NO_STRINGS, ids=lambda name: type(name).__name__)
def test_a_name_is_a_string(nobody, operation, name):
    assert nobody.refuses(InvalidName, lambda: WITH_NAME[operation](nobody.context, name)).name == name


@pytest.mark.parametrize("operation", WITH_FILTER)
@QUICK
@given(
    pattern=st.one_of(
        st.sampled_from([*(set(BREAKING) - {"*", ">", "a.*", "a.>"}), ">.a", "a.>.b", "a>", "*a", "a.**"]),
        st.text(max_size=20).filter(lambda text: not re.fullmatch(r"[-/_=A-Za-z0-9.*>]*", text)),
        st.sampled_from(NO_STRINGS[:-1]).filter(lambda value: not isinstance(value, list | tuple | dict)),
    )
)
def test_a_filter_that_is_none_is_refused(nobody, operation, pattern):
    if pattern is not None:
        assert nobody.refuses(InvalidKeys, lambda: WITH_FILTER[operation](nobody.bucket, pattern)).keys == pattern
    error = nobody.refuses(InvalidKeys, lambda: WITH_FILTER[operation](nobody.bucket, ["fine.*", pattern]))
    assert error.keys == ["fine.*", pattern]
    nobody.refuses(InvalidKeys, lambda: WITH_FILTER[operation](nobody.bucket, []))


@pytest.mark.parametrize("revision", [0, -1, 1.0, "1", True, b"1"], ids=repr)
def test_a_revision_that_is_none_is_refused(nobody, revision):
    bucket = nobody.bucket
    for call in (
        lambda: bucket.get("a", revision=revision),
        lambda: bucket.update("a", 1, revision),
        lambda: bucket.delete("a", revision=revision),
        lambda: bucket.purge("a", revision=revision),
        lambda: bucket.erase("a", before=revision),
    ):
        assert repr(revision) in str(nobody.refuses(UsageError, call))
    nobody.refuses(UsageError, lambda: bucket.update("a", 1, None))


@pytest.mark.parametrize("ttl_ms", [0, 1, 999, -1000, 1000.0, "1000", True, 10**30], ids=repr)
def test_a_time_to_live_that_is_none_is_refused(nobody, ttl_ms):
    assert nobody.refuses(InvalidTTL, lambda: nobody.bucket.create("a", 1, ttl_ms=ttl_ms)).ttl_ms == ttl_ms
    assert nobody.refuses(InvalidTTL, lambda: nobody.bucket.purge("a", marker_ttl_ms=ttl_ms)).ttl_ms == ttl_ms


@pytest.mark.parametrize(
    "altered",
    [{"revision": -1}, {"revision": "1\r\nX: y"}, {"revision": True}, {"operation": "put"}, {"operation": "x"}],
)
def test_a_change_that_was_altered_into_none_is_refused(nobody, altered):
    change = dataclasses.replace(kv.Change.put("a", 1), **altered)
    nobody.refuses(UsageError, lambda: nobody.bucket.write_many([kv.Change.put("fine", 1), change]))


# ---------------------------------------------------------------------- the closed configuration

BOTH = {
    "create_bucket": lambda context, config: context.create_bucket(config),
    "update_bucket": lambda context, config: context.update_bucket(config),
}


@pytest.mark.parametrize("operation", BOTH)
@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("histroy", "'history'"),
        ("max_msgs", ""),
        ("ttl", "'ttl_ms'"),
        ("name", ""),
        ("Bucket", "'bucket'"),
        ("", ""),
        (7, ""),
        ("given", ""),
        ("parse", ""),
        ("__class__", ""),
    ],
    ids=str,
)
def test_an_unknown_option_is_refused_and_the_likely_one_named(nobody, operation, key, hint):
    error = nobody.refuses(UnknownConfigKey, lambda: BOTH[operation](nobody.context, {"bucket": "b", key: 1}))
    assert error.key == key
    assert repr(key) in str(error)
    assert hint in str(error)


@pytest.mark.parametrize("operation", BOTH)
@pytest.mark.parametrize("config", [{}, {"history": 3}, {"bucket": None}], ids=str)
def test_a_configuration_without_its_bucket_is_refused(nobody, operation, config):
    error = nobody.refuses(MissingRequiredKey, lambda: BOTH[operation](nobody.context, config))
    assert error.key == "bucket"


@pytest.mark.parametrize("config", [None, "b", ["b"], 7, [("bucket", "b")]], ids=str)
def test_a_configuration_is_a_mapping(nobody, config):
    nobody.refuses(UsageError, lambda: nobody.context.create_bucket(config))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("description", 7),
        ("description", b"x"),
        ("description", "\ud800"),
        ("history", 0),
        ("history", 65),
        ("history", "3"),
        ("history", True),
        ("history", 3.0),
        ("ttl_ms", -1),
        ("ttl_ms", 1.5),
        ("ttl_ms", True),
        ("ttl_ms", 10**18),
        ("max_value_size", 0),
        ("max_value_size", -2),
        ("max_value_size", 2**31),
        ("max_value_size", "1KB"),
        ("max_bucket_size", 0),
        ("max_bucket_size", 2**63),
        ("storage", "disk"),
        ("storage", "FILE"),
        ("storage", 1),
        ("storage", []),
        ("replicas", 0),
        ("replicas", 6),
        ("discard", "oldest"),
        ("compression", "s2"),
        ("compression", 1),
        ("limit_marker_ttl_ms", -1),
        ("limit_marker_ttl_ms", 999),
        ("limit_marker_ttl_ms", 10**18),
        ("metadata", {"a": 1}),
        ("metadata", {1: "a"}),
        ("metadata", "a"),
        ("metadata", {"a": "\ud800"}),
        ("metadata", {"\ud800": "a"}),
        ("placement", "eu"),
        ("placement", {"tags": "eu"}),
        ("placement", {"tags": [1]}),
        ("placement", {"cluster": 1}),
        ("placement", {"cluster": "\ud800"}),
        ("placement", {"tags": ["\ud800"]}),
        ("republish", "copy.>"),
        ("republish", {"destination": 1}),
        ("republish", {"destination": ""}),
        ("republish", {"destination": "\ud800"}),
        ("republish", {"destination": "a", "headers_only": 1}),
        ("mirror", 7),
        ("sources", "one"),
        ("sources", [7]),
        ("sources", {"bucket": "one"}),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_name(nobody, option, value):
    for call in BOTH.values():
        error = nobody.refuses(UsageError, lambda call=call: call(nobody.context, {"bucket": "b", option: value}))
        assert option in str(error)


@pytest.mark.parametrize(
    ("option", "value", "error", "key"),
    [
        ("placement", {"tag": "eu"}, UnknownConfigKey, "placement.tag"),
        ("republish", {"destination": "a", "src": "b"}, UnknownConfigKey, "republish.src"),
        ("republish", {"source": "a"}, MissingRequiredKey, "republish.destination"),
        ("mirror", {"name": "a"}, UnknownConfigKey, "mirror.name"),
        ("mirror", {}, MissingRequiredKey, "mirror.bucket"),
        ("sources", ["a", {"bucket": "b", "x": 1}], UnknownConfigKey, "sources[1].x"),
        ("sources", [{"domain": "hub"}], MissingRequiredKey, "sources[0].bucket"),
    ],
    ids=str,
)
def test_the_mappings_inside_are_closed_too(nobody, option, value, error, key):
    caught = nobody.refuses(error, lambda: nobody.context.create_bucket({"bucket": "b", option: value}))
    assert caught.key == key


@pytest.mark.parametrize("codec", ["jsn", "no.such.module", "json.nothing", 7, ..., dict], ids=str)
@pytest.mark.parametrize("operation", ["create_bucket", "open_bucket"])
def test_what_is_no_codec_is_refused(nobody, operation, codec):
    argument = {"bucket": "b"} if operation == "create_bucket" else "b"
    nobody.refuses(UsageError, lambda: getattr(nobody.context, operation)(argument, codec=codec))


def test_a_mistake_is_a_value_error(nobody):
    nobody.refuses(ValueError, lambda: nobody.bucket.get("a b"))
