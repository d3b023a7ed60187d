"""Many keys of a cache at once: written and removed in as few requests as there can be, and nothing is left behind."""

from __future__ import annotations

import os
from base64 import b64decode
from contextlib import suppress
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, backoff, chunks
from django_natskv.cache.place import Place
from django_natskv.connections import connections
from django_natskv.exceptions import JetStreamApiError, OperationTimedOut, PermissionsViolation
from django_natskv.kv import Bucket, Change
from tests.fix_waiting import eventually
from tests.integration.watching import ask

LARGE = 600_000
KEYS = [f"k{number}" for number in range(20)]


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


@pytest.fixture
def other(plain: NatsKVCache) -> NatsKVCache:
    """The same bucket, as another process sees it."""
    other = NatsKVCache(plain._location, {"OPTIONS": {"COMPRESS_MIN": 7}})
    assert other._place is not plain._place
    return other


@pytest.fixture
def changes() -> list[Change]:
    """What it was asked to write lately, several as one."""
    return []


@pytest.fixture
def asked(plain: NatsKVCache, changes: list[Change], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bucket is asked for."""
    names: list[str] = []
    ask = Place.ask

    def spied(self: Place, name: str, *given: Any, **options: Any) -> Any:
        names.append(name)
        if name == "write_many":
            changes[:] = given[0]
        return ask(self, name, *given, **options)

    plain.delete_many(["opened"])
    monkeypatch.setattr(Place, "ask", spied)
    return names


def test_many_keys_are_written_read_and_removed_in_a_request_each(plain, asked, changes, stored):
    assert plain.set_many(dict.fromkeys(KEYS, 1), 100) == []
    assert plain.get_many(KEYS) == dict.fromkeys(KEYS, 1)
    plain.delete_many([*KEYS, "never-there"])
    assert asked == ["write_many", "get_many", "write_many"]
    assert plain.get_many(KEYS) == {}
    assert stored().keys() == []
    assert [change.key for change in changes] == [f"_.1.{key}" for key in [*KEYS, "never-there"]]
    assert {change.ttl_ms for change in changes} == {1_000}  # and then nothing is left
    asked.clear()
    plain.set_many(dict.fromkeys(KEYS, 1))
    plain.set_many(dict.fromkeys(KEYS, 2), 0)
    assert asked == ["write_many", "write_many"]
    assert plain.get_many(KEYS) == {}


def test_many_small_values_are_written_without_what_the_server_would_have_to_remember(plain, bucket_name):
    def headers(key):
        query = {"last_by_subj": f"$KV.{bucket_name}._.1.{key}"}
        return b64decode(ask(connections["default"], f"STREAM.MSG.GET.KV_{bucket_name}", query)["message"]["hdrs"])

    def tombstone():
        plain.delete_many(["gone"])
        with suppress(JetStreamApiError):  # it stays for a second, and it took longer to ask
            return headers("gone")

    plain.set("alone", "x")
    plain.set_many({"one": "x", "two": "y"})
    assert [b"Nats-Msg-Id" in headers(key) for key in ("alone", "one", "two")] == [True, False, False]
    assert b"Nats-Msg-Id" not in eventually(tombstone)


def test_what_was_added_and_removed_with_others_is_added_again_at_once(plain, asked):
    assert plain.add("k", 1)
    plain.delete_many(["k"])
    asked.clear()
    assert plain.add("k", 2)
    assert asked == ["create"]


@pytest.mark.parametrize("few", [1_000, 0], ids=["few chunks", "many chunks"])
def test_chunks_go_with_their_heads_where_many_keys_are_removed(plain, other, stored, monkeypatch, few):
    monkeypatch.setattr(chunks, "_FEW", few)
    other.set("others", os.urandom(LARGE))
    plain.set_many({"small": 1, "kept": 2})
    plain.delete_many(["others", "small"])
    assert stored().keys() == ["_.1.kept"]
    plain.set("own", os.urandom(LARGE))  # after it was looked which keys have chunks
    plain.delete_many(["own", "small"])
    assert stored().keys() == ["_.1.kept"]


def test_keys_are_looked_at_again_for_chunks_of_others_after_a_while(plain, other, stored):
    plain.delete_many(["k"])
    other.set("k", os.urandom(LARGE))
    plain._store.chunks._look_at = 0.0
    plain.delete_many(["k"])
    assert stored().keys() == []


def test_who_may_not_list_keys_may_remove_many(make_server, settings):
    deny = 'publish: { deny: "$JS.API.CONSUMER.CREATE.>" }'
    users = f'authorization {{ users = [ {{ user: "app", password: "p", permissions: {{ {deny} }} }} ] }}'
    server = make_server(config=users)
    settings.NATSKV = {"default": {"SERVERS": [server.url], "USER": "app", "PASSWORD": "p"}}
    cache = NatsKVCache("cache", {})
    cache.set_many({"a": 1, "b": os.urandom(LARGE)})
    for _ in range(2):
        cache.delete_many(["a", "b"])
        assert cache.get_many(["a", "b"]) == {}
        cache.set("a", 1)


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_a_key_that_may_not_be_removed_is_told_and_the_others_are_gone(make_server, settings, storage):
    users = """authorization { users = [
        { user: "admin", password: "p" },
        { user: "app", password: "p", permissions: { publish: { deny: "$KV.cache._.1.no" } } },
    ] }"""
    at = {"SERVERS": [make_server(config=users).url], "PASSWORD": "p"}
    settings.NATSKV = {"default": {**at, "USER": "app"}, "admin": {**at, "USER": "admin"}}
    mine = NatsKVCache("cache", {"OPTIONS": {"BUCKET": {"storage": storage}}})
    admins = NatsKVCache("cache", {"OPTIONS": {"CONNECTION": "admin", "BUCKET": {"storage": storage}}})
    admins.set_many({"a": 1, "no": 1, "b": 1})
    with pytest.raises(PermissionsViolation):
        mine.delete_many(["a", "no", "b"])
    assert admins.get_many(["a", "no", "b"]) == {"no": 1}


def test_what_is_written_to_a_file_bucket_while_several_are_removed_is_removed(natskv, bucket_name, monkeypatch):
    file = NatsKVCache(bucket_name, {"OPTIONS": {"BUCKET": {"storage": "file"}}})  # reads first (F1)
    file.set_many({"k": 1, "l": 1})
    write_many = Bucket.write_many

    def overtaken(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(Bucket, "write_many", write_many)
        file.set("k", 2)
        return write_many(*args, **options)

    monkeypatch.setattr(Bucket, "write_many", overtaken)
    file.delete_many(["k", "l"])
    assert file.get_many(["k", "l"]) == {}
    monkeypatch.setattr(backoff, "TRIES", 0)
    with pytest.raises(backoff.ContendedError):
        file.delete_many(["k"])


def test_a_server_that_does_not_answer_is_asked_again_for_the_keys_with_chunks(make_server, settings):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.2}}
    cache = NatsKVCache("cache", {})
    eventually(lambda: cache.set_many({"k": 1}) == [], 30)
    server.freeze()
    with pytest.raises(OperationTimedOut):
        cache.delete_many(["k"])
    server.thaw()
    assert cache._store.chunks._look_at == 0.0
