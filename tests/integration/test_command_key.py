"""``manage.py natskv_key``, run as a user runs it, on a real server."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_natskv.kv import Bucket, KVContext, Operation
from tests.fix_commands import PROMPT, Finished, Manage

VERBS = ("get", "put", "create", "update", "delete", "purge", "history", "keys", "watch", "revert")
WHO_AND_WHY = {"Natskv-Actor": "j%C3%B6rg", "Natskv-Comment": "summer%20sale%0Aand%20more"}


@pytest.fixture
def bucket(kv: KVContext, bucket_name: str) -> Iterator[Bucket]:
    """A bucket that keeps eight revisions."""
    yield kv.create_bucket({"bucket": bucket_name, "history": 8})
    kv.delete_bucket(bucket_name)


def _key(manage: Manage, verb: str, bucket: Bucket, *arguments: str) -> Finished:
    return manage("natskv_key", verb, bucket.name, *arguments)


# ---------------------------------------------------------------- get


def test_get_shows_an_entry_in_three_formats(manage: Manage, bucket: Bucket):
    bucket.put("banner", {"text": "Größe \x1b[31m\u202e", "on": True}, headers={**WHO_AND_WHY, "Shop": "7"})
    entry = bucket.get("banner")
    assert entry is not None
    done = _key(manage, "get", bucket, "banner")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"Bucket     {bucket.name}\n"
        "Key        banner\n"
        f"Revision   {entry.revision}\n"
        f"Created    {entry.created:%Y-%m-%d %H:%M:%S}Z\n"
        "Operation  put\n"
        "By         jörg\n"
        "Comment    summer sale\\nand more\n"
        "Headers    Shop=7\n"
        'Value      {"text": "Größe \\u001b[31m\\u202e", "on": true}\n'
    )
    shown = json.loads(_key(manage, "get", bucket, "banner", "--format", "json").out)
    assert datetime.fromisoformat(shown.pop("created")) == entry.created
    assert shown == {
        "bucket": bucket.name,
        "key": "banner",
        "value": entry.value,
        "revision": entry.revision,
        "operation": "put",
        "delta": None,
        "headers": {**WHO_AND_WHY, "Shop": "7"},
    }
    plain = _key(manage, "get", bucket, "banner", "--format", "plain").out
    fields = dict(line.split("\t") for line in plain.splitlines())
    assert datetime.fromisoformat(fields["created"]) == entry.created
    assert json.loads(fields["value"]) == entry.value
    assert fields["actor"] == "jörg"


def test_get_of_a_revision_shows_markers_too(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    bucket.delete("k")
    assert json.loads(_key(manage, "get", bucket, "k", "--revision", str(first), "--format", "json").out)["value"] == 1
    marker = _key(manage, "get", bucket, "k", "--revision", str(first + 1))
    assert "Operation  delete\n" in marker.out
    assert "Value" not in marker.out
    shown = json.loads(_key(manage, "get", bucket, "k", "--revision", str(first + 1), "--format", "json").out)
    assert (shown["operation"], shown["value"]) == ("delete", None)
    done = _key(manage, "get", bucket, "k", "--revision", str(first + 1), "--raw")
    assert (done.code, done.out) == (1, "")
    assert f"Revision {first + 1} of 'k' is a delete: it has no value." in done.error


# ---------------------------------------------------------------- put, create, update


def test_put_writes_and_gives_the_revision(manage: Manage, bucket: Bucket):
    done = _key(manage, "put", bucket, "limits", '{"a_day": [1, 2.5, null, "é"]}')
    entry = bucket.get("limits")
    assert entry is not None
    assert entry.value == {"a_day": [1, 2.5, None, "é"]}
    assert (done.code, done.out) == (0, f"{entry.revision}\n")
    assert done.error == f"Wrote the key 'limits' in bucket {bucket.name!r}."
    done = _key(manage, "put", bucket, "limits", "2", "--format", "json")
    assert json.loads(done.out) == {"bucket": bucket.name, "key": "limits", "revision": entry.revision + 1}


def test_create_writes_only_what_is_absent(manage: Manage, bucket: Bucket):
    assert _key(manage, "create", bucket, "k", "1").code == 0
    done = _key(manage, "create", bucket, "k", "2")
    assert (done.code, done.out) == (1, "")
    assert "the key is there already. Nothing was written." in done.error
    bucket.delete("k")
    done = _key(manage, "create", bucket, "k", "--format", "json", "3")
    entry = bucket.get("k")
    assert entry is not None
    assert (entry.value, entry.revision) == (3, json.loads(done.out)["revision"])


def test_update_writes_only_over_the_revision_that_it_names(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    done = _key(manage, "update", bucket, "k", "2", str(first))
    assert (done.code, done.out) == (0, f"{first + 1}\n")
    for late in ((str(first),), ("--revision", str(first))):
        done = _key(manage, "update", bucket, "k", "3", *late)
        assert (done.code, done.out) == (1, "")
        assert "lost a race: the key is no longer at that revision" in done.error
    done = _key(manage, "update", bucket, "k", "--revision", str(first + 1), "--text", "three")
    assert done.code == 0
    entry = bucket.get("k")
    assert entry is not None
    assert entry.value == "three"


def test_update_with_a_file_takes_the_revision_alone(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    (manage.directory / "value.json").write_text("[1]")
    assert _key(manage, "update", bucket, "k", "--file", "value.json", str(first)).code == 0
    entry = bucket.get("k")
    assert entry is not None
    assert entry.value == [1]


def test_a_time_to_live_travels_with_a_write(manage: Manage, kv: KVContext, bucket: Bucket):
    # The longest that there is: the server refuses what it does not take for a time to live.
    for verb, after in (("put", ()), ("update", ("1",))):
        assert _key(manage, verb, bucket, "k", "1", *after, "--ttl", "5200w").code == 0
    assert _key(manage, "create", bucket, "new", "1", "--ttl", "1h").code == 0
    plain = kv.create_bucket({"bucket": f"{bucket.name}_2", "ttl_ms": 2_000})
    done = _key(manage, "put", plain, "k", "1", "--ttl", "none")
    assert done.code == 0
    kv.delete_bucket(plain.name)


# ---------------------------------------------------------------- delete and purge


def test_delete_leaves_the_history_and_gives_the_revision(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    done = _key(manage, "delete", bucket, "k", "--revision", str(first + 5))
    assert (done.code, done.out) == (1, "")
    assert "lost a race" in done.error
    done = _key(manage, "delete", bucket, "k", "--revision", str(first), "--format", "json")
    assert (done.code, done.error) == (0, f"Deleted the key 'k' in bucket {bucket.name!r}.")
    assert json.loads(done.out) == {"bucket": bucket.name, "key": "k", "revision": first + 1}
    assert [entry.operation for entry in bucket.history("k")] == [Operation.PUT, Operation.DELETE]


def test_purge_asks_and_erases_the_history(manage: Manage, bucket: Bucket):
    for value in (1, 2):
        bucket.put("k", value)
    done = _key(manage, "purge", bucket, "k")
    assert (done.code, done.out) == (1, "")
    assert "--no-input" in done.error
    done = manage.on_terminal("natskv_key", "purge", bucket.name, "k", answer="n\n")
    assert done.code == 1
    assert done.screen.startswith(f"Erase all 2 kept values of the key 'k' in bucket {bucket.name!r}? {PROMPT}")
    assert len(bucket.history("k")) == 2
    done = manage.on_terminal("natskv_key", "purge", bucket.name, "k", answer="y\n", stdout=subprocess.PIPE)
    (marker,) = bucket.history("k")
    assert (done.code, done.out) == (0, f"{marker.revision}\n")
    assert marker.operation is Operation.PURGE


def test_purge_erases_what_is_left_of_a_deleted_key(manage: Manage, bucket: Bucket):
    bucket.put("k", "secret")
    bucket.delete("k")
    assert _key(manage, "purge", bucket, "k", "--no-input", "--marker-ttl", "1h").code == 0
    assert [entry.operation for entry in bucket.history("k")] == [Operation.PURGE]


def test_purge_is_guarded(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    bucket.put("k", 2)
    done = _key(manage, "purge", bucket, "k", "--no-input", "--revision", str(first))
    assert done.code == 1
    assert "lost a race" in done.error
    assert len(bucket.history("k")) == 2


# ---------------------------------------------------------------- history, keys, revert


def test_history_is_a_table_with_who_and_why(manage: Manage, bucket: Bucket):
    first = bucket.put("k", "x" * 200)
    bucket.put("k", [1, 2], headers=WHO_AND_WHY)
    bucket.delete("k")
    done = _key(manage, "history", bucket, "k")
    assert (done.code, done.err) == (0, "")
    title, *lines = done.out.splitlines()
    assert title.split() == ["Revision", "Created", "Operation", "By", "Comment", "Value"]
    assert lines[0].endswith('"' + "x" * 76 + "...")
    assert lines[1].split()[3:] == ["put", "jörg", "summer", "sale\\nand", "more", "[1,", "2]"]
    assert lines[2].split()[::3] == [str(first + 2), "delete"]
    shown = json.loads(_key(manage, "history", bucket, "k", "--format", "json").out)
    assert [entry["value"] for entry in shown] == ["x" * 200, [1, 2], None]
    assert [entry["delta"] for entry in shown] == [2, 1, 0]
    assert [entry.get("headers") for entry in shown] == [None, WHO_AND_WHY, None]
    plain = _key(manage, "history", bucket, "k", "--format", "plain").out.splitlines()
    assert plain[0].split("\t")[2:] == ["put", "", "", json.dumps("x" * 200)]
    assert plain[1].split("\t")[3:] == ["jörg", "summer sale\\nand more", "[1, 2]"]


def test_history_without_who_and_why_has_no_columns_for_them(manage: Manage, bucket: Bucket):
    bucket.put("k", 1)
    title = _key(manage, "history", bucket, "k").out.splitlines()[0]
    assert title.split() == ["Revision", "Created", "Operation", "Value"]


def test_keys_are_listed_sorted_and_filtered(manage: Manage, bucket: Bucket):
    done = _key(manage, "keys", bucket)
    assert (done.code, done.out, done.error) == (0, "", f"There are no live keys in bucket {bucket.name!r}.")
    for key in ("shop.b", "shop.a", "user.1.name", "gone"):
        bucket.put(key, 1)
    bucket.delete("gone")
    assert _key(manage, "keys", bucket).out == "shop.a\nshop.b\nuser.1.name\n"
    done = _key(manage, "keys", bucket, "user.*.name", "--format", "json", "shop.a")
    assert json.loads(done.out) == ["shop.a", "user.1.name"]
    done = _key(manage, "keys", bucket, "no.>", "--format", "json")
    assert (done.code, json.loads(done.out)) == (0, [])
    assert done.error == f"There are no live keys that match in bucket {bucket.name!r}."


def test_keys_are_listed_with_what_stands_there(manage: Manage, bucket: Bucket):
    bucket.put("shop.b", 1)
    bucket.put("shop.a", "é", headers=WHO_AND_WHY)
    bucket.put("shop.a", [2], headers=WHO_AND_WHY)
    bucket.put("gone", 1)
    bucket.delete("gone")
    title, *rows = _key(manage, "keys", bucket, "--values").out.splitlines()
    assert title.split() == ["Key", "Revision", "Created", "Operation", "By", "Comment", "Value"]
    assert [(row.split()[0], row.split()[-1]) for row in rows] == [("shop.a", "[2]"), ("shop.b", "1")]
    found = json.loads(_key(manage, "keys", bucket, "shop.*", "--values", "--format", "json").out)
    assert [(entry["key"], entry["revision"], entry["value"]) for entry in found] == [
        ("shop.a", 3, [2]),
        ("shop.b", 1, 1),
    ]
    assert _key(manage, "put", bucket, "gone", "é", "--raw").code == 0
    done = _key(manage, "keys", bucket, "gone", "--values", "--format", "plain")
    assert (done.out.split("\t")[0], done.out.split("\t")[-1]) == ("gone", "é\n")
    assert "is not what the codec 'json' writes" in done.error


def test_revert_writes_an_earlier_value_again(manage: Manage, bucket: Bucket):
    first = bucket.put("k", "one", headers={**WHO_AND_WHY, "Shop": "7"})
    bucket.put("k", "two")
    done = _key(manage, "revert", bucket, "k", str(first), "--format", "json")
    entry = bucket.get("k")
    assert entry is not None
    assert (done.code, json.loads(done.out)["revision"]) == (0, entry.revision)
    assert (entry.value, entry.revision) == ("one", first + 2)
    assert entry.headers == {"Shop": "7"}  # who wrote it then is not who writes it now
    done = _key(manage, "revert", bucket, "k", str(first + 2))
    assert (done.code, done.out) == (0, f"{first + 2}\n")
    assert "is at revision" in done.error
    assert len(bucket.history("k")) == 3


def test_revert_brings_a_deleted_key_back_but_no_marker(manage: Manage, bucket: Bucket):
    first = bucket.put("k", 1)
    bucket.delete("k")
    done = _key(manage, "revert", bucket, "k", str(first + 1))
    assert (done.code, done.out) == (1, "")
    assert "is a delete: no value" in done.error
    assert _key(manage, "revert", bucket, "k", str(first)).code == 0
    entry = bucket.get("k")
    assert entry is not None
    assert entry.value == 1


def test_revert_loses_a_race_and_says_so(kv: KVContext, bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    first = bucket.put("k", 1)
    bucket.put("k", 2)
    read = Bucket.get

    def read_then_written(self: Bucket, key: str, *, revision: int | None = None) -> Any:
        entry = read(self, key, revision=revision)
        if revision is not None:
            bucket.put("k", "another's")
        return entry

    monkeypatch.setattr(Bucket, "get", read_then_written)
    with pytest.raises(CommandError, match="lost a race") as caught:
        call_command("natskv_key", "revert", bucket.name, "k", str(first))
    assert caught.value.returncode == 1
    monkeypatch.undo()
    assert [entry.value for entry in bucket.history("k")] == [1, 2, "another's"]


# ---------------------------------------------------------------- what is not there


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "nosuch"),
        ("get", "nosuch", "--raw"),
        ("get", "gone"),
        ("get", "here", "--revision", "999"),
        ("get", "nosuch", "--revision", "1"),
        ("delete", "nosuch"),
        ("delete", "gone"),
        ("purge", "nosuch"),
        ("purge", "erased", "--no-input"),
        ("history", "nosuch"),
        ("revert", "nosuch", "1"),
        ("revert", "here", "999"),
    ],
    ids=" ".join,
)
def test_no_such_key_is_one_line_and_exit_status_3(manage: Manage, bucket: Bucket, arguments: tuple[str, ...]):
    for key in ("here", "gone", "erased"):
        bucket.put(key, 1)
    bucket.delete("gone")
    bucket.purge("erased")
    verb, key, *options = arguments
    done = _key(manage, verb, bucket, key, *options)
    assert (done.code, done.out) == (3, "")
    assert repr(key) in done.error
    assert repr(bucket.name) in done.error


@pytest.mark.parametrize("verb", VERBS)
def test_no_such_bucket_is_one_line_and_exit_status_3(manage: Manage, verb: str):
    rest = {"put": ("1",), "create": ("1",), "update": ("1", "1"), "revert": ("1",)}.get(verb, ())
    done = manage("natskv_key", verb, "nosuch", "k", *rest)
    assert (done.code, done.out) == (3, "")
    assert "There is no bucket 'nosuch'" in done.error


def test_a_server_that_is_down_is_one_line(manage: Manage):
    done = manage("natskv_key", "get", "b", "k", "--using", "down")
    assert (done.code, done.out) == (1, "")
    assert 'Check SERVERS of NATSKV["down"] in the settings.' in done.error


# ---------------------------------------------------------------- colours, help, and use from Python


def test_colours_are_for_terminals(manage: Manage, bucket: Bucket):
    bucket.put("k", 1)
    for verb in ("get", "history"):
        assert "\x1b[" in manage.on_terminal("natskv_key", verb, bucket.name, "k").screen
        assert "\x1b[" not in manage.on_terminal("natskv_key", verb, bucket.name, "k", "--no-color").screen
        assert "\x1b[" not in _key(manage, verb, bucket, "k").out


def test_help_has_an_example_of_each_verb(manage: Manage):
    done = manage("natskv_key", "--help")
    assert (done.code, done.err) == (0, "")
    for verb in VERBS:
        assert f"\n  manage.py natskv_key {verb}" in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_examples_and_the_exit_statuses(manage: Manage, verb: str):
    done = manage("natskv_key", verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"\nexamples:\n  manage.py natskv_key {verb}" in done.out
    assert "3 no such bucket,\nkey, object or revision." in done.out


def test_call_command_takes_options_as_text_and_as_keywords(bucket: Bucket):
    def call(*arguments: str, **options: Any) -> str:
        out = io.StringIO()
        call_command("natskv_key", *arguments, **options, stdout=out, stderr=io.StringIO())
        return out.getvalue()

    first = int(call("put", bucket.name, "k", '{"a": 1}'))
    assert json.loads(call("get", bucket.name, "k", format="json"))["value"] == {"a": 1}
    assert call("get", bucket.name, "k", revision=first, raw=True) == '{"a":1}'
    assert int(call("update", bucket.name, "k", "2", revision=first, ttl="1h")) == first + 1
    assert int(call("purge", bucket.name, "k", interactive=False)) == first + 2
    with pytest.raises(CommandError) as caught:
        call("get", bucket.name, "k")
    assert caught.value.returncode == 3
