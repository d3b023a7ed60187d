"""Values on the command line: how they get in and out, byte for byte."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_natskv.kv import Bucket, KVContext
from tests.fix_commands import Finished, Manage
from tests.fix_servers import NatsServer

EVERY_BYTE = bytes(range(256))
UNICODE = "Grüße, 世界 👋\u202e\n\t\x1b[31m\x00\x9b"
EVERY_CHARACTER = f"{string.ascii_letters}.{string.digits}.-/_=.-"


@pytest.fixture
def stored(kv: KVContext, bucket_name: str) -> Iterator[Bucket]:
    """A bucket as bytes."""
    yield kv.create_bucket({"bucket": bucket_name}, codec="bytes")
    kv.delete_bucket(bucket_name)


def _data(stored: Bucket, key: str = "k") -> bytes:
    entry = stored.get(key)
    assert entry is not None
    data: bytes = entry.value
    return data


def _put(manage: Manage, stored: Bucket, *arguments: str, content: bytes | None = None) -> Finished:
    """Put ``arguments``, with ``content`` on stdin."""
    path = manage.directory / "stdin"
    path.write_bytes(content or b"")
    with path.open("rb") as stdin:
        process = manage.start("natskv_key", "put", stored.name, "k", *arguments, stdin=stdin)
        out, err = process.communicate(timeout=50)
    return Finished(process.returncode, out, err)


def _raw(manage: Manage, stored: Bucket) -> bytes:
    """What ``get --raw`` writes."""
    path = manage.directory / "stdout"
    with path.open("wb") as stdout:
        process = manage.start("natskv_key", "get", stored.name, "k", "--raw", stdout=stdout)
        _, err = process.communicate(timeout=50)
    assert (process.returncode, err) == (0, "")
    return path.read_bytes()


# ---------------------------------------------------------------- in


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        (('{"b": [1, null],  "a": "é"}',), '{"b":[1,null],"a":"é"}'.encode()),
        (("null",), b"null"),
        (("-5",), b"-5"),
        (("--ttl", "1h", "-5.5"), b"-5.5"),
        (("--text", "hello"), b'"hello"'),
        (("--text", ""), b'""'),
        (("--text", "--", "--text"), b'"--text"'),
        (("--codec", "text", 'he said "hi"\n'), b'he said "hi"\n'),
        (("--codec", "text", ""), b""),
        (("--codec", "text", "--text", "5"), b"5"),
        (("--codec", "bytes", "\udcff\udcfe"), b"\xff\xfe"),
        (("--codec", "bytes", "--text", "é"), "é".encode()),
        (("--codec", "msgpack", "[1]"), b"\x91\x01"),
        (("--codec", "msgpack", "--text", "a"), b"\xa1a"),
        (("--codec", "django_natskv.kv.codecs.TextCodec", "a"), b"a"),
        (("--raw", "not JSON \udcff"), b"not JSON \xff"),
        (("--raw", ""), b""),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_a_value_is_read_by_the_codec(manage: Manage, stored: Bucket, arguments: tuple[str, ...], data: bytes):
    done = _put(manage, stored, *arguments)
    assert done.code == 0, done.err
    assert _data(stored) == data


@pytest.mark.parametrize(
    ("arguments", "content", "data"),
    [
        (("-",), b' {"a": 1}\n', b'{"a":1}'),
        (("-", "--text"), b"a line\n", b'"a line\\n"'),
        (("-", "--raw"), EVERY_BYTE, EVERY_BYTE),
        (("--raw", "--file", "-"), EVERY_BYTE, EVERY_BYTE),
        (("--raw", "--file", "stdin"), EVERY_BYTE, EVERY_BYTE),
        (("--file", "stdin"), b'"from a file"\n', b'"from a file"'),
        (("--file", "stdin", "--codec", "text"), b"", b""),
        (("-", "--raw"), EVERY_BYTE * 2048, EVERY_BYTE * 2048),
    ],
    ids=["json", "text", "raw", "file -", "file raw", "file json", "empty", "huge"],
)
def test_a_value_comes_from_stdin_or_a_file(
    manage: Manage, stored: Bucket, arguments: tuple[str, ...], content: bytes, data: bytes
):
    done = _put(manage, stored, *arguments, content=content)
    assert done.code == 0, done.err
    assert _data(stored) == data


@pytest.mark.parametrize(
    ("arguments", "content", "said"),
    [
        (("-",), b"hello", "stdin is not JSON (Expecting value, line 1 column 1)"),
        (("-",), b"\xff", "stdin is not UTF-8: --raw stores bytes as they are"),
        (("-",), b"", "stdin is not JSON"),
        (("--file", "stdin", "--text"), b"\xff", "The file is not UTF-8"),
        (("--file", "stdin", "--codec", "text"), b"\xff", "The file is not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_told_where_it_is_from_and_not_stored(
    manage: Manage, stored: Bucket, arguments: tuple[str, ...], content: bytes, said: str
):
    done = _put(manage, stored, *arguments, content=content)
    assert (done.code, done.out) == (2, "")
    assert said in done.error
    assert stored.get("k") is None


def test_a_value_larger_than_the_server_takes_is_one_line(manage: Manage, stored: Bucket):
    done = _put(manage, stored, "-", "--raw", content=bytes(9_000_000))
    assert (done.code, done.out) == (1, "")
    assert "the server takes 1,048,576 at once. Nothing was sent." in done.error


def test_the_codec_of_the_connection_is_the_one_unless_another_is_named(
    manage: Manage, stored: Bucket, nats_server: NatsServer
):
    manage.configure({"default": {"SERVERS": [nats_server.url], "CODEC": "text"}})
    assert _put(manage, stored, "hello").code == 0
    assert _data(stored) == b"hello"
    assert json.loads(manage("natskv_key", "get", stored.name, "k", "--format", "json").out)["value"] == "hello"
    assert _put(manage, stored, "--codec", "json", "[1]").code == 0
    assert _data(stored) == b"[1]"


# ---------------------------------------------------------------- out


@pytest.mark.parametrize("data", [b"", b"\n", b"\x00", UNICODE.encode(), EVERY_BYTE, EVERY_BYTE * 2048])
def test_raw_gives_the_very_bytes(manage: Manage, stored: Bucket, data: bytes):
    stored.put("k", data)
    assert _raw(manage, stored) == data


@pytest.mark.parametrize(
    ("data", "codec", "value", "strange"),
    [
        (b'{"a": 1}', "json", {"a": 1}, False),
        (b"hello", "json", "hello", True),
        (b"", "json", "", True),
        (b"NaN", "json", "NaN", True),
        (b"[" * 100_000, "json", "[" * 100_000, True),
        (b"\xff\x00", "json", {"base64": "/wA="}, True),
        (UNICODE.encode(), "text", UNICODE, False),
        (b"\xff", "text", {"base64": "/w=="}, True),
        (b"text", "bytes", "text", False),
        (EVERY_BYTE, "bytes", {"base64": base64.b64encode(EVERY_BYTE).decode()}, False),
        (b"\x92\x01\xc4\x01\xff", "msgpack", [1, {"base64": "/w=="}], False),
        (b"\xc1", "msgpack", {"base64": "wQ=="}, True),
    ],
    ids=lambda given: repr(given)[:20],
)
def test_any_value_is_shown_as_json(
    manage: Manage, stored: Bucket, data: bytes, codec: str, value: object, strange: bool
):
    revision = stored.put("k", data)
    for verb, entry_of in (("get", lambda shown: shown), ("history", lambda shown: shown[0])):
        done = manage("natskv_key", verb, stored.name, "k", "--codec", codec, "--format", "json")
        assert done.code == 0
        assert entry_of(json.loads(done.out))["value"] == value
        if strange:
            assert done.error.startswith(f"Revision {revision} of 'k' is not what the codec {codec!r} writes")
        else:
            assert done.err == ""


def test_a_lone_surrogate_and_control_characters_are_shown_as_json_that_reads_back(manage: Manage, stored: Bucket):
    stored.put("k", b'"\\ud800 \\u009b31m \xe2\x80\xa8"')
    done = manage("natskv_key", "get", stored.name, "k", "--format", "json")
    assert '"\\ud800 \\u009b31m \\u2028"' in done.out
    assert json.loads(done.out)["value"] == "\ud800 \x9b31m \u2028"
    assert "\\ud800" in manage("natskv_key", "get", stored.name, "k").out


def test_no_value_steers_the_terminal(manage: Manage, stored: Bucket):
    stored.put("k", UNICODE.encode())
    for verb in ("get", "history"):
        done = manage.on_terminal("natskv_key", verb, stored.name, "k", "--no-color", "--codec", "text")
        assert "\x1b" not in done.screen
        assert "\x9b" not in done.screen
        assert "Grüße, 世界 👋\\u202e\\n\\t\\x1b[31m\\x00\\x9b" in done.screen


@pytest.mark.parametrize("key", [EVERY_CHARACTER, "-", "--help", "=", "k" * 1024, "a/b=c_d-e.0"])
def test_keys_of_every_allowed_character_go_in_and_out(manage: Manage, stored: Bucket, key: str):
    done = manage("natskv_key", "put", "--format", "json", "--", stored.name, key, "1")
    assert done.code == 0, done.err
    assert json.loads(done.out)["key"] == key
    assert json.loads(manage("natskv_key", "get", "--format", "json", "--", stored.name, key).out)["value"] == 1
    assert manage("natskv_key", "keys", stored.name).out == f"{key}\n"


def test_a_codec_that_raises_anything_hides_no_other_value(manage: Manage, stored: Bucket, tmp_path: Path):
    (manage.directory / "codec_of_mine.py").write_text(
        "class Codec:\n"
        "    def encode(self, value):\n        return b'x'\n"
        "    def decode(self, data):\n        return object() if data == b'object' else 1 / 0\n"
    )
    for data in (b"object", b"other"):
        stored.put("k", data)
        done = manage("natskv_key", "get", stored.name, "k", "--codec", "codec_of_mine.Codec", "--format", "json")
        assert json.loads(done.out)["value"] == data.decode()
        assert "'codec_of_mine.Codec'" in done.error
