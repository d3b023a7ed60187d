"""``connections["alias"]``: one a process, whoever asks, and only when somebody does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import override_settings
from django.utils.connection import ConnectionDoesNotExist

from django_natskv import connections
from tests.fix_connections import Program
from tests.fix_servers import HOST, PATIENT, NatsServer, free_port
from tests.fix_waiting import eventually


@pytest.fixture
def alias(settings: Any, nats_server: NatsServer, bucket_name: str) -> Iterator[str]:
    """The name that the server shows for the default alias of this test."""
    settings.NATSKV = {"default": {**PATIENT, "SERVERS": nats_server.url, "NAME": bucket_name}}
    yield bucket_name
    connections.close_all()


def test_it_is_one_for_all_threads_and_loops(alias: str, nats_server: NatsServer) -> None:
    bucket = connections["default"].kv().create_bucket({"bucket": alias})
    together = threading.Barrier(32)
    seen: set[int] = set()

    async def some(number: int) -> None:
        context = await connections["default"].akv()
        mine = await context.aopen_bucket(alias)
        await asyncio.gather(*(mine.aput(f"{number}.{index}", index) for index in range(5)))

    def work(number: int) -> None:
        together.wait(30)
        seen.add(id(connections["default"]))
        if number % 2:
            asyncio.run(some(number))
        else:
            mine = connections["default"].kv().open_bucket(alias)
            for index in range(5):
                mine.put(f"{number}.{index}", index)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert len(seen) == 1
    assert len(bucket.keys()) == 160
    assert len(nats_server.connections(alias)) == 1


def test_it_is_one_however_many_threads_are_first(alias: str, nats_server: NatsServer) -> None:
    together = threading.Barrier(32)

    def work(_: int) -> int:
        together.wait(30)
        connections["default"].kv()
        return id(connections["default"])

    with ThreadPoolExecutor(32) as pool:
        assert len(set(pool.map(work, range(32)))) == 1
    assert len(nats_server.connections(alias)) == 1


def test_each_alias_has_its_own(settings: Any, nats_server: NatsServer, bucket_name: str) -> None:
    settings.NATSKV = {
        one: {**PATIENT, "SERVERS": nats_server.url, "NAME": f"{bucket_name}-{one}"} for one in ("default", "other")
    }
    assert list(connections) == ["default", "other"]
    for one in connections:
        connections[one].kv()
        assert len(nats_server.connections(f"{bucket_name}-{one}")) == 1
    assert connections["default"] is not connections["other"]


def test_an_unknown_alias_is_djangos_own_error(alias: str) -> None:
    with pytest.raises(ConnectionDoesNotExist, match='"nowhere"'):
        connections["nowhere"]


def test_mistaken_settings_are_improperly_configured(settings: Any) -> None:
    settings.NATSKV = {"default": {"SERVER": "nats://x"}}
    with pytest.raises(ImproperlyConfigured, match="SERVER"):
        connections["default"]


def test_overridden_settings_take_effect_at_once_and_the_old_connection_is_closed(
    alias: str, nats_server: NatsServer
) -> None:
    before = connections["default"]
    before.kv()
    assert len(nats_server.connections(alias)) == 1
    with override_settings(NATSKV={"default": {**PATIENT, "SERVERS": nats_server.url, "NAME": f"{alias}-new"}}):
        eventually(lambda: nats_server.connections(alias) == [])
        connections["default"].kv()
        assert connections["default"] is not before
        assert len(nats_server.connections(f"{alias}-new")) == 1
    eventually(lambda: nats_server.connections(f"{alias}-new") == [])
    connections["default"].kv()
    assert len(nats_server.connections(alias)) == 1


def test_overridden_settings_while_requests_are_under_way(alias: str, nats_server: NatsServer) -> None:
    """Whoever holds the old one goes on with it: a closed connection opens again when it is used."""
    bucket = connections["default"].kv().create_bucket({"bucket": alias})
    stop = threading.Event()
    wrong: list[str] = []

    def work(number: int) -> int:
        done = 0
        while not stop.is_set():
            try:
                done = bucket.put(f"key{number}", number)
                if bucket.get(f"key{number}").value != number:  # type: ignore[union-attr]
                    wrong.append("another value")
            except Exception as error:
                if "closed" not in str(error) and "lost" not in str(error):
                    wrong.append(repr(error))
        return done

    with ThreadPoolExecutor(8) as pool:
        workers = [pool.submit(work, number) for number in range(8)]
        for _ in range(5):
            with override_settings(NATSKV={"default": {**PATIENT, "SERVERS": nats_server.url}}):
                connections["default"].kv()
        stop.set()
        assert all(worker.result(30) for worker in workers)
    assert wrong == []
    bucket.put("key", 1)
    eventually(lambda: len(nats_server.connections(alias)) == 1)


@pytest.mark.django_db  # Django's own receivers look at database connections, if another test has left one
def test_the_signals_of_a_request_leave_it_alone(alias: str, nats_server: NatsServer) -> None:
    connections["default"].kv()
    number = nats_server.connections(alias)[0]["cid"]
    request_started.send(None, environ={})
    request_finished.send(None)
    close_old_connections()
    connections["default"].kv()
    assert [one["cid"] for one in nats_server.connections(alias)] == [number]


def test_a_closed_connection_opens_again_when_it_is_used(alias: str, nats_server: NatsServer) -> None:
    connections["default"].kv()
    connections.close_all()
    eventually(lambda: nats_server.connections(alias) == [])
    assert connections["default"].status == "closed"
    connections["default"].kv()
    assert len(nats_server.connections(alias)) == 1
    connections["default"].close()
    connections["default"].close()


def test_its_repr_and_status_tell_and_do_not_connect(settings: Any) -> None:
    settings.NATSKV = {"default": {"SERVERS": f"nats://{HOST}:{free_port()}", "USER": "u", "PASSWORD": "p4ssword"}}
    assert repr(connections["default"]) == "<Connection default: idle>"


COMMANDS = """
import io
from django.core.management import call_command
out = io.StringIO()
call_command("check", stdout=out, stderr=out)
call_command("migrate", stdout=out, stderr=out, run_syncdb=True)
call_command("diffsettings", stdout=out)
print(json.dumps(threading.active_count()))
"""


def test_nothing_connects_at_import_in_ready_and_in_the_commands_of_django(program: Callable[..., Program]) -> None:
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(0.2)
        url = f"nats://{HOST}:{listener.getsockname()[1]}"
        done = program(COMMANDS, {"default": {"SERVERS": url}})
        lines, errors = done.finish()
        assert (lines, errors) == ([1], "")
        with pytest.raises(TimeoutError):
            listener.accept()
