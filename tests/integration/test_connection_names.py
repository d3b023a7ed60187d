"""Names of servers that the system takes long to look up: whoever waits for them, it is nobody else."""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_natskv.exceptions import ConnectFailed, OperationalError
from django_natskv.kv._loop import Loop, Selector
from tests.fix_connections import Connect, Program
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

# The system's resolver, as it is while the network is down: it gives up after a quarter of an hour, here.
STUCK = """
import socket
looked_up = socket.getaddrinfo
def getaddrinfo(host, *args, **options):
    if host == "stuck.example":
        threading.Event().wait(900)
    return looked_up(host, *args, **options)
socket.getaddrinfo = getaddrinfo
"""


def test_the_end_of_a_process_does_not_wait_for_a_name(program: Callable[..., Program]) -> None:
    code = """
try:
    connections["default"].kv()
except exceptions.OperationalError as error:
    print(json.dumps(type(error).__name__))
"""
    settings = {"default": {"SERVERS": "nats://stuck.example:4222", "CONNECT_TIMEOUT": 0.2, "REQUEST_TIMEOUT": 20.0}}
    one = program(STUCK + code, settings, "-X", "dev", "-W", "error")
    assert one.finish() == (["ConnectFailed"], "")
    assert one.process.returncode == 0


def test_names_that_are_not_found_in_time_do_not_keep_others_from_being_looked_up(
    connect: Connect, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = 0
    release = threading.Event()
    look_up = socket.getaddrinfo
    # More than asyncio would look up at a time.
    stuck = min(32, (os.cpu_count() or 1) + 4) + 1

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        nonlocal lookups
        if host == "localhost":
            lookups += 1
            if lookups <= stuck:
                release.wait(30)
        return look_up(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    connection = connect(
        f"nats://localhost:{nats_server.port}", CONNECT_TIMEOUT=0.1, RECONNECT={"WAIT": 0.001, "MAX_WAIT": 0.001}
    )

    def connected() -> bool:
        try:
            return connection.kv() is not None
        except OperationalError:
            return False

    try:
        eventually(connected, 30)
    finally:
        release.set()


def test_a_name_that_cannot_be_one_is_a_failure_of_the_connection(connect: Connect) -> None:
    with pytest.raises(ConnectFailed, match=r"a\.\.b"):
        connect("nats://a..b:4222").kv()


def test_what_is_run_aside_gives_its_result_its_error_and_nothing_to_a_closed_loop() -> None:
    loop = Loop(Selector())
    with ThreadPoolExecutor(1) as pool:
        assert loop.run_until_complete(loop.run_in_executor(pool, max, 1, 2)) == 2
    with pytest.raises(ValueError, match="literal"):
        loop.run_until_complete(loop.run_in_executor(None, int, "x"))
    ran_on: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    released = [threading.Event(), threading.Event()]

    def late(number: int) -> None:
        ran_on.put(threading.current_thread())
        released[number].wait(30)

    given_up = loop.run_in_executor(None, late, 0)
    first = ran_on.get(timeout=30)
    on_a_closed_loop = loop.run_in_executor(None, late, 1)
    given_up.cancel()
    released[0].set()
    first.join()
    loop.run_until_complete(asyncio.sleep(0))
    assert given_up.cancelled()
    loop.close()
    released[1].set()
    ran_on.get(timeout=30).join()
    assert not on_a_closed_loop.done()
