"""What the commands do when stdin, stdout or stderr is closed, or takes nothing more, and with strange files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.management import execute_from_command_line

from django_natskv.kv import KVContext
from tests.fix_commands import Manage

FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@full
def test_a_full_disk_behind_stdout_is_one_line(manage: Manage, stocked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with FULL.open("w") as stdout:
        process = manage.start("natskv_bucket", "dump", stocked, stdout=stdout)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 1  # and not Python's own 120, for what it could not flush at the end
    assert err == "CommandError: The result cannot be written to stdout: No space left on device.\n"


@full
@pytest.mark.parametrize(
    "arguments",
    [("natskv_bucket", "status"), ("natskv_bucket", "watch"), ("natskv_key", "get", "a", "--raw")],
    ids=" ".join,
)
def test_a_full_disk_is_one_line_whatever_writes_to_it(
    stocked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: Any
):
    command, verb, *rest = arguments
    with FULL.open("w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        with pytest.raises(SystemExit) as ended:
            execute_from_command_line(["manage.py", command, verb, stocked, *rest, "--verbosity", "0"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines() == [
        "CommandError: The result cannot be written to stdout: No space left on device."
    ]


def test_an_encoding_of_stdout_that_lacks_a_character_is_one_line(
    kv: KVContext, stocked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    kv.open_bucket(stocked).put("a", "\u65e5")
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_key", "get", stocked, "a"])
    assert ended.value.code == 1
    error = "CommandError: stdout is ascii, which has no '\\u65e5': set PYTHONIOENCODING=utf-8.\n"
    assert capsys.readouterr().err == error


def test_a_closed_stdout_is_one_line(
    kv: KVContext, stocked: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_bucket", "delete", stocked, "--no-input"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "CommandError: There is no stdout to write the result to.\n"
    assert stocked in kv.bucket_names()


def test_a_closed_stderr_changes_no_exit_status(kv: KVContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stderr", None)
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "natskv_bucket", "status", "nosuch"])
    assert ended.value.code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("natskv_bucket", "restore", "b", "-"), "There is no stdin to read from."),
        (("natskv_config", "import", "-"), "There is no stdin to read from."),
        (("natskv_config", "diff", "--against", "-"), "There is no stdin to read from."),
        (("natskv_bucket", "restore", "b", ""), "The name of the file is empty."),
        (("natskv_bucket", "dump", "b", ""), "The name of the file is empty."),
        (("natskv_config", "import", ""), "The name of the file is empty."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_a_file_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", *arguments])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err) == (2, "", f"CommandError: {said}\n")


@pytest.mark.parametrize(
    "arguments",
    [("natskv_bucket", "restore", "b"), ("natskv_bucket", "dump", "b"), ("natskv_config", "import")],
    ids=" ".join,
)
def test_the_name_of_a_file_breaks_no_line_and_steers_no_terminal(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
):
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", *arguments, "no\n\x1b[31msuch/file"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out, err.count("\n"), "\x1b" in err) == (1, "", 1, False)
    assert err.startswith("CommandError: no\\n\\x1b[31msuch/file cannot be")
