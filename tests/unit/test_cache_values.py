"""What a cache keeps of a value: the same comes back, only what is signed is unpickled, and no bomb goes off."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import importlib
import ipaddress
import lzma
import math
import pathlib
import pickle
import re
import sys
import tracemalloc
import uuid
import zlib
import zoneinfo
from typing import Any

import msgpack
import pytest
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse, QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy
from hypothesis import given, strategies as st

from django_natskv.cache import compression, signing
from django_natskv.cache.values import COMPRESS_MIN, FORMAT, UnreadableValueError, Values
from django_natskv.exceptions import CodecError, UsageError

KEY = "shop.1.user-7"
LARGE = {"words": ["the same"] * 1000}
HUGE = 7**100_000  # more digits than an int may be read from

Point = collections.namedtuple("Point", ["x", "y"])  # noqa: PYI024 - as people write it


class Number(enum.IntEnum):
    SEVEN = 7


class Colour(enum.Enum):
    RED = "red"


class Count(int):
    pass


@dataclasses.dataclass(frozen=True)
class Basket:
    owner: str
    lines: list[tuple[str, decimal.Decimal]]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def response() -> HttpResponse:
    return HttpResponse("hello", headers={"X-Shop": "1"})


SHAPES: dict[str, Any] = {
    "none": None,
    "true": True,
    "false": False,
    "zero": 0,
    "small": 42,
    "negative": -42,
    "64 bits": 2**63,
    "600 digits": 10**600,
    "1,000 digits": -(10**1000),
    "huge": HUGE,
    "int enum": Number.SEVEN,
    "enum": Colour.RED,
    "subclass of int": Count(3),
    "float": 0.1,
    "infinity": -math.inf,
    "negative zero": -0.0,
    "complex": 1 + 2j,
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "empty string": "",
    "string": "caf\u00e9 \U0001f600",
    "digits": "42",
    "surrogate": "a\ud800b",
    "nul": "a\0b\r\n",
    "empty bytes": b"",
    "bytes": bytes(range(256)),
    "bytes of digits": b"42",
    "bytearray": bytearray(b"ab"),
    "naive": dt.datetime(2030, 1, 2, 3, 4, 5, 6),  # noqa: DTZ001
    "aware": dt.datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=zoneinfo.ZoneInfo("Europe/Paris")),
    "date": dt.date(2030, 1, 2),
    "time": dt.time(3, 4),
    "timedelta": dt.timedelta(days=-1, microseconds=1),
    "uuid": uuid.UUID(int=7),
    "list": [1, "a", None],
    "tuple": (1, (2,), ()),
    "dict": {1: "a", "b": {2: 3}, (1, 2): None, None: 0},
    "order": collections.OrderedDict(b=1, a=2),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("hello"),
    "deque": collections.deque([1, 2], maxlen=3),
    "set": {1, "a"},
    "frozenset": frozenset({1, 2}),
    "named tuple": Point(1, 2),
    "dataclass": Basket("me", [("tea", decimal.Decimal("3.50"))]),
    "range": range(1, 10, 3),
    "slice": slice(1, 2),
    "ellipsis": ...,
    "path": pathlib.PurePosixPath("/a/b"),
    "address": ipaddress.ip_address("::1"),
    "pattern": re.compile(r"a+", re.IGNORECASE),
    "class": Basket,
    "function": nested,
    "partial of builtin": len,
    "safe string": mark_safe("<b>"),
    "query dict": QueryDict("a=1&a=2"),
    "multi value dict": MultiValueDict({"a": ["1", "2"]}),
    "nested": nested(100),
    "large": LARGE,
    "large bytes": bytes(3 * 2**20),
}


@pytest.mark.parametrize("compress", [None, "zlib", "lzma", "zstd"])
@pytest.mark.parametrize("value", SHAPES.values(), ids=SHAPES.keys())
def test_a_value_comes_back_as_it_was(value, compress):
    values = Values(compress=compress)
    data, headers = values.dump(KEY, value)
    assert type(data) is bytes
    found = values.load(KEY, data, headers)
    assert found == value
    assert type(found) is type(value)


def test_what_equals_nothing_comes_back_too():
    values = Values()

    def again(value: Any) -> Any:
        return values.load(KEY, *values.dump(KEY, value))

    assert math.isnan(again(math.nan))
    error = again(ValueError("no", 7))
    assert (type(error), error.args) == (ValueError, ("no", 7))
    sent = again(response())
    assert (sent.content, sent["X-Shop"]) == (b"hello", "1")
    lazy = again(gettext_lazy("Yes"))
    assert isinstance(lazy, Promise)
    assert str(lazy) == "Yes"
    assert type(again(mark_safe("<b>"))) is SafeString
    bound = again(functools.partial(int, base=2))
    assert bound("101") == 5
    cycle: list[Any] = []
    cycle.append(cycle)
    assert again(cycle)[0][0] is not cycle
    assert math.copysign(1, again(-0.0)) == -1
    order = again(collections.OrderedDict([("b", 1), ("a", 2)]))
    assert list(order) == ["b", "a"]


def test_models_come_back_without_a_database():
    values = Values()
    user = User(pk=7, username="ada")
    found = values.load(KEY, *values.dump(KEY, user))
    assert (found, found.username, found._state.db) == (user, "ada", None)
    many = Permission.objects.none()
    assert list(values.load(KEY, *values.dump(KEY, many))) == []
    rows = [User(pk=1, username="a"), User(pk=2, username="b")]
    assert [row.username for row in values.load(KEY, *values.dump(KEY, rows))] == ["a", "b"]


# ---------------------------------------------------------------- integers


@pytest.mark.parametrize("value", [0, 1, -1, 2**64, -(2**2000 - 1)])
def test_an_integer_is_stored_as_any_client_reads_it(value):
    assert Values().dump(KEY, value) == (str(value).encode(), {})
    assert Values(compress="zlib", compress_min=0).dump(KEY, value) == (str(value).encode(), {})


@pytest.mark.parametrize("value", [True, Number.SEVEN, Count(3), 2**2000, "42", 1.0], ids=type)
def test_what_is_not_just_an_integer_is_pickled(value):
    assert Values().dump(KEY, value)[1] == {FORMAT: "pickle"}


def test_the_limit_on_the_digits_of_integers_is_not_met():
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        for value in (2**2000 - 1, -(2**2000 - 1), 2**2000, HUGE):
            assert Values().load(KEY, *Values().dump(KEY, value)) == value
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize(
    "data", [b"", b"-", b"--1", b" 1", b"1 ", b"1\n", b"1_0", b"+1", b"1.0", b"0x1", "\u0661".encode()]
)
def test_what_is_nearly_an_integer_is_unreadable(data):
    with pytest.raises(UnreadableValueError) as caught:
        Values().load(KEY, data)
    assert caught.value.reason == "format"


def test_a_planted_integer_costs_nothing():
    assert Values().load(KEY, b"9" * 640) == int("9" * 640)
    with pytest.raises(UnreadableValueError):
        Values().load(KEY, b"9" * 641)


# ---------------------------------------------------------------- signatures

ran: list[str] = []


def spring(word: str) -> None:
    ran.append(word)


class Trap:
    def __reduce__(self):
        return spring, ("it ran",)


def planted() -> list[tuple[bytes, dict[str, str]]]:
    raw = pickle.dumps(Trap())
    signature = bytes(signing.SIZE)
    return [
        (raw, {}),
        (raw, {FORMAT: "pickle"}),
        (signature + raw, {FORMAT: "pickle"}),
        (zlib.compress(raw), {FORMAT: "pickle+zlib"}),
        (signature + zlib.compress(raw), {FORMAT: "pickle+zlib"}),
        (signature + raw, {FORMAT: "json"}),
        (raw, {FORMAT: "json+zlib"}),
        (b"", {FORMAT: "pickle"}),
        (signature, {FORMAT: "pickle"}),
    ]


@pytest.mark.parametrize("codec", ["pickle", "json", "msgpack"])
def test_a_planted_pickle_does_not_run(codec):
    for data, headers in planted():
        with pytest.raises(UnreadableValueError):
            Values(codec).load(KEY, data, headers)
    assert ran == []
    pickle.loads(pickle.dumps(Trap()))
    assert ran == ["it ran"]  # or the test could not fail
    ran.clear()


def test_nothing_is_decompressed_before_it_is_verified(monkeypatch):
    data, headers = Values(compress="zlib").dump(KEY, LARGE)
    monkeypatch.setattr(compression.Method, "decompress", lambda *_: pytest.fail("it was decompressed"))
    with pytest.raises(UnreadableValueError):
        Values().load(KEY, data[:-1], headers)


@given(st.data())
def test_no_bit_of_a_signed_value_can_be_changed(draws):
    data, headers = Values().dump(KEY, {"balance": 100})
    place = draws.draw(st.integers(0, len(data) * 8 - 1))
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(UnreadableValueError) as caught:
        Values().load(KEY, bytes(changed), headers)
    assert caught.value.reason == "signature"


@pytest.mark.parametrize("value", [{"admin": True}, bytes(5_000), bytes(100_000)], ids=["small", "medium", "large"])
def test_a_value_is_bound_to_its_key(value):
    data, headers = Values().dump(KEY, value)
    assert Values().load(KEY, data, headers) == value
    with pytest.raises(UnreadableValueError) as changed:
        Values().load(KEY, data[:-1] + bytes([data[-1] ^ 1]), headers)
    assert changed.value.reason == "signature"
    for other in ("shop.1.user-8", "shop.2.user-7", KEY + "0", KEY[:-1], ""):
        with pytest.raises(UnreadableValueError) as caught:
            Values().load(other, data, headers)
        assert (caught.value.reason, caught.value.key) == ("signature", other)


def test_the_end_of_the_key_cannot_be_taken_for_the_payload():
    assert not signing.verify(b"pickle:1:a", b"b", signing.sign(b"pickle:2:ab", b""))
    payload = pickle.dumps("x")
    forged = signing.sign(b"pickle:1:ab", payload)
    with pytest.raises(UnreadableValueError):
        Values().load("a", forged + b"b" + payload, {FORMAT: "pickle"})


def test_a_value_is_bound_to_its_format():
    data, headers = Values(compress="zlib").dump(KEY, LARGE)
    assert headers == {FORMAT: "pickle+zlib"}
    for other in ("pickle", "pickle+lzma", "pickle+zstd"):
        with pytest.raises(UnreadableValueError) as caught:
            Values().load(KEY, data, {FORMAT: other})
        assert caught.value.reason == "signature"
    for other in ("", "pickle+", "pickle+none", "json", "PICKLE", "pickle+zlib+zlib", "\ud800"):
        with pytest.raises(UnreadableValueError) as caught:
            Values().load(KEY, data, {FORMAT: other})
        assert caught.value.reason == "format"


def test_another_project_cannot_sign(settings):
    settings.SECRET_KEY = "another"
    data, headers = Values().dump(KEY, "x")
    settings.SECRET_KEY = "ours"
    with pytest.raises(UnreadableValueError):
        Values().load(KEY, data, headers)


def test_a_secret_can_be_replaced_while_values_are_kept(settings):
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "older", []
    stored = Values().dump(KEY, "x")
    settings.SECRET_KEY = "newer"
    with pytest.raises(UnreadableValueError):
        Values().load(KEY, *stored)
    settings.SECRET_KEY_FALLBACKS = ["oldest", "older"]
    assert Values().load(KEY, *stored) == "x"
    again = Values().dump(KEY, "x")
    settings.SECRET_KEY_FALLBACKS = []
    assert Values().load(KEY, *again) == "x"
    with pytest.raises(UnreadableValueError):
        Values().load(KEY, *stored)


def test_no_other_setting_drops_the_derived_keys(settings):
    first = signing._keyed()
    settings.USE_TZ = False
    assert signing._keyed() is first


# ---------------------------------------------------------------- what fails


class Moody:
    def __getstate__(self):
        return {"mood": 1}

    def __setstate__(self, state):
        raise LookupError("no such mood")


def test_what_cannot_be_unpickled_is_unreadable():
    data, headers = Values().dump(KEY, Moody())
    with pytest.raises(UnreadableValueError) as caught:
        Values().load(KEY, data, headers)
    assert caught.value.reason == "codec"
    assert isinstance(caught.value.__cause__, LookupError)


def test_the_errors_of_pickling_pass():
    for value, error in (
        (lambda: 1, (pickle.PickleError, AttributeError)),
        ((n for n in "ab"), TypeError),
        (sys, TypeError),
    ):
        with pytest.raises(error) as caught:
            Values().dump(KEY, value)
        assert not isinstance(caught.value, CodecError)


def test_an_unreadable_value_is_an_error_of_the_package_that_pickles():
    with pytest.raises(CodecError) as caught:
        Values().load(KEY, b"secret words", {})
    assert "secret words" not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), again.reason, again.key) == (UnreadableValueError, "format", KEY)


# ---------------------------------------------------------------- other codecs


class Reversed:
    def encode(self, value: str) -> bytes:
        return value[::-1].encode()

    def decode(self, data: bytes) -> str:
        return data.decode()[::-1]


@pytest.mark.parametrize(
    ("codec", "value", "data"),
    [
        ("json", {"a": [1, None, "\u00e9"]}, b'{"a":[1,null,"\xc3\xa9"]}'),
        ("json", 42, b"42"),
        ("json", dt.date(2030, 1, 2), b'"2030-01-02"'),
        ("msgpack", {"a": 1}, msgpack.packb({"a": 1})),
        ("bytes", b"ab", b"ab"),
        (Reversed(), "abc", b"cba"),
        (f"{__name__}.Reversed", "abc", b"cba"),
    ],
)
def test_another_codec_stores_what_it_makes_and_nothing_else(codec, value, data):
    assert Values(codec).dump(KEY, value) == (data, {})
    found = Values(codec).load(KEY, data, None)
    assert found == (str(value) if isinstance(value, dt.date) else value)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("value", [object(), {1, 2}, HUGE, nested, "\ud800"], ids=type)
def test_what_another_codec_cannot_hold_is_refused(codec, value):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        Values(codec).dump(KEY, value)


@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"[" * 200_000),
        ("json", b"9" * 5000),
        ("msgpack", b"\xc1"),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
    ],
)
def test_what_another_codec_cannot_read_is_unreadable(codec, data):
    with pytest.raises(UnreadableValueError) as caught:
        Values(codec).load(KEY, data)
    assert caught.value.reason == "codec"


def test_what_is_no_codec_and_no_method_is_refused():
    with pytest.raises(UsageError):
        Values("jason")
    with pytest.raises(ImproperlyConfigured, match=r"'gzip'.*zlib, lzma, zstd"):
        Values(compress="gzip")


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize("method", ["zlib", "lzma", "zstd"])
@pytest.mark.parametrize(("codec", "name"), [("pickle", "pickle"), ("json", "json"), (Reversed(), "custom")])
def test_a_large_value_is_compressed(codec, name, method):
    value = "the same" * 1000
    data, headers = Values(codec, compress=method).dump(KEY, value)
    assert headers == {FORMAT: f"{name}+{method}"}
    assert len(data) < 1000
    for now in (None, "zlib", method):
        assert Values(codec, compress=now).load(KEY, data, headers) == value


def test_what_is_small_or_does_not_get_smaller_is_left_as_it_is():
    values = Values("bytes", compress="zlib")
    small, large = b"a" * (COMPRESS_MIN - 1), b"a" * COMPRESS_MIN
    assert values.dump(KEY, small) == (small, {})
    assert values.dump(KEY, large)[1] == {FORMAT: "bytes+zlib"}
    random = b"".join(uuid.uuid4().bytes for _ in range(200))
    assert values.dump(KEY, random) == (random, {})
    assert Values(compress="zlib").dump(KEY, random)[1] == {FORMAT: "pickle"}
    assert Values("bytes", compress="zlib", compress_min=10).dump(KEY, b"a" * 20)[1] == {FORMAT: "bytes+zlib"}


@pytest.mark.parametrize("method", ["zlib", "lzma", "zstd"])
def test_an_unsigned_value_has_a_bound_when_decompressed(method):
    values = Values("bytes", compress=method, most_unsigned=10_000)
    most = b"a" * 10_000
    data, headers = values.dump(KEY, most)
    assert headers == {FORMAT: f"bytes+{method}"}
    assert values.load(KEY, data, headers) == most
    assert values.dump(KEY, most + b"a") == (most + b"a", {})
    with pytest.raises(UnreadableValueError, match="10,000") as caught:
        values.load(KEY, compression.method(method).compress(most + b"a"), headers)
    assert caught.value.reason == "compression"


@pytest.mark.parametrize("method", ["zlib", "lzma", "zstd"])
def test_a_bomb_does_not_go_off(method):
    bomb = compression.method(method).compress(bytes(64 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableValueError):
            Values("bytes", most_unsigned=2**20).load(KEY, bomb, {FORMAT: f"bytes+{method}"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


def test_what_wants_much_memory_to_be_read_is_unreadable():
    greedy = lzma.compress(b"a", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 2**30}])
    with pytest.raises(UnreadableValueError):
        Values("bytes").load(KEY, greedy, {FORMAT: "bytes+lzma"})


@pytest.mark.parametrize("method", ["zlib", "lzma", "zstd"])
def test_damaged_data_are_unreadable(method):
    whole = compression.method(method).compress(b"a" * 1000)
    for damaged in (b"", whole[:-1], whole + b"x", whole + whole, b"x" + whole, b"plain"):
        with pytest.raises(UnreadableValueError) as caught:
            Values("bytes").load(KEY, damaged, {FORMAT: f"bytes+{method}"})
        assert caught.value.reason == "compression"


def test_without_zstd_its_values_are_unreadable_and_it_cannot_be_chosen(monkeypatch):
    stored = Values(compress="zstd").dump(KEY, LARGE)
    compression.method.cache_clear()
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name.endswith("zstd"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(UnreadableValueError) as caught:
        Values().load(KEY, *stored)
    assert caught.value.reason == "compression"
    with pytest.raises(ImproperlyConfigured, match=r"backports\.zstd"):
        Values(compress="zstd")
    monkeypatch.undo()
    assert Values(compress="zstd").load(KEY, *stored) == LARGE
