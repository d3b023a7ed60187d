"""``manage.py natskv_bucket restore``, run as a user runs it, on a real server."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_natskv.kv import Bucket, Change, Entry, KVContext
from django_natskv.management.dumps.restoring import Seen
from tests.fix_commands import Finished, Manage
from tests.fix_servers import NatsServer
from tests.integration.test_command_dump import fill, lines, publish

WRITE = ("django_natskv.kv._nats.volley.Volley", "settle")  # a call for each write that was answered


def content(bucket: Bucket, *, history: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that a restore has to bring back, by key, in order."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for entry in bucket.entries(history=history):
        found.setdefault(entry.key, []).append((entry.operation, entry.value, dict(entry.headers)))
    return found


@pytest.fixture
def make(kv: KVContext, bucket_name: str) -> Iterator[Callable[..., Bucket]]:
    made: list[str] = []

    def make(**config: Any) -> Bucket:
        made.append(f"{bucket_name}_{len(made)}")
        return kv.create_bucket({"bucket": made[-1], "storage": "memory", "history": 4, **config}, codec="bytes")

    yield make
    for name in made:
        if name in kv.bucket_names():
            kv.delete_bucket(name)


@pytest.fixture
def source(make: Callable[..., Bucket]) -> Bucket:
    made = make()
    made.put("a", b"one", headers={"By": "ann%20b"})
    made.put("b", b"\xff\x00")
    made.put("a", "zw\u00f6lf\u2028".encode())
    made.put("gone", b"x")
    made.delete("gone", headers={"Why": "old"})
    made.put("c", b"")
    made.purge("c")
    made.put("c", b"again")
    for number in range(7):
        made.put("long", b"%d" % number)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "dump.jsonl"


def dump(manage: Manage, bucket: Bucket, file: Path, *arguments: str) -> None:
    done = manage("natskv_bucket", "dump", bucket.name, str(file), *arguments)
    assert done.code == 0, done.err


def restore(manage: Manage, bucket: Bucket | str, file: Path, *arguments: str) -> Finished:
    name = bucket if isinstance(bucket, str) else bucket.name
    return manage("natskv_bucket", "restore", name, str(file), "--format", "json", "--no-input", *arguments)


def counts(done: Finished) -> dict[str, int]:
    """Return what the result counts, but for what is none."""
    return {name: value for name, value in json.loads(done.out).items() if type(value) is int and value}


def edit(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    content = lines(file.read_text())
    change(content)
    file.write_text("".join(json.dumps(line) + "\n" for line in content))


# ---------------------------------------------------------------- equal


@pytest.mark.parametrize("history", [True, False])
def test_a_restored_bucket_is_equal(manage: Manage, make: Any, source: Bucket, file: Path, history: bool):
    dump(manage, source, file, *(["--history"] if history else []))
    target = make()
    done = restore(manage, target, file)
    assert done.code == 0, done.err
    wanted = content(source, history=history)
    assert content(target) == wanted
    count = sum(map(len, wanted.values()))
    assert json.loads(done.out) == {
        "bucket": target.name,
        "written": count,
        "skipped": 0,
        "expired": 0,
        "conflicts": 0,
        "unfit": 0,
        "dry_run": False,
    }
    assert done.error == f"Restored {count} entries into the bucket {target.name!r}."


def test_a_dump_goes_through_pipes(manage: Manage, make: Any, source: Bucket):
    target = make()
    dumping = manage.start("natskv_bucket", "dump", source.name, "--history")
    restoring = manage.start("natskv_bucket", "restore", target.name, "-", stdin=dumping.stdout)
    _, err = restoring.communicate(timeout=50)
    dumping.communicate(timeout=50)
    assert (restoring.returncode, err.count("\n")) == (0, 1)
    assert content(target) == content(source)


def test_many_revisions_of_few_keys_keep_their_order(manage: Manage, make: Any, file: Path):
    source = make(history=64)
    for number in range(64):
        source.write_many([Change.put(f"k{key}", b"%d" % number) for key in range(150)])
    dump(manage, source, file, "--history")
    target = make(history=64)
    assert restore(manage, target, file).code == 0
    assert content(target) == content(source)


def test_a_dump_of_a_dump_differs_in_revisions_and_times_only(
    manage: Manage, make: Any, source: Bucket, file: Path, tmp_path: Path
):
    dump(manage, source, file, "--history")
    target = make()
    restore(manage, target, file)
    dump(manage, target, tmp_path / "again.jsonl", "--history")
    one, other = ([*lines(path.read_text())][1:-1] for path in (file, tmp_path / "again.jsonl"))
    for line in (*one, *other):
        del line["revision"], line["created"]

    def by_key(line: dict[str, Any]) -> str:
        return str(line["key"])

    assert sorted(other, key=by_key) == sorted(one, key=by_key)


def test_a_missing_bucket_can_be_made_as_the_dump_says(
    manage: Manage, make: Any, kv: KVContext, bucket_name: str, file: Path
):
    source = make(metadata={"team": "shop"}, max_value_size=5_000, ttl_ms=3_600_000)
    source.put("a", b"1")
    dump(manage, source, file)
    name = f"{bucket_name}_new"
    missing = restore(manage, name, file)
    assert (missing.code, missing.out) == (3, "")
    assert repr(name) in missing.error
    planned = restore(manage, name, file, "--create", "--dry-run")
    assert (planned.code, counts(planned)) == (0, {"written": 1})
    assert name not in kv.bucket_names()
    done = restore(manage, name, file, "--create")
    assert (done.code, counts(done)) == (0, {"written": 1})
    restored = kv.open_bucket(name, codec="bytes")
    assert dataclasses.replace(restored.config, bucket=source.name) == source.config
    assert content(restored) == content(source)
    kv.delete_bucket(name)


# ---------------------------------------------------------------- time to live


def test_what_is_left_to_live_is_kept_and_what_has_expired_is_left_out(manage: Manage, make: Any, file: Path):
    source = make(history=1)
    source.put("soon", b"1", ttl_ms=3_600_000)
    source.put("later", b"2", ttl_ms=7_200_000)
    source.put("never", b"3")
    dump(manage, source, file)

    def age(content: list[dict[str, Any]]) -> None:
        for line in content[1:-1]:
            line["created"] = (datetime.now(UTC) - timedelta(minutes=90)).isoformat()

    edit(file, age)
    planned = restore(manage, f"{source.name}_new", file, "--create", "--dry-run")
    assert counts(planned) == {"written": 2, "expired": 1}
    target = make(history=1)
    done = restore(manage, target, file)
    assert counts(done) == {"written": 2, "expired": 1}
    assert "1 was left out: expired since the dump." in done.err
    left = {entry.key: entry.ttl_ms for entry in target.entries()}
    assert left.keys() == {"later", "never"}
    assert left["never"] is None
    assert 1_750_000 < (left["later"] or 0) <= 1_800_000


def test_a_buckets_own_limit_counts_from_when_the_entry_was_made(manage: Manage, make: Any, file: Path):
    source = make(ttl_ms=3_600_000)
    source.put("old", b"1")
    source.put("half", b"2")
    source.put("new", b"3")
    dump(manage, source, file)
    minutes = {"old": 61, "half": 30, "new": 0}

    def age(content: list[dict[str, Any]]) -> None:
        for line in content[1:-1]:
            line["created"] = (datetime.now(UTC) - timedelta(minutes=minutes[line["key"]])).isoformat()

    edit(file, age)
    target = make(ttl_ms=3_600_000)
    assert counts(restore(manage, target, file)) == {"written": 2, "expired": 1}
    left = {entry.key: entry.ttl_ms for entry in target.entries()}
    assert left.keys() == {"half", "new"}
    assert 1_700_000 < (left["half"] or 0) <= 1_800_000
    assert 3_500_000 < (left["new"] or 0) <= 3_600_000
    shorter = make(ttl_ms=60_000)
    assert counts(restore(manage, shorter, file)) == {"written": 2, "expired": 1}
    assert {entry.ttl_ms for entry in shorter.entries()} == {None}


def test_an_entry_that_expires_over_a_history_goes_as_the_server_would_have_it(manage: Manage, make: Any, file: Path):
    def age(content: list[dict[str, Any]]) -> None:
        content[2]["created"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()

    for marked, live in ((0, [b"1"]), (3_600_000, [])):
        source = make(limit_marker_ttl_ms=marked)
        source.put("a", b"1")
        source.put("a", b"2", ttl_ms=3_600_000)
        dump(manage, source, file, "--history")
        edit(file, age)
        target = make(limit_marker_ttl_ms=marked)
        done = restore(manage, target, file)
        assert done.code == 0, done.err
        # Without markers an older value shows again (F15); a marker takes the history along.
        assert [entry.value for entry in target.entries()] == live


# ---------------------------------------------------------------- what is there already


@pytest.fixture
def stocked_target(make: Any) -> Bucket:
    target: Bucket = make()
    target.put("a", b"other 1")
    target.put("a", b"other 2")
    target.put("mine", b"stays")
    return target


def test_a_bucket_that_is_not_empty_wants_to_be_told(
    manage: Manage, source: Bucket, stocked_target: Bucket, file: Path, make: Any
):
    dump(manage, source, file)
    before = content(stocked_target)
    done = restore(manage, stocked_target, file)
    assert (done.code, done.out) == (1, "")
    assert "is not empty: say --replace, --skip-existing or --if-revision" in done.error
    assert content(stocked_target) == before
    marked = make()
    marked.put("x", b"")
    marked.delete("x")
    assert restore(manage, marked, file).code == 1  # a marker is something too


@pytest.mark.parametrize("history", [True, False])
def test_replace_makes_keys_what_the_dump_says_and_leaves_others(
    manage: Manage, source: Bucket, stocked_target: Bucket, file: Path, history: bool
):
    dump(manage, source, file, *(["--history"] if history else []))
    for _ in range(2):  # and again
        assert restore(manage, stocked_target, file, "--replace").code == 0
        wanted = {**content(source, history=history), "mine": [("put", b"stays", {})]}
        assert content(stocked_target) == wanted


def test_replace_asks_where_there_is_something_to_replace(
    manage: Manage, source: Bucket, stocked_target: Bucket, file: Path, make: Any
):
    dump(manage, source, file)
    before = content(stocked_target)
    command = ("natskv_bucket", "restore", stocked_target.name, str(file), "--replace")
    done = manage(*command)
    assert (done.code, done.out, "--no-input" in done.error) == (1, "", True)
    assert manage(*command, "--dry-run").code == 0
    refused = manage.on_terminal(*command, answer="n\n")
    assert f"Restore 4 entries over what the bucket {stocked_target.name!r} has at their keys" in refused.screen
    assert "Other keys stay. [y/N]" in refused.screen
    assert (refused.code, content(stocked_target)) == (1, before)
    assert manage.on_terminal(*command, answer="y\n").code == 0
    assert content(stocked_target) == {**content(source, history=False), "mine": [("put", b"stays", {})]}
    empty = make()
    assert manage("natskv_bucket", "restore", empty.name, str(file), "--replace").code == 0


def test_skip_existing_leaves_what_is_there(manage: Manage, source: Bucket, stocked_target: Bucket, file: Path):
    stocked_target.put("b", b"")
    stocked_target.delete("b")
    dump(manage, source, file)
    for arguments in (["--dry-run"], []):
        done = restore(manage, stocked_target, file, "--skip-existing", *arguments)
        assert (done.code, counts(done)) == (0, {"written": 3, "skipped": 1})
        assert "1 was skipped: what exists, or is as the dump says already." in done.err
    found = {key: entries[-1][1] for key, entries in content(stocked_target).items()}
    assert found == {"a": b"other 2", "b": b"\xff\x00", "c": b"again", "long": b"6", "mine": b"stays"}
    assert counts(restore(manage, stocked_target, file, "--skip-existing")) == {"skipped": 4}


def test_if_revision_writes_only_where_nothing_has_moved_on(manage: Manage, source: Bucket, file: Path):
    dump(manage, source, file)

    def edit_values(content: list[dict[str, Any]]) -> None:
        for line in content[1:-1]:
            if line["key"] in ("a", "c", "long"):
                line["value"] = "edited"

    edit(file, edit_values)
    source.put("c", b"moved on")
    source.delete("long")
    for arguments in (["--dry-run"], []):
        done = restore(manage, source, file, "--if-revision", *arguments)
        assert (done.code, counts(done)) == (1, {"written": 1, "skipped": 1, "conflicts": 2})
        assert "Not restored: 2 have moved on since the dump: 'c', 'long'." in done.err
    assert {key: entry.value for key, entry in source.get_many(["a", "b", "c", "long"]).items()} == {
        "a": b"edited",
        "b": b"\xff\x00",
        "c": b"moved on",
    }
    # What a run has written is no conflict for the next one.
    assert counts(restore(manage, source, file, "--if-revision")) == {"skipped": 2, "conflicts": 2}


def test_a_history_is_not_mixed_with_what_is_there(manage: Manage, source: Bucket, stocked_target: Bucket, file: Path):
    dump(manage, source, file, "--history")
    for mode in ("--skip-existing", "--if-revision"):
        done = restore(manage, stocked_target, file, mode)
        assert (done.code, done.out) == (2, "")
        assert f"not {mode}" in done.error


def test_a_shorter_history_is_warned_of(manage: Manage, source: Bucket, make: Any, file: Path):
    dump(manage, source, file, "--history")
    done = restore(manage, make(history=2), file)
    assert done.code == 0
    assert "keeps 2 revisions of a key, and the one that was dumped 4." in done.err


def test_a_dry_run_writes_nothing(manage: Manage, source: Bucket, make: Any, file: Path):
    dump(manage, source, file, "--history")
    target = make()
    done = restore(manage, target, file, "--dry-run")
    assert (done.code, counts(done), json.loads(done.out)["dry_run"]) == (0, {"written": 11}, True)
    assert done.error.startswith("Would restore 11 entries")
    assert content(target) == {}


def test_a_key_that_was_written_while_it_was_dumped_is_restored_once(
    manage: Manage, source: Bucket, make: Any, file: Path
):
    dump(manage, source, file)

    def add(content: list[dict[str, Any]]) -> None:
        line = next(line for line in content if line.get("key") == "a")
        newer = {**line, "revision": content[0]["revision"] + 1, "value": "newer"}
        marker = {**newer, "key": "b", "revision": newer["revision"] + 1, "operation": "delete"}
        marker.pop("value")
        content[-1:] = [newer, marker, {"entries": content[-1]["entries"] + 2}]

    edit(file, add)
    target = make()
    assert restore(manage, target, file).code == 0
    newest: list[Entry] = list(target.entries())
    assert sorted(entry.key for entry in newest) == ["a", "c", "long"]
    assert target.get("b") is None
    assert len(target.history("a")) == 1


# ---------------------------------------------------------------- dumps that are none

WHOLE = """\
{"format": "natskv-dump", "version": 1, "bucket": "b", "config": {"history": 4}, "time": "2026-01-01T00:00:00+00:00", \
"revision": 9, "history": false, "keys": null}
{"key": "b", "operation": "put", "revision": 2, "created": "2026-01-01T00:00:00+00:00", "headers": {}, "base64": "/wA="}
{"key": "a", "operation": "put", "revision": 3, "created": "2026-01-01T00:00:00+00:00", "headers": {}, "value": "1"}
{"key": "c", "operation": "put", "revision": 8, "created": "2026-01-01T00:00:00+00:00", "headers": {}, "value": "2"}
{"key": "d", "operation": "put", "revision": 9, "created": "2026-01-01T00:00:00+00:00", "headers": {}, "value": ""}
{"entries": 4}
"""


def test_a_dump_that_was_written_by_hand_is_restored(manage: Manage, make: Any, file: Path):
    file.write_text(WHOLE)
    target = make()
    assert counts(restore(manage, target, file)) == {"written": 4}
    assert {key: entries[0][1] for key, entries in content(target).items()} == {
        "a": b"1",
        "b": b"\xff\x00",
        "c": b"2",
        "d": b"",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "line 1: this is no line of JSON"),
        (lambda text: "no dump\n", "line 1: this is no line of"),
        (lambda text: "[]\n", "line 1: this is no JSON object"),
        (lambda text: '{"key": "a"}\n', "line 1: this is no dump of a bucket"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "of version 2, and 1 is what can be read"),
        (lambda text: text.replace('"history": false', '"history": 0'), "line 1: 'history' is missing"),
        (
            lambda text: text.replace('"history": 4', '"istory": 4'),
            "line 1: config is none of a bucket: 'istory' is not",
        ),
        (lambda text: text.replace('"key": "b"', '"key": 7'), "line 2: 'key' is missing or not of the type str"),
        (lambda text: text.replace('"put"', '"set"', 1), 'line 2: operation is "put"'),
        (lambda text: text.replace("base64", "value64"), "line 2: 'value64' is no field of an entry"),
        (lambda text: text.replace("/wA=", "/wA"), "line 2: 'base64' does not stand for bytes"),
        (lambda text: text.replace('"put"', '"delete"', 1), "line 2: a put has one of"),
        (lambda text: text.replace('"headers": {}', '"headers": []', 1), "line 2: headers are a mapping"),
        (lambda text: text.replace("+00:00", "", 2), "has no time zone"),
        (lambda text: text.replace('"created": "2', '"created": "x', 1), "line 2: 'created' is no time in ISO 8601"),
        (lambda text: text.replace("}\n{", "}\nnonsense\n{", 1), "line 2: this is no line of JSON"),
        (lambda text: text[: text.rindex("{")], "is not whole: it has 4 entries and has no last line"),
        (lambda text: text.replace('"entries": 4', '"entries": 5'), "it has 4 entries and should have 5"),
        (lambda text: text + text.splitlines()[1] + "\n", "goes on after its last line"),
        (lambda text: text[:-30], "The dump is not whole"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_whole_dump_changes_nothing(
    manage: Manage, make: Any, file: Path, change: Callable[[str], str], said: str
):
    file.write_text(change(WHOLE))
    assert file.read_text() != WHOLE
    target = make()
    done = restore(manage, target, file)
    assert (done.code, done.out) == (1, "")
    assert said in done.error
    assert content(target) == {}


def test_a_dump_that_was_broken_off_is_taken_when_that_is_said(manage: Manage, source: Bucket, make: Any, file: Path):
    dump(manage, source, file, "--history")
    whole = file.read_bytes()
    target = make()
    file.write_bytes(whole[: whole.index(b"\n", len(whole) // 2) + 20])
    assert restore(manage, target, file).code == 1
    done = restore(manage, target, file, "--partial")
    assert done.code == 0, done.err
    assert 0 < counts(done)["written"] < 11
    part = content(target)
    assert all(content(source)[key][: len(entries)] == entries for key, entries in part.items() if key != "long")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("no.such.file",), 1, "no.such.file cannot be read: No such file or directory"),
        (("/dev",), 1, "cannot be read: Is a directory"),
        (("-", "--replace", "--skip-existing"), 2, "not allowed with argument"),
        ((), 2, "the following arguments are required: FILE"),
        (("-",), 1, "stdin, line 1"),
    ],
    ids=str,
)
def test_an_error_is_one_line(manage: Manage, source: Bucket, arguments: tuple[str, ...], status: int, said: str):
    done = manage("natskv_bucket", "restore", source.name, *arguments)
    assert (done.code, done.out) == (status, "")
    assert said in done.error


def test_what_cannot_be_written_is_named_and_the_rest_restored(
    manage: Manage, source: Bucket, make: Any, file: Path, nats_server: NatsServer
):
    publish(nats_server.url, f"$KV.{source.name}.k:1", b"x", {})
    publish(nats_server.url, f"$KV.{source.name}.k2", b"x", {"Note": "\u00e9"})
    dump(manage, source, file)
    target = make()
    done = restore(manage, target, file)
    assert (done.code, counts(done)) == (1, {"written": 4, "unfit": 2})
    assert "Not restored: 2 have keys or headers that cannot be written: 'k:1', 'k2'." in done.err
    assert len(target.keys()) == 4


def test_what_the_server_refuses_is_one_line_and_how_far_it_got(manage: Manage, source: Bucket, make: Any, file: Path):
    source.put("z", bytes(2_000))
    dump(manage, source, file)
    done = restore(manage, make(max_value_size=1_000), file)
    assert (done.code, done.out) == (1, "")
    written, error = done.err.splitlines()
    assert written.endswith("entries were written before it failed.")
    assert "'z'" in error


@pytest.mark.parametrize("full", [sqlite3.OperationalError("disk is full"), OSError(28, "disk is full")], ids=repr)
def test_a_disk_that_is_full_is_one_line_and_how_far_it_got(
    source: Bucket, make: Any, file: Path, monkeypatch: pytest.MonkeyPatch, full: Exception
):
    out = io.StringIO()
    call_command("natskv_bucket", "dump", source.name, "--history", stdout=out)
    file.write_bytes(out.getvalue().encode(errors="surrogateescape"))
    first = Seen.is_new
    keys: list[str] = []

    def is_new(seen: Seen, key: str) -> bool:
        keys.append(key)
        if len(keys) > 2:
            raise full
        return first(seen, key)

    monkeypatch.setattr(Seen, "is_new", is_new)
    said = io.StringIO()
    with pytest.raises(CommandError, match=r"cannot be read or written: disk is full[.]$") as failed:
        call_command("natskv_bucket", "restore", make().name, str(file), "--replace", "--no-input", stderr=said)
    assert failed.value.returncode == 1
    assert said.getvalue() == "0 entries were written before it failed.\n"


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.slow
def test_killed_in_the_middle_a_rerun_finishes_it(manage: Manage, make: Any, file: Path, history: bool):
    source = make(history=3)
    for _ in range(3 if history else 1):
        fill(source, 4_300)
    dump(manage, source, file, *(["--history"] if history else []))
    target = make(history=3)
    target.put("key.1", b"older")
    command = ("natskv_bucket", "restore", target.name, str(file), "--replace", "--no-input")
    for write in (500, 4_000):
        process = manage.stopped_at(*WRITE, write, *command)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
        assert content(target) != content(source)
    assert restore(manage, target, file, "--replace").code == 0
    assert content(target) == content(source)


@pytest.mark.slow
def test_killed_while_it_skips_the_same_again_finishes_it(manage: Manage, make: Any, file: Path):
    source = make()
    fill(source, 4_300)
    dump(manage, source, file)
    target = make()
    target.put("key.1", b"older")
    process = manage.stopped_at(*WRITE, 4_000, "natskv_bucket", "restore", target.name, str(file), "--skip-existing")
    process.kill()
    process.communicate(timeout=20)
    assert 1_000 < len(target.keys()) < 4_300
    assert restore(manage, target, file, "--skip-existing").code == 0
    assert content(target) == {**content(source), "key.1": [("put", b"older", {})]}


def test_interrupted_it_says_how_far_it_got(manage: Manage, make: Any, file: Path):
    source, target = make(), make()
    fill(source, 4_300)
    dump(manage, source, file)
    process = manage.stopped_at(*WRITE, 4_000, "natskv_bucket", "restore", target.name, str(file))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    written, interrupted = err.splitlines()
    assert re.fullmatch("[0-9,]+ entries were written before it was interrupted[.]", written)
    assert interrupted.startswith("Interrupted.")


def test_progress_is_for_terminals(manage: Manage, make: Any, file: Path):
    source = make()
    fill(source, 20_000)
    dump(manage, source, file)
    seen = manage.on_terminal("natskv_bucket", "restore", make().name, str(file))
    assert seen.code == 0
    looks = [look for look in seen.screen.split("\r") if look.strip()]
    assert {look.split(":")[0] for look in looks if "%|" in look} == {"Checking", "Restoring"}
    assert "Restored 20,000 entries" in looks[-1]


# ---------------------------------------------------------------- much

MANY = 20_000  # 100,000 take five times as long, which a run of all tests has not


@pytest.mark.slow
def test_many_keys_with_history_come_back_equal(manage: Manage, make: Any, file: Path):
    source = make(history=3, storage="file")
    for _ in range(2):
        fill(source, MANY, 5)
    source.write_many([Change.delete(f"key.{number}") for number in range(0, MANY, 50)])
    dump(manage, source, file, "--history")
    target = make(history=3, storage="file")
    done = restore(manage, target, file)
    assert (done.code, counts(done)) == (0, {"written": 2 * MANY + MANY // 50})
    assert content(target) == content(source)
