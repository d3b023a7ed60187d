"""The codec "pickle" of a bucket: any value comes back as it was, and a pickle that others planted does not run."""

from __future__ import annotations

import datetime as dt
import pickle
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.connections import connections
from django_natskv.exceptions import CodecError


class Planted:
    """What runs when it is unpickled."""

    ran = False

    def __reduce__(self) -> Any:
        return setattr, (Planted, "ran", True)


@pytest.fixture
def context(natskv: Any, bucket_name: str) -> Any:
    context = connections["default"].kv()
    context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    yield context
    context.delete_bucket(bucket_name)


@pytest.fixture
def bucket(context: Any, bucket_name: str) -> Any:
    return context.open_bucket(bucket_name, codec="pickle")


@pytest.fixture
def raw(context: Any, bucket_name: str) -> Any:
    return context.open_bucket(bucket_name, codec="bytes")


VALUES = [
    None,
    True,
    0,
    2**100,
    1.5,
    "Zoë",
    b"\0",
    (1, [2]),
    {1: {2}},
    frozenset("a"),
    dt.date(2026, 1, 2),
    ValueError(3),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_as_it_was(bucket, value):
    bucket.put("k", value)
    found = bucket.get("k").value
    assert type(found) is type(value)
    assert repr(found) == repr(value)


async def test_awaited_and_watched_too(bucket, context, natskv, bucket_name):
    await bucket.aput("k", {1, 2})
    assert (await bucket.aget("k")).value == {1, 2}
    copy = connections["default"].local_cache(bucket_name, codec="pickle")
    assert await copy.await_ready(30)
    assert copy.value("k") == {1, 2}


def test_a_pickle_that_was_planted_does_not_run(bucket, raw):
    bucket.put("k", 1)
    signature = raw.get("k").value[:32]
    bomb = pickle.dumps(Planted())
    pickle.loads(bomb)
    assert Planted.ran  # or this would be no test
    Planted.ran = False
    for data in (bomb, b"\0" * 32 + bomb, signature + bomb, signature, b"", b"\xff"):
        raw.put("k", data)
        with pytest.raises(CodecError, match="'k'"):
            bucket.get("k")
    assert not Planted.ran


def test_a_value_of_a_cache_does_not_pass_for_one_of_a_bucket_nor_the_other_way(bucket, raw, bucket_name):
    cache = NatsKVCache(bucket_name, {})
    cache.set("k", [1])
    entry = raw.get("_.1.k")
    with pytest.raises(CodecError):
        bucket.get("_.1.k")
    bucket.put("other", [2])
    raw.put("_.1.k", raw.get("other").value, headers=dict(entry.headers))
    assert cache.get("k") is None


def test_what_an_earlier_key_signed_is_read_as_long_as_it_is_a_fallback(bucket, settings):
    settings.SECRET_KEY = "old"
    bucket.put("k", [1])
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["older", "old"]
    assert bucket.get("k").value == [1]
    bucket.put("l", [2])
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(CodecError):
        bucket.get("k")
    assert bucket.get("l").value == [2]


def test_what_does_not_pickle_is_an_error_and_not_written(bucket):
    with pytest.raises(CodecError):
        bucket.put("k", lambda: None)
    assert bucket.get("k") is None


def test_it_may_be_the_codec_of_a_connection(natskv, settings, context, bucket_name):
    settings.NATSKV = {"default": {**natskv, "CODEC": "pickle"}}
    bucket: Any = connections["default"].kv().open_bucket(bucket_name)
    bucket.put("k", {1})
    assert bucket.get("k").value == {1}
