"""Codecs: bound to a handle, failing as what they are, and never telling a value."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import json
import pickle
import uuid
from dataclasses import replace
from typing import Any

import nats
import pytest

from django_natskv.exceptions import CodecError
from django_natskv.kv import Codec
from tests.fix_facade import Face


class Reversed:
    """A codec of a user's own."""

    def encode(self, value):
        return value[::-1].encode()

    def decode(self, data):
        return data.decode()[::-1]


class Broken:
    def encode(self, value):
        msg = f"cannot have {value}"
        raise RuntimeError(msg)

    def decode(self, data):
        msg = f"cannot read {data!r}"
        raise RuntimeError(msg)


def raw(nats_server, bucket, key, data=None):
    """Read, or write, the bytes under a key as any other program would."""

    async def talk():
        client = await nats.connect(nats_server.url)
        store = await client.jetstream().key_value(bucket.name)
        answer: Any = await store.get(key) if data is None else await store.put(key, data)
        await client.close()
        return answer if data is not None else answer.value

    return asyncio.run(talk())


VALUES: dict[str, list[Any]] = {
    "json": [None, True, 0, -1, 2**70, 1.5, "", "Zoë \U0001f600", [], {}, {"a": [1, {"b": None}]}],
    "bytes": [b"", b"\x00\xff", b"x" * 100_000],
    "text": ["", "Zoë \U0001f600", "a\r\nb\x00"],
    "msgpack": [None, True, 0, 2**63, 1.5, "Zoë", b"\x00\xff", [1, [2]], {"a": None}, {"n": 2**64 - 1}, {1: 2}],
}


@pytest.mark.parametrize("codec", VALUES)
def test_every_value_comes_back(make_bucket, codec):
    bucket = make_bucket(codec=codec, history=64)
    for value in VALUES[codec]:
        bucket.put("a", value)
        assert bucket.get("a").value == value
        assert type(bucket.get("a").value) is type(value)
    assert [entry.value for entry in bucket.history("a")] == VALUES[codec]
    assert bucket.get_many(["a"])["a"].value == VALUES[codec][-1]


def test_msgpack_keeps_a_moment(make_bucket):
    bucket = make_bucket(codec="msgpack")
    moment = dt.datetime(2026, 2, 3, 4, 5, 6, 789_000, tzinfo=dt.UTC)
    bucket.put("a", {"at": moment})
    assert bucket.get("a").value == {"at": moment}


def test_json_takes_djangos_types_and_others_can_read_it(make_bucket, nats_server):
    bucket = make_bucket()
    bucket.put(
        "a",
        {
            "date": dt.date(2026, 2, 3),
            "at": dt.datetime(2026, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
            "price": decimal.Decimal("9.90"),
            "id": uuid.UUID(int=7),
            "for": dt.timedelta(minutes=1),
            "name": "Zoë",
        },
    )
    text = raw(nats_server, bucket, "a").decode()
    assert json.loads(text) == bucket.get("a").value
    assert bucket.get("a").value == {
        "date": "2026-02-03",
        "at": "2026-02-03T04:05:06Z",
        "price": "9.90",
        "id": "00000000-0000-0000-0000-000000000007",
        "for": "P0DT00H01M00S",
        "name": "Zoë",
    }
    assert "Zoë" in text
    assert ": " not in text


def test_json_is_the_default_and_the_connection_may_have_another(make_bucket, connect_kv, nats_server, face):
    bucket = make_bucket()
    bucket.put("a", {"x": 1})
    assert raw(nats_server, bucket, "a") == b'{"x":1}'
    other = face.wrap(connect_kv(codec="bytes")).kv()
    assert other.open_bucket(bucket.name).get("a").value == b'{"x":1}'
    assert other.open_bucket(bucket.name, codec="json").get("a").value == {"x": 1}


def test_a_codec_is_bound_to_its_handle(make_bucket, context):
    one = make_bucket(codec=Reversed())
    other = context.open_bucket(one.name, codec="text")
    one.put("a", "abc")
    assert other.get("a").value == "cba"
    other.put("a", "xyz")
    assert one.get("a").value == "zyx"
    assert [entry.value for entry in one.history("a")] == ["zyx"]
    assert one.get_many(["a"])["a"].value == "zyx"


def test_a_custom_codec_fits_the_protocol():
    assert isinstance(Reversed(), Codec)
    assert not isinstance(object(), Codec)


def test_a_codec_by_its_dotted_path(make_bucket):
    bucket = make_bucket(codec=f"{__name__}.Reversed")
    bucket.put("a", "abc")
    assert bucket.get("a").value == "abc"


UNFIT = [
    ("json", object()),
    ("json", {1, 2}),
    ("json", float("nan")),
    ("json", float("inf")),
    ("json", "\ud800"),
    ("json", b"bytes"),
    ("bytes", "text"),
    ("bytes", None),
    ("bytes", 7),
    ("text", b"bytes"),
    ("text", None),
    ("text", "\ud800"),
    ("msgpack", object()),
    ("msgpack", 2**64),
]


@pytest.mark.parametrize(("codec", "value"), UNFIT, ids=lambda value: f"{type(value).__name__}-{value!r:.12}")
def test_what_does_not_encode_is_a_codec_error_and_nothing_is_written(make_bucket, codec, value):
    bucket = make_bucket(codec=codec)
    for write in (
        lambda: bucket.put("a", value),
        lambda: bucket.create("a", value),
        lambda: bucket.update("a", value, 1),
    ):
        with pytest.raises(CodecError) as caught:
            write()
        assert (caught.value.key, caught.value.bucket) == ("a", bucket.name)
        assert "'a'" in str(caught.value)
        assert bucket.name in str(caught.value)
    assert bucket.history("a") == []


def test_json_that_is_too_deep_is_a_codec_error(make_bucket):
    bucket = make_bucket()
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CodecError):
        bucket.put("a", deep)
    round_: list[object] = []
    round_.append(round_)
    with pytest.raises(CodecError):
        bucket.put("a", round_)


@pytest.mark.parametrize("codec", ["json", "text", "msgpack"])
def test_what_does_not_decode_is_a_codec_error_of_every_read(make_bucket, nats_server, codec):
    bucket = make_bucket(codec=codec, history=3)
    bucket.put("fine", "x")
    revision = raw(nats_server, bucket, "a", b"\xff\xc1 s3cr3t")
    for read in (
        lambda: bucket.get("a"),
        lambda: bucket.get("a", revision=revision),
        lambda: bucket.history("a"),
        lambda: bucket.get_many(["fine", "a"]),
    ):
        with pytest.raises(CodecError) as caught:
            read()
        assert (caught.value.key, caught.value.bucket) == ("a", bucket.name)
        assert "s3cr3t" not in str(caught.value)
    assert sorted(bucket.keys()) == ["a", "fine"]
    assert bucket.get("fine").value == "x"
    bucket.delete("a")
    assert bucket.get("a") is None


def test_an_error_of_a_codec_does_not_tell_the_value(make_bucket, context):
    bucket = make_bucket(codec=Broken())
    with pytest.raises(CodecError) as caught:
        bucket.put("a", "s3cr3t")
    assert "s3cr3t" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    context.open_bucket(bucket.name, codec="text").put("a", "s3cr3t")
    with pytest.raises(CodecError) as caught:
        bucket.get("a")
    assert "s3cr3t" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert "s3cr3t" not in repr(pickle.loads(pickle.dumps(caught.value)))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_codec_that_gives_no_bytes_is_told(make_bucket):
    class Texts(Reversed):
        def encode(self, value):
            return str(value)

    bucket = make_bucket(codec=Texts())
    with pytest.raises(CodecError, match="must give bytes"):
        bucket.put("a", "s3cr3t")
    assert bucket.get("a") is None


def test_a_codec_runs_in_the_callers_thread(make_bucket, face: Face):
    import threading  # noqa: PLC0415

    seen = set()

    class Telling(Reversed):
        def encode(self, value):
            seen.add(threading.get_ident())
            return super().encode(value)

        def decode(self, data):
            seen.add(threading.get_ident())
            return super().decode(data)

    bucket = make_bucket(codec=Telling())
    bucket.put("a", "x")
    bucket.get("a")
    assert seen == {threading.get_ident()}


def test_entries_with_values_of_any_kind_compare(bucket):
    bucket.put("a", {"x": [1]})
    assert bucket.get("a") == bucket.get("a")
    assert replace(bucket.get("a"), value=2) != bucket.get("a")
