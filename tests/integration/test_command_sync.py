"""``manage.py natskv_bucket sync``, run as a user runs it, on a real server of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from django_natskv import kv
from tests.fix_commands import PROMPT, Finished, Manage
from tests.fix_servers import MakeServer, NatsServer


@pytest.fixture
def server(make_server: MakeServer) -> NatsServer:
    return make_server()


@pytest.fixture
def there(server: NatsServer) -> Iterator[kv.KVContext]:
    connection = kv.Connection(kv.ConnectionSettings(servers=(server.url,), connect_timeout=20.0, request_timeout=20.0))
    yield connection.kv()
    connection.close()


@pytest.fixture
def declare(manage: Manage, server: NatsServer) -> Any:
    def declare(buckets: dict[str, Any], **others: Any) -> None:
        more = {alias: {"SERVERS": [server.url], "BUCKETS": theirs} for alias, theirs in others.items()}
        manage.configure({"default": {"SERVERS": [server.url], "BUCKETS": buckets}, **more})

    return declare


def sync(manage: Manage, *arguments: str) -> Finished:
    return manage("natskv_bucket", "sync", *arguments)


def test_missing_buckets_are_made_and_different_ones_changed(manage: Manage, declare: Any, there: kv.KVContext):
    there.create_bucket({"bucket": "config", "history": 5, "description": "by hand"})
    there.create_bucket({"bucket": "same", "history": 3})
    declare({"config": {"history": 20, "ttl_ms": 0}, "flags": {"history": 8, "storage": "memory"}, "same": {}})
    planned = sync(manage, "--plan")
    assert (planned.code, planned.err) == (0, "")
    assert planned.out == (
        "change      config\n"
        "              history: 5 -> 20\n"
        "create      flags\n"
        "              history: 8\n"
        "              storage: memory\n"
        "unchanged   same\n"
    )
    checked = sync(manage, "--check")
    assert (checked.code, checked.out) == (1, planned.out)
    assert checked.error == "CommandError: 2 of 3 buckets are not as declared."
    assert there.bucket_names() == ["config", "same"]
    done = sync(manage)
    assert (done.code, done.out) == (0, planned.out)
    assert done.err == "Changed the bucket 'config'.\nCreated the bucket 'flags'.\n"
    config = there.open_bucket("config").config
    assert (config.history, config.description) == (20, "by hand")
    flags = there.open_bucket("flags").config
    assert (flags.history, flags.storage) == (8, "memory")
    again = sync(manage, "--check")
    assert (again.code, again.out, again.err) == (
        *(0, "unchanged   config\nunchanged   flags\nunchanged   same\n"),
        "",
    )


def test_a_plan_in_json_and_plain_text(manage: Manage, declare: Any, there: kv.KVContext):
    there.create_bucket({"bucket": "b", "history": 5, "storage": "file"})
    there.create_bucket({"bucket": "old"})
    declare({"b": {"history": 2, "storage": "memory"}})
    told = json.loads(sync(manage, "--plan", "--format", "json").out)
    assert told == [
        {
            "bucket": "b",
            "action": "change",
            "declared_by": ['NATSKV["default"]["BUCKETS"]["b"]'],
            "changes": [
                {"option": "history", "old": 5, "new": 2, "in_place": True, "loses_data": True},
                {"option": "storage", "old": "file", "new": "memory", "in_place": False, "loses_data": False},
            ],
        },
        {"bucket": "old", "action": "undeclared", "declared_by": [], "changes": []},
    ]
    plain = sync(manage, "--plan", "--format", "plain").out.splitlines()
    assert [line.split("\t") for line in plain] == [
        ["change", "b", "history", "5", "2", "loses"],
        ["change", "b", "storage", "file", "memory", "fixed"],
        ["undeclared", "old", "", "", "", ""],
    ]


def test_what_may_lose_data_wants_to_be_allowed(manage: Manage, declare: Any, there: kv.KVContext):
    bucket = there.create_bucket({"bucket": "b", "history": 5})
    for value in range(5):
        bucket.put("a", value)
    declare({"b": {"history": 2, "ttl_ms": 3_600_000}, "new": {}})
    assert "ttl_ms: none -> 1h  (may lose data: needs --allow-data-loss)" in sync(manage, "--plan").out
    refused = sync(manage)
    assert refused.code == 1
    assert refused.err.splitlines() == [
        "Created the bucket 'new'.",
        "CommandError: Left as it is: 'b', which might lose data (--allow-data-loss).",
    ]
    assert len(bucket.history("a")) == 5
    allowed = sync(manage, "--allow-data-loss")
    assert (allowed.code, "ttl_ms: none -> 1h  (may lose data)\n" in allowed.out) == (0, True)
    assert len(bucket.history("a")) == 2


def test_what_cannot_be_changed_in_place_is_left(manage: Manage, declare: Any, there: kv.KVContext):
    there.create_bucket({"bucket": "b"}).put("a", 1)
    declare({"b": {"storage": "memory", "history": 4}})
    assert "storage: file -> memory  (cannot be changed in place" in sync(manage, "--plan").out
    done = sync(manage, "--allow-data-loss")
    assert (done.code, "would have to be made anew" in done.error) == (1, True)
    config = there.open_bucket("b").config
    assert (config.storage, config.history) == ("file", 1)


def test_undeclared_buckets_are_shown_and_deleted_only_when_asked_to(manage: Manage, declare: Any, there: kv.KVContext):
    for name in ("kept", "old", "theirs"):
        there.create_bucket({"bucket": name})
    declare({"kept": {}}, other={"theirs": {}})
    assert sync(manage).out == "unchanged   kept\nundeclared  old\n"
    assert sync(manage, "--check").code == 0
    assert sync(manage, "--check", "--prune").code == 1
    refused = sync(manage, "--prune")
    assert (refused.code, "--no-input" in refused.error) == (1, True)
    answered = manage.on_terminal("natskv_bucket", "sync", "--prune", answer="n\n")
    assert (
        answered.code,
        f"Delete the undeclared bucket old and all that is in it? {PROMPT}" in answered.screen,
    ) == (
        1,
        True,
    )
    assert there.bucket_names() == ["kept", "old", "theirs"]
    done = sync(manage, "--prune", "--no-input")
    assert (done.code, done.error) == (0, "Deleted the bucket 'old'.")
    assert there.bucket_names() == ["kept", "theirs"]


def test_pruning_without_a_declaration_is_refused(manage: Manage, declare: Any, there: kv.KVContext):
    there.create_bucket({"bucket": "old"})
    declare({})
    done = sync(manage, "--prune", "--no-input")
    assert (done.code, "No bucket is declared" in done.error) == (1, True)
    assert there.bucket_names() == ["old"]


def test_each_option_that_can_be_declared_is_settled_at_once(manage: Manage, declare: Any, there: kv.KVContext):
    there.create_bucket({"bucket": "origin"})
    declare(
        {
            "b": {
                "description": "all: é",
                "history": 4,
                "ttl_ms": 60_000,
                "max_value_size": 1_000,
                "max_bucket_size": 100_000,
                "storage": "memory",
                "replicas": 1,
                "compression": True,
                "limit_marker_ttl_ms": 5_000,
                "metadata": {"team": "shop"},
                "republish": {"destination": "copies.>"},
                "sources": ["origin"],
            },
            "copy": {"mirror": "origin"},
            "origin": {"description": "", "placement": {}, "metadata": {}},
        }
    )
    assert sync(manage).code == 0
    checked = sync(manage, "--check")
    assert (checked.code, checked.out) == (0, "unchanged   b\nunchanged   copy\nunchanged   origin\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--plan", "--check"), 2, "not allowed with argument"),
        (("name",), 2, "unrecognized arguments"),
        (("--using", "nowhere"), 2, 'The connection "nowhere" doesn\'t exist'),
    ],
    ids=str,
)
def test_a_mistake_is_one_line(manage: Manage, arguments: tuple[str, ...], status: int, said: str):
    done = sync(manage, *arguments)
    assert (done.code, done.out) == (status, "")
    assert said in done.error


def test_what_the_server_refuses_is_one_line(manage: Manage, declare: Any, there: kv.KVContext):
    declare({"b": {"replicas": 3}})
    done = sync(manage)
    assert (done.code, done.out) == (1, "")
    assert "'b'" in done.error


def test_caches_declare_their_buckets(manage: Manage, server: NatsServer, there: kv.KVContext):
    ours = {"BACKEND": "django_natskv.cache.NatsKVCache"}
    caches = {
        "default": {**ours, "LOCATION": "cache", "OPTIONS": {"BUCKET": {"max_bucket_size": 2**20}}},
        "other": {**ours, "LOCATION": "elsewhere", "OPTIONS": {"CONNECTION": "second"}},
        "alone": {**ours, "LOCATION": f"{server.url}/alone"},
        "memory": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    connection = {"SERVERS": [server.url]}
    manage.configure({"default": connection, "second": connection}, CACHES=caches)
    assert (sync(manage).code, there.bucket_names()) == (0, ["cache"])
    made = there.bucket_status("cache")
    assert (made.storage, made.discard, made.max_bucket_size) == ("memory", "old", 2**20)
    assert sync(manage, "--check").code == 0
    assert (sync(manage, "--using", "second").code, there.bucket_names()) == (0, ["cache", "elsewhere"])
    pruned = sync(manage, "--prune", "--no-input")
    assert (pruned.code, there.bucket_names()) == (0, ["cache", "elsewhere"])
