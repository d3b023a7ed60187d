"""Mistakes in the call of ``manage.py natskv_key``, and of watches: one line, exit status 2, and nothing is sent.

No server runs here: whatever connected would fail with another exit status.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.management import execute_from_command_line

TOO_LONG = "k" * 1025


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: VERB"),
        (("fetch",), "invalid choice: 'fetch'"),
        (("get",), "the following arguments are required: BUCKET, KEY"),
        (("keys",), "the following arguments are required: BUCKET; see"),
        (("get", "b"), "the following arguments are required: KEY"),
        (("get", "b", "k", "more"), "unrecognized arguments: more"),
        (("get", "b.c", "k"), "'b.c' cannot be a bucket's name"),
        (("get", "b\udcff", "k"), "'b\\udcff' is not UTF-8."),
        (("get", "b", "k k"), "'k k' cannot be a key"),
        (("get", "b", ""), "'' cannot be a key"),
        (("get", "b", ".k"), "'.k' cannot be a key"),
        (("get", "b", "k."), "'k.' cannot be a key"),
        (("get", "b", "k..k"), "'k..k' cannot be a key"),
        (("get", "b", "k*"), "'k*' cannot be a key"),
        (("get", "b", "é"), "'é' cannot be a key"),
        (("get", "b", "k\udcff"), "'k\\udcff' is not UTF-8."),
        (("get", "b", "k\n"), "'k\\n' cannot be a key"),
        (("get", "b", TOO_LONG), "at most 1024 characters"),
        (("get", "b", "k", "--revision", "0"), "--revision: A revision is a whole number from 1"),
        (("get", "b", "k", "--revision", "last"), "--revision: 'last' is not a whole number"),
        (("get", "b", "k", "--revision", "-3"), "--revision: A revision is a whole number from 1"),
        (("get", "b", "k", "--codec", "yaml"), "--codec: There is no codec named 'yaml'"),
        (("get", "b", "k", "--codec", "no.such.codec"), "--codec: There is no codec at 'no.such.codec'"),
        (("get", "b", "k", "--raw", "--codec", "text"), "--raw contradicts --codec"),
        (("get", "b", "k", "--raw", "--format", "json"), "--raw contradicts --format json"),
        (("put", "b", "k"), "VALUE is missing"),
        (("put", "b", "k", "hello"), "VALUE is not JSON (Expecting value, line 1 column 1): "),
        (("put", "b", "k", "hello you"), "store it as a text with --text"),
        (("put", "b", "k", ""), "VALUE is not JSON"),
        (("put", "b", "k", "NaN"), "VALUE is not JSON (NaN is no number of JSON)"),
        (("put", "b", "k", "1e999"), "VALUE holds a number or a text that the codec cannot store"),
        (("put", "b", "k", '"\\ud800"'), "VALUE holds a number or a text that the codec cannot store"),
        (("put", "b", "k", "[" * 200_000), "VALUE is not JSON"),
        (("put", "b", "k", "9" * 10_000), "VALUE is not JSON"),
        (("put", "b", "k", "\udcff"), "VALUE is not UTF-8: --raw stores bytes as they are"),
        (("put", "b", "k", "\udcff", "--codec", "text"), "VALUE is not UTF-8"),
        (("put", "b", "k", "\udcff", "--codec", "bytes", "--text"), "VALUE is not UTF-8"),
        (("put", "b", "k", "--text", "hello", "world"), "too many arguments: quote a VALUE that has spaces"),
        (("put", "b", "k", "1", "--text", "2"), "too many arguments"),
        (("put", "b", "k", "1", "--secret", "2"), "unrecognized arguments: --secret 2"),
        (("put", "b", "k", "--text", "-x"), "unrecognized arguments: -x"),
        (("put", "b", "k", "--text", "--raw", "1"), "argument --raw: not allowed with argument --text"),
        (("put", "b", "k", "1", "--raw", "--codec", "json"), "--raw contradicts --codec"),
        (("put", "b", "k", "1", "--file", "x"), "--file stands in the place of VALUE"),
        (("put", "b", "k", "--file", "no/such/file"), "--file: 'no/such/file' cannot be read: No such file"),
        (("put", "b", "k", "--file", "/"), "--file: '/' cannot be read: Is a directory"),
        (("put", "b", "k", "--file", "a\0b"), "--file: 'a\\x00b' cannot be read"),
        (("put", "b", "k", "--file", "/dev/null"), "The file is not JSON"),
        (("put", "b", "k", "1", "--ttl", "500ms"), "--ttl: '500ms' is not from 1s to a century"),
        (("put", "b", "k", "1", "--ttl", "9999999w"), "--ttl: '9999999w' is not from 1s to a century"),
        (("put", "b", "k", "1", "--ttl", "90"), "--ttl: '90' is not a duration"),
        (("put", "b c", "k", "1"), "'b c' cannot be a bucket's name"),
        (("create", "b", "k k", "1"), "'k k' cannot be a key"),
        (("create", "b", "k"), "VALUE is missing"),
        (("update", "b", "k", "1"), "REVISION is missing"),
        (("update", "b", "k", "--file", "/dev/null"), "REVISION is missing"),
        (("update", "b", "k", "1", "x"), "REVISION: 'x' is not a whole number"),
        (("update", "b", "k", "1", "0"), "REVISION: A revision is a whole number from 1"),
        (("update", "b", "k", "1", "2", "3"), "too many arguments"),
        (("update", "b", "k", "1", "2", "--revision", "2"), "--revision contradicts REVISION"),
        (("update", "b", "k", "1", "2", "--file", "x"), "--file stands in the place of VALUE"),
        (("delete", "b", "k", "--revision", "x"), "--revision: 'x' is not a whole number"),
        (("delete", "b", "k", "--marker-ttl", "1ms"), "--marker-ttl: '1ms' is not from 1s to a century"),
        (("purge", "b", "k k", "--no-input"), "'k k' cannot be a key"),
        (("history", "b", "*"), "'*' cannot be a key"),
        (("keys", "b", "a b"), "'a b' cannot be a key pattern"),
        (("keys", "b", "--format", "json", ">.a"), "'>.a' cannot be a key pattern"),
        (("revert", "b", "k"), "the following arguments are required: REVISION"),
        (("revert", "b", "k", "first"), "REVISION: 'first' is not a whole number"),
        (("watch", "b"), "KEY is missing: natskv_bucket watch shows the changes of all keys"),
        (("watch", "b", "a b"), "'a b' cannot be a key pattern"),
        (("watch", "b", "k", "--history", "--updates"), "argument --updates: not allowed with argument --history"),
        (("watch", "b", "k", "--codec", "yaml"), "--codec: There is no codec named 'yaml'"),
        (("get", "b", "k", "--using", "nowhere"), 'The connection "nowhere" doesn\'t exist'),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_exit_status_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    _is_one_line(capsys, ("natskv_key", *arguments), said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a b",), "'a b' cannot be a bucket's name"),
        (("b", "k"), "unrecognized arguments: k"),
        (("b", "--keys", "a..b"), "'a..b' cannot be a key pattern"),
        (("b", "--history", "--updates"), "argument --updates: not allowed with argument --history"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_in_the_watch_of_a_bucket_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
):
    _is_one_line(capsys, ("natskv_bucket", "watch", *arguments), said)


def test_a_closed_stdin_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", None)
    _is_one_line(capsys, ("natskv_key", "put", "b", "k", "-"), "There is no stdin to read a value from.")


def _is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("put", "b", "k", "1"),
        ("put", "b", "k", "--ttl", "1h", "-5"),
        ("put", "b", "k", "--ttl", "none", "--text", "--", "-x"),
        ("update", "b", "k", "--text", "hello", "--ttl", "1h", "3"),
        ("keys", "b", "--format", "plain", "a.*", ">"),
        ("watch", "b", "--updates", "a.*"),
    ],
    ids=" ".join,
)
def test_without_a_mistake_the_call_would_have_connected(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], tmp_path: Path
):
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_key", *arguments])
    assert ended.value.code == 1
    assert "Nothing answers" in capsys.readouterr().err
