"""What the server does not permit: said at once, by name, to whom it concerns and to nobody else."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_natskv.exceptions import AuthInvalid, NotConnected, OperationalError, PermissionsViolation
from django_natskv.kv import Change
from django_natskv.kv._nats.dial import parse_violation
from tests.fix_connections import Connect
from tests.fix_servers import MakeServer, NatsServer
from tests.fix_waiting import eventually

LONG = 40.0  # seconds: the timeout of requests
FAST = 20.0  # seconds; without a notice of the violation it is that timeout, and who is only held up a while takes less


def users(permissions: str, *, password: str = "p") -> str:
    admin = '{ user: "admin", password: "p" }'
    return (
        f"authorization {{ timeout: 2, users = [ {admin}, "
        f'{{ user: "app", password: "{password}", permissions: {{ {permissions} }} }} ] }}'
    )


def reload(server: NatsServer, config: str) -> None:
    """Have the server read another configuration while it runs."""
    server.config = config
    (server.directory / "server.conf").write_text(server._configuration())
    os.kill(server.pid, signal.SIGHUP)


def timed(operation: Any) -> tuple[float, PermissionsViolation]:
    began = time.monotonic()
    with pytest.raises(PermissionsViolation) as caught:
        operation()
    return time.monotonic() - began, caught.value


def test_a_write_that_is_not_permitted_names_the_permission_and_hinders_nothing_else(
    connect: Connect, make_server: MakeServer
) -> None:
    deny = 'publish: { deny: "$KV.Config.Secret.>" }'
    server = make_server(config=users(deny))
    connect(server.url, USER="admin", PASSWORD="p").kv().create_bucket({"bucket": "Config"})
    bucket = connect(server.url, USER="app", PASSWORD="p", NAME="app", REQUEST_TIMEOUT=LONG).kv().open_bucket("Config")
    stop = threading.Event()

    def others() -> int:
        done = 0
        while not stop.is_set() or done == 0:
            done = bucket.put("open", done)
            assert bucket.get("open").revision == done
        return done

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(bucket.get, "nothing"), *(pool.submit(others) for _ in range(1))]
        for _ in range(5):
            seconds, error = timed(lambda: bucket.put("Secret.Key", "v4lue"))
            assert seconds < FAST
            assert (error.action, error.subject) == ("publish", "$KV.Config.Secret.Key")
            assert "$KV.Config.Secret.Key" in str(error)
            assert "putting 'Secret.Key' in bucket 'Config'" in str(error)
            assert "v4lue" not in str(error)
        stop.set()
        for one in working:
            one.result(30)

    async def awaited() -> None:
        with pytest.raises(PermissionsViolation):
            await bucket.aput("Secret.Key", 1)
        await bucket.aput("open", 1)

    asyncio.run(awaited())
    assert len(server.connections("app")) == 1
    assert bucket._core.wire.client.generation == 1


def test_a_key_that_differs_in_the_size_of_its_letters_is_not_refused_with_another(
    connect: Connect, make_server: MakeServer
) -> None:
    """nats-py makes small letters of what the server says (F12); both are in flight when it is said."""
    server = make_server(config=users('publish: { deny: "$KV.b.Secret" }'))
    bucket = connect(server.url, USER="app", PASSWORD="p").kv().create_bucket({"bucket": "b"})
    refused, stored = bucket.write_many([Change.put("Secret", 1), Change.put("secret", 2)])
    assert refused.subject == "$KV.b.Secret"
    assert bucket.get("secret").revision == stored


@pytest.mark.parametrize("line", [b"", b"PING\r\n", b"-ERR 'Permissions Violation for Publish to \"another\"'\r\n"])
def test_what_is_refused_is_told_by_its_letters_alone_where_the_line_is_not_known(line: bytes) -> None:
    violation = parse_violation('nats: permissions violation for publish to "$kv.b.secret"', line)
    assert violation is not None
    assert [violation.concerns(subject) for subject in ("$KV.b.Secret", "$KV.b.other")] == [True, False]


def test_a_read_that_is_not_permitted(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users('publish: { deny: "$JS.API.DIRECT.GET.KV_b.$KV.b.Hidden" }'))
    bucket = connect(server.url, USER="app", PASSWORD="p", REQUEST_TIMEOUT=LONG).kv().create_bucket({"bucket": "b"})
    seconds, error = timed(lambda: bucket.get("Hidden"))
    assert seconds < FAST
    assert error.subject == "$JS.API.DIRECT.GET.KV_b.$KV.b.Hidden"
    assert bucket.get("hidden") is None


def test_a_permission_that_is_missing_is_named_so_that_granting_it_helps(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server(config=users('publish: { deny: "$JS.API.CONSUMER.>" }'))
    bucket = connect(server.url, USER="app", PASSWORD="p").kv().create_bucket({"bucket": "b"})
    _, error = timed(bucket.keys)
    # The name at the end is another one the next time.
    assert error.subject == "$JS.API.CONSUMER.CREATE.KV_b.*"
    assert "listing the keys of bucket 'b'" in str(error)


def test_no_permission_for_jetstream_at_all(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users('publish: { deny: "$JS.API.>" }'))
    seconds, error = timed(connect(server.url, USER="app", PASSWORD="p", REQUEST_TIMEOUT=LONG).kv)
    assert seconds < FAST
    assert error.subject == "$JS.API.INFO"


def test_no_permission_to_hear_an_answer(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users('subscribe: { deny: "_INBOX.>" }'))
    connection = connect(server.url, USER="app", PASSWORD="p", NAME="deaf", REQUEST_TIMEOUT=LONG)
    for _ in range(2):
        seconds, error = timed(connection.kv)
        assert seconds < FAST
        assert (error.action, error.subject) == ("subscribe", "_INBOX.>")
    # Nothing half-made is left behind.
    eventually(lambda: len(server.connections("deaf")) <= 1)


def test_an_inbox_prefix_of_its_own_is_all_that_is_needed(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users('subscribe: { allow: "_INBOX_app.>" }'))
    seconds, error = timed(connect(server.url, USER="app", PASSWORD="p", REQUEST_TIMEOUT=LONG).kv)
    assert seconds < FAST
    assert error.subject == "_INBOX.>"
    connection = connect(server.url, USER="app", PASSWORD="p", INBOX_PREFIX="_INBOX_app", NAME="own")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    bucket.put("key", 1)
    assert bucket.keys() == ["key"]
    assert bucket.get_many(["key"])["key"].value == 1
    assert [entry.value for entry in bucket.history("key")] == [1]
    assert all(subject.startswith("_INBOX_app.") for subject in server.subscriptions("own"))


def test_the_exact_permissions_of_an_application_suffice(connect: Connect, make_server: MakeServer) -> None:
    """F22, with what the connection itself asks for."""
    allowed = [
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.KV_b",
        "$JS.API.DIRECT.GET.KV_b.$KV.b.>",
        "$JS.API.DIRECT.GET.KV_b",
        "$JS.API.CONSUMER.CREATE.KV_b.>",
        "$JS.API.CONSUMER.MSG.NEXT.KV_b.*",
        "$JS.API.CONSUMER.DELETE.KV_b.*",
        "$KV.b.>",
    ]
    publish = ", ".join(f'"{subject}"' for subject in allowed)
    server = make_server(config=users(f'publish: {{ allow: [{publish}] }}, subscribe: {{ allow: "_INBOX.>" }}'))
    connect(server.url, USER="admin", PASSWORD="p").kv().create_bucket({"bucket": "b", "history": 2})
    bucket = connect(server.url, USER="app", PASSWORD="p").kv().open_bucket("b")
    revision = bucket.create("key", 1)
    bucket.update("key", 2, revision)
    assert bucket.get("key").value == 2
    assert len(bucket.history("key")) == 2
    assert bucket.keys() == ["key"]
    bucket.delete("key")
    assert bucket.get_many(["key"]) == {}


def test_credentials_that_are_revoked_while_connected(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users(""))
    bucket = connect(server.url, USER="app", PASSWORD="p", REQUEST_TIMEOUT=LONG).kv().create_bucket({"bucket": "b"})
    bucket.put("key", 1)
    reload(server, users("", password="another"))

    def refused() -> bool:
        try:
            bucket.get("key")
        except AuthInvalid as error:
            return "authorization violation" in error.reason.lower()
        except NotConnected:
            pass
        return False

    eventually(refused)
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(AuthInvalid):
            bucket.put("key", 2)
    assert time.monotonic() - began < FAST
    reload(server, users(""))

    def back() -> bool:
        try:
            return bucket.get("key").value == 1
        except OperationalError:
            return False

    eventually(back)


def test_the_permission_to_hear_answers_taken_away_while_connected(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users(""))
    connection = connect(server.url, USER="app", PASSWORD="p", NAME="app")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    reload(server, users('subscribe: { deny: "_INBOX.>" }'))

    def refused() -> bool:
        try:
            bucket.get("key")
        except PermissionsViolation:
            return True
        except OperationalError as error:
            return "_INBOX" in str(error)
        return False

    eventually(refused)
    eventually(lambda: len(server.connections("app")) <= 1)
    reload(server, users(""))
    eventually(lambda: connection.status == "connected")
    assert bucket.put("key", 1) == 1


def test_of_several_writes_those_that_are_not_permitted_fail_and_no_others(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server(config=users('publish: { deny: "$KV.b.No.*" }'))
    connection = connect(server.url, USER="app", PASSWORD="p")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    results: list[Any] = bucket.write_many([Change.put(key, 1) for key in ("a", "No.1", "b", "No.2", "c")])
    assert [result if isinstance(result, int) else result.subject for result in results] == [
        1, "$KV.b.No.1", 2, "$KV.b.No.2", 3,
    ]  # fmt: skip
    assert "putting 'No.2' in bucket 'b'" in str(results[3])
    assert [result.subject for result in bucket.write_many([Change.delete("No.3")])] == ["$KV.b.No.3"]
    eventually(lambda: connection._requests._in_flight == {})  # let go of a moment after the caller


def test_violations_are_not_hoarded(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=users('publish: { deny: "$KV.b.no" }'))
    connection = connect(server.url, USER="app", PASSWORD="p")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    for _ in range(20):
        with pytest.raises(PermissionsViolation):
            bucket.put("no", 1)
    assert connection._requests._dialled.violations == []
    eventually(lambda: connection._requests._in_flight == {})
