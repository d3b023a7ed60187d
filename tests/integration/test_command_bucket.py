"""``manage.py natskv_bucket``, run as a user runs it, on a real server."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_natskv.kv import BucketStatus, KVContext
from tests.fix_commands import CTRL_C, CTRL_D, PROMPT, Manage
from tests.fix_servers import MakeServer, NatsServer

# Up to nine interpreters start in a test, each of them in seconds on a busy machine.
pytestmark = pytest.mark.timeout(240)

DEFAULTS: dict[str, Any] = {
    "description": None,
    "history": 1,
    "ttl_ms": 0,
    "max_value_size": -1,
    "max_bucket_size": -1,
    "storage": "file",
    "discard": "new",
    "replicas": 1,
    "compression": False,
    "limit_marker_ttl_ms": 0,
    "metadata": {},
    "placement": None,
    "republish": None,
    "mirror": None,
    "sources": [],
    "values": 0,
    "bytes": 0,
}


def _lines(text: str) -> dict[str, str]:
    return dict(line.split("  ", 1) for line in text.splitlines())


# ---------------------------------------------------------------- create


def test_create_makes_a_bucket_and_shows_its_status(manage: Manage, kv: KVContext, bucket_name: str):
    done = manage("natskv_bucket", "create", bucket_name)
    assert (done.code, done.error) == (0, f"The bucket {bucket_name!r} is ready.")
    shown = {title: value.strip() for title, value in _lines(done.out).items()}
    assert shown["Bucket"] == bucket_name
    assert shown["TTL"] == "none"
    assert shown["Max value size"] == "unlimited"
    assert bucket_name in kv.bucket_names()


def test_create_takes_every_option_of_a_configuration(manage: Manage, stocked: str, bucket_name: str):
    name = f"{bucket_name}_2"
    done = manage(
        *("natskv_bucket", "create", name, "--format", "json"),
        *("--description", "every option: é", "--history", "8", "--ttl", "1d12h", "--limit-marker-ttl", "90s"),
        *("--max-value-size", "64KiB", "--max-bucket-size", "10MB", "--storage", "memory", "--replicas", "1"),
        *("--compression", "--metadata", "team=shop", "--metadata", "note=a=b"),
        *("--placement-cluster", "east", "--placement-tag", "ssd", "--placement-tag", "fast"),
        *("--republish", ">:copies.>", "--republish-headers-only"),
        *("--source", stocked, "--source", "far@hub"),
    )
    assert done.code == 0, done.err
    assert json.loads(done.out) == DEFAULTS | {
        "bucket": name,
        "description": "every option: é",
        "history": 8,
        "ttl_ms": 129_600_000,
        "limit_marker_ttl_ms": 90_000,
        "max_value_size": 65_536,
        "max_bucket_size": 10_000_000,
        "storage": "memory",
        "compression": True,
        "metadata": {"team": "shop", "note": "a=b"},
        "placement": {"cluster": "east", "tags": ["ssd", "fast"]},
        "republish": {"source": ">", "destination": "copies.>", "headers_only": True},
        "sources": [{"bucket": stocked}, {"bucket": "far", "domain": "hub"}],
        # What the source brings arrives when it arrives.
        "values": json.loads(done.out)["values"],
        "bytes": json.loads(done.out)["bytes"],
    }
    shown = manage("natskv_bucket", "status", name).out
    for text in (
        "1d12h",
        "1m30s",
        "64KiB",
        "9.5MiB (10000000 bytes)",
        "note=a=b, team=shop",
        "cluster east, tag ssd, tag fast",
        "> to copies.>, headers only",
        f"{stocked}, far@hub",
    ):
        assert text in shown
    assert manage("natskv_bucket", "delete", name, "--no-input").code == 0


def test_create_makes_a_mirror(manage: Manage, stocked: str):
    done = manage("natskv_bucket", "create", f"{stocked}_mirror", "--mirror", stocked, "--format", "json")
    assert json.loads(done.out)["mirror"] == {"bucket": stocked}
    shown = _lines(manage("natskv_bucket", "status", f"{stocked}_mirror").out)
    assert shown["Mirror of"].strip() == stocked
    assert manage("natskv_bucket", "delete", f"{stocked}_mirror", "--no-input").code == 0


def test_create_again_is_no_error_and_with_another_configuration_one(manage: Manage, bucket_name: str):
    create = ("natskv_bucket", "create", bucket_name, "--history", "3")
    assert manage(*create).code == 0
    assert manage(*create).code == 0
    done = manage(*create[:-1], "4", "--ttl", "1h")
    assert (done.code, done.out) == (1, "")
    assert f"{bucket_name!r} exists with another configuration" in done.error
    assert done.error.endswith(" There history is 3, not 4; ttl_ms is none, not 1h.")
    done = manage(*create[:-2])
    assert (done.code, done.error.endswith(" natskv_bucket status shows it.")) == (1, True)


# ---------------------------------------------------------------- list and status


def test_status_has_the_fields_of_the_facade_in_json(manage: Manage, kv: KVContext, stocked: str):
    done = manage("natskv_bucket", "status", stocked, "--format", "json")
    assert (done.code, done.err) == (0, "")
    expected = dataclasses.asdict(kv.bucket_status(stocked))
    told = json.loads(done.out)
    assert list(told) == [*(field.name for field in dataclasses.fields(BucketStatus)), "health", "local_caches"]
    assert told.pop("local_caches") == []
    newest = kv.open_bucket(stocked).history("gone")[-1].created
    times = {"created": kv.bucket_health(stocked).created.isoformat(), "written": newest.isoformat()}
    kept = {"keys": 3, "revisions": 4}
    assert told.pop("health") == {**times, **kept, "cluster": None, "leader": None, "replicas": []}
    assert told == {**expected, "sources": []}


def test_status_names_who_reads_the_bucket_from_a_local_cache(manage: Manage, nats_server: NatsServer, stocked: str):
    options = {"LOCAL_CACHE": "mirror"}
    cache = {"BACKEND": "django_natskv.cache.NatsKVCache", "LOCATION": stocked, "OPTIONS": options}
    natskv = {"default": {"SERVERS": [nats_server.url]}}
    manage.configure(natskv, CACHES={"default": cache})
    assert 'Local caches      CACHES["default"] (mirror)\n' in manage("natskv_bucket", "status", stocked).out
    told = json.loads(manage("natskv_bucket", "status", stocked, "--format", "json").out)
    assert told["local_caches"] == [{"source": 'CACHES["default"]', "mode": "mirror"}]
    options["LOCAL_CACHE"] = "sometimes"
    manage.configure(natskv, CACHES={"default": cache})
    done = manage("natskv_bucket", "status", stocked)
    assert (done.code, "Local caches      -\n" in done.out) == (0, True)
    assert "Which local caches read the bucket cannot be told: " in done.error


def test_status_in_plain_text_has_exact_values(manage: Manage, stocked: str):
    done = manage("natskv_bucket", "status", stocked, "--format", "plain")
    fields = dict(line.split("\t") for line in done.out.splitlines())
    assert fields["bucket"] == stocked
    assert fields["values"] == "2"
    assert fields["ttl_ms"] == "0"
    assert fields["max_value_size"] == "-1"
    assert fields["description"] == ""
    assert json.loads(fields["metadata"]) == {"team": "shop"}


def test_list_is_an_aligned_table(manage: Manage, make_server: MakeServer):
    server = make_server()
    manage.configure({"default": {"SERVERS": [server.url]}})
    manage("natskv_bucket", "create", "zz", "--ttl", "90s", "--description", "the\tlast\n\x1b[31mone")
    manage("natskv_bucket", "create", "a-longer-name", "--max-bucket-size", "1536", "--storage", "memory")
    done = manage("natskv_bucket", "list")
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        "Bucket         Values  Size      Limit  History    TTL  Storage  Replicas  Description\n"
        "a-longer-name       0    0B     1.5KiB        1   none  memory          1  -\n"
        "zz                  0    0B  unlimited        1  1m30s  file            1  the\\tlast\\n\\x1b[31mone\n"
    )
    assert manage("natskv_bucket", "list", "--format", "plain").out == (
        "a-longer-name\t0\t0\t1536\t1\t0\tmemory\t1\t\nzz\t0\t0\t-1\t1\t90000\tfile\t1\tthe\\tlast\\n\\x1b[31mone\n"
    )
    listed = json.loads(manage("natskv_bucket", "list", "--format", "json").out)
    assert [status["bucket"] for status in listed] == ["a-longer-name", "zz"]
    assert listed[0] == DEFAULTS | {"bucket": "a-longer-name", "storage": "memory", "max_bucket_size": 1536}
    assert manage("natskv_bucket", "list", "--names").out == "a-longer-name\nzz\n"
    assert json.loads(manage("natskv_bucket", "list", "--names", "--format", "json").out) == ["a-longer-name", "zz"]


def test_no_buckets_are_an_empty_list_and_a_word_on_stderr(manage: Manage, make_server: MakeServer):
    manage.configure({"default": {"SERVERS": [make_server().url]}})
    done = manage("natskv_bucket", "list")
    assert (done.code, done.out, done.error) == (0, "", "There are no buckets.")
    done = manage("natskv_bucket", "list", "--format", "json", "--verbosity", "0")
    assert (done.code, done.out, done.err) == (0, "[]\n", "")
    assert manage("natskv_bucket", "list", "--format", "plain").out == ""


# ---------------------------------------------------------------- update


def test_update_changes_only_what_is_given(manage: Manage, kv: KVContext, stocked: str):
    before = kv.bucket_status(stocked)
    done = manage("natskv_bucket", "update", stocked, "--history", "6", "--ttl", "1h", "--format", "json")
    assert (done.code, done.error) == (0, f"Changed the bucket {stocked!r}.")
    after = kv.bucket_status(stocked)
    assert after == dataclasses.replace(before, history=6, ttl_ms=3_600_000)
    assert json.loads(done.out)["history"] == 6


def test_update_changes_a_part_of_placement_and_republish_and_leaves_the_rest(manage: Manage, stocked: str):
    def update(*options: str) -> Any:
        return json.loads(manage("natskv_bucket", "update", stocked, *options, "--format", "json").out)

    assert update("--placement-cluster", "east")["placement"] == {"cluster": "east"}
    assert update("--placement-tag", "ssd")["placement"] == {"cluster": "east", "tags": ["ssd"]}
    assert update("--placement-cluster", "west")["placement"] == {"cluster": "west", "tags": ["ssd"]}
    before = update("--republish", ">:copies.>")["republish"]
    assert before["headers_only"] is False
    assert update("--republish-headers-only")["republish"] == {**before, "headers_only": True}
    assert update("--no-republish-headers-only")["republish"] == before


def test_update_takes_back(manage: Manage, kv: KVContext, stocked: str):
    set_all = ("--description", "x", "--ttl", "1h", "--max-value-size", "1KiB", "--max-bucket-size", "1GiB")
    more = ("--compression", "--limit-marker-ttl", "5s", "--placement-tag", "ssd", "--source", "far@hub")
    republish = ("--republish", ">:copies.>", "--republish-headers-only")
    assert manage("natskv_bucket", "update", stocked, *set_all, *more, *republish).code == 0
    assert kv.bucket_status(stocked).sources == ({"bucket": "far", "domain": "hub"},)
    take_back = ("--description", "", "--ttl", "none", "--max-value-size", "-1", "--max-bucket-size", "unlimited")
    rest = ("--no-compression", "--limit-marker-ttl", "0", "--no-placement", "--no-source", "--no-metadata")
    done = manage("natskv_bucket", "update", stocked, *take_back, *rest, "--no-republish", "--format", "json")
    assert done.code == 0, done.err
    plain = {"bucket": stocked, "history": 4, "values": 2}
    assert json.loads(done.out) == DEFAULTS | plain | {"bytes": json.loads(done.out)["bytes"]}


def test_update_of_what_cannot_be_changed_is_refused_in_the_words_of_the_server(manage: Manage, stocked: str):
    done = manage("natskv_bucket", "update", stocked, "--storage", "memory")
    assert (done.code, done.out) == (1, "")
    assert "can not change storage type" in done.error


# ---------------------------------------------------------------- delete, purge-deletes and consent


def test_delete_without_a_terminal_is_refused_and_says_how(manage: Manage, kv: KVContext, stocked: str):
    done = manage("natskv_bucket", "delete", stocked)
    assert (done.code, done.out) == (1, "")
    assert "--no-input" in done.error
    assert stocked in kv.bucket_names()


def test_delete_with_no_input_deletes(manage: Manage, kv: KVContext, stocked: str):
    done = manage("natskv_bucket", "delete", stocked, "--no-input", "--format", "json")
    assert (done.code, done.error) == (0, f"Deleted the bucket {stocked!r}.")
    assert json.loads(done.out) == {"bucket": stocked, "deleted": True}
    assert stocked not in kv.bucket_names()


@pytest.mark.parametrize("answer", ["y\n", "YES\n"], ids=str.strip)
def test_delete_asks_on_a_terminal(manage: Manage, kv: KVContext, stocked: str, answer: str):
    done = manage.on_terminal("natskv_bucket", "delete", stocked, answer=answer)
    assert done.code == 0
    assert done.screen.startswith(f"Delete the bucket {stocked!r} and its 2 live entries? {PROMPT}")
    assert stocked not in kv.bucket_names()


@pytest.mark.parametrize("answer", ["\n", "n\n", "yess\n", CTRL_D, CTRL_C], ids=repr)
def test_anything_but_yes_leaves_everything_as_it_is(manage: Manage, kv: KVContext, stocked: str, answer: str):
    done = manage.on_terminal("natskv_bucket", "delete", stocked, "--no-color", answer=answer)
    assert done.code == 1
    assert done.screen.splitlines()[-1] == "CommandError: Nothing was done: the answer was not yes."
    assert stocked in kv.bucket_names()


def test_the_question_does_not_go_where_the_result_goes(manage: Manage, stocked: str):
    done = manage.on_terminal(
        "natskv_bucket", "delete", stocked, "--format", "json", answer="y\n", stdout=subprocess.PIPE
    )
    assert json.loads(done.out) == {"bucket": stocked, "deleted": True}
    assert PROMPT in done.screen


def test_purge_deletes_asks_and_removes_what_is_left_of_deleted_keys(manage: Manage, kv: KVContext, stocked: str):
    handle = kv.open_bucket(stocked)
    assert manage("natskv_bucket", "purge-deletes", stocked).code == 1
    assert manage.on_terminal("natskv_bucket", "purge-deletes", stocked, answer="n\n").code == 1
    assert len(handle.history("gone")) == 2
    done = manage.on_terminal("natskv_bucket", "purge-deletes", stocked, answer="y\n")
    assert done.code == 0
    assert handle.history("gone") == []
    assert handle.keys() == ["a", "b"]
    done = manage("natskv_bucket", "purge-deletes", stocked, "--no-input", "--format", "json")
    assert (done.code, json.loads(done.out)) == (0, {"bucket": stocked, "purged": True})


# ---------------------------------------------------------------- colours and talk


def test_colours_are_for_terminals(manage: Manage, stocked: str):
    assert "\x1b[" in manage.on_terminal("natskv_bucket", "list").screen
    assert "\x1b[" not in manage.on_terminal("natskv_bucket", "list", "--no-color").screen
    assert "\x1b[" not in manage.on_terminal("natskv_bucket", "--no-color", "status", stocked).screen
    assert "\x1b[" not in manage("natskv_bucket", "list").out
    assert "\x1b[" in manage("natskv_bucket", "status", stocked, "--force-color").out
    assert "\x1b[" not in manage.on_terminal("natskv_bucket", "status", stocked, stdout=subprocess.PIPE).out


def test_the_environment_can_do_without_colours(manage: Manage, stocked: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    failed = manage.on_terminal("natskv_bucket", "status", "nosuch").screen
    assert ("nosuch" in failed, "\x1b[" in failed) == (True, False)
    assert "\x1b[" in manage("natskv_bucket", "status", stocked, "--force-color").out


def test_talk_to_a_file_is_not_coloured_because_the_result_is(manage: Manage, stocked: str, tmp_path: Path):
    with (tmp_path / "talk").open("w") as talk:
        done = manage.on_terminal("natskv_bucket", "update", stocked, "--history", "5", stderr=talk)
    assert "\x1b[" in done.screen
    assert (tmp_path / "talk").read_text() == f"Changed the bucket {stocked!r}.\n"


def test_verbosity_0_says_nothing(manage: Manage, stocked: str):
    done = manage("natskv_bucket", "update", stocked, "--history", "7", "-v", "0")
    assert (done.code, done.err) == (0, "")
    assert "History" in done.out


# ---------------------------------------------------------------- help, and use from Python


VERBS = ("create", "list", "status", "update", "delete", "purge-deletes", "sync", "dump", "restore", "watch")


def test_help_has_an_example_of_each_verb(manage: Manage):
    done = manage("natskv_bucket", "--help")
    assert (done.code, done.err) == (0, "")
    for verb in VERBS:
        assert f"\n  manage.py natskv_bucket {verb}" in done.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_has_examples_and_the_exit_statuses(manage: Manage, verb: str):
    done = manage("natskv_bucket", verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert f"\nexamples:\n  manage.py natskv_bucket {verb}" in done.out
    assert "Exit status: 0 done;" in done.out
    assert "--pythonpath" not in done.out  # Django's own options are told of once, before the verb


def _call(*arguments: str, **options: Any) -> str:
    out = io.StringIO()
    call_command("natskv_bucket", *arguments, **options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_call_command_takes_options_as_text_and_as_keywords(kv: KVContext, bucket_name: str):
    made = json.loads(_call("create", bucket_name, "--history", "5", "--format", "json"))
    assert made["history"] == 5
    keywords = {"history": 6, "ttl": "1h", "max_value_size": 2048, "compression": True, "metadata": ["team=shop"]}
    changed = json.loads(_call("update", bucket_name, **keywords, format="json"))
    assert {name: changed[name] for name in ("history", "ttl_ms", "max_value_size", "compression", "metadata")} == {
        "history": 6,
        "ttl_ms": 3_600_000,
        "max_value_size": 2048,
        "compression": True,
        "metadata": {"team": "shop"},
    }
    assert bucket_name in _call("list")
    assert _call("delete", bucket_name, interactive=False) == ""
    assert bucket_name not in kv.bucket_names()


@pytest.mark.parametrize(
    ("arguments", "options", "status"),
    [
        (("status", "nosuch"), {}, 3),
        (("status", "a b"), {}, 2),
        (("status",), {}, 2),
        (("create", "x"), {"ttl": 3600}, 2),
        (("list",), {"using": "nowhere"}, 2),
    ],
)
def test_call_command_raises_command_error_with_the_exit_status(
    kv: KVContext, arguments: tuple[str, ...], options: dict[str, Any], status: int
):
    with pytest.raises(CommandError) as caught:
        _call(*arguments, **options)
    assert caught.value.returncode == status


def test_call_command_without_a_terminal_refuses_to_destroy(kv: KVContext, stocked: str):
    with pytest.raises(CommandError, match="--no-input"):
        _call("delete", stocked)
    assert stocked in kv.bucket_names()
