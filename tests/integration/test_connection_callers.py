"""Callers: on event loops and off them, cancelled, interrupted or gone; none leaves anything behind or does harm."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_natskv.exceptions import NotConnected, UsageError
from django_natskv.kv._nats.exchange import Exchange
from tests.fix_connections import Connect, Program
from tests.fix_proxy import Proxy
from tests.fix_servers import NatsServer
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def proxy(nats_server: NatsServer, make_proxy: Callable[[str], Proxy]) -> Proxy:
    return make_proxy(nats_server.url)


@pytest.fixture
def bucket(connect: Connect, proxy: Proxy, bucket_name: str, lines_last: None) -> Any:
    made = connect(proxy.url, REQUEST_TIMEOUT=40.0).kv().create_bucket({"bucket": bucket_name})
    made.put("key", 1)
    return made


def in_flight(bucket: Any) -> dict[str, Any]:
    return bucket._core.wire.client._in_flight


def nothing_left(bucket: Any) -> None:
    eventually(lambda: not in_flight(bucket))
    assert bucket._core.wire.client._waiting == []
    assert bucket.get("key").value == 1
    assert bucket._core.wire.client.generation == 1


async def test_a_blocking_call_on_the_thread_of_an_event_loop_works(bucket: Any) -> None:
    """Django's cache API is called like this in an async view."""
    assert bucket.get("key").value == 1
    assert (await bucket.aget("key")).value == 1
    assert bucket.put("other", 2) > 0


def test_a_blocking_call_on_the_connections_own_loop_raises_at_once(bucket: Any) -> None:
    caught: list[Exception] = []

    def call() -> None:
        try:
            bucket.get("key")
        except UsageError as error:
            caught.append(error)

    bucket._core.wire.client.driver.post(call)
    eventually(lambda: caught)
    assert "a-twin" in str(caught[0])
    nothing_left(bucket)


async def test_a_cancelled_await_leaves_nothing_in_flight(bucket: Any, proxy: Proxy) -> None:
    proxy.pause("replies")
    tasks = [asyncio.create_task(bucket.aget("key")) for _ in range(10)]
    await aeventually(lambda: len(in_flight(bucket)) == 10)
    for task in tasks:
        task.cancel()
    assert all(isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True))
    await aeventually(lambda: not in_flight(bucket))
    proxy.heal()
    assert (await bucket.aget("key")).value == 1
    nothing_left(bucket)


async def test_a_timeout_around_an_await_is_the_callers(bucket: Any, proxy: Proxy) -> None:
    proxy.pause("replies")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await bucket.aget("key")
    proxy.heal()
    nothing_left(bucket)


def test_an_event_loop_that_closes_while_its_request_is_in_flight_does_no_harm(bucket: Any, proxy: Proxy) -> None:
    proxy.pause("replies")
    loop = asyncio.new_event_loop()
    task = loop.create_task(bucket.aget("key"))
    while not in_flight(bucket):
        loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    proxy.heal()  # the answer comes to a loop that is closed
    eventually(lambda: not in_flight(bucket))
    nothing_left(bucket)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # what a program that does this is told by asyncio
    del task


def test_many_loops_at_once(bucket: Any) -> None:
    async def some() -> list[Any]:
        return await asyncio.gather(*(bucket.aget("key") for _ in range(20)))

    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.extend(asyncio.run(some()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert [entry.value for entry in results] == [1] * 160
    nothing_left(bucket)


def test_blocking_and_awaiting_callers_do_not_wait_for_each_other(bucket: Any, proxy: Proxy) -> None:
    """One request whose answer is held back holds up no other, whoever drives the loop."""
    stop = threading.Event()
    counts = {"blocking": 0, "awaiting": 0}

    def blocking() -> None:
        while not stop.is_set():
            bucket.get("key")
            counts["blocking"] += 1

    async def awaiting() -> None:
        while not stop.is_set():
            await bucket.aget("key")
            counts["awaiting"] += 1

    threads = [threading.Thread(target=blocking), threading.Thread(target=lambda: asyncio.run(awaiting()))]
    for thread in threads:
        thread.start()
    eventually(lambda: min(counts.values()) > 100, 20)
    stop.set()
    for thread in threads:
        thread.join(20)
    nothing_left(bucket)


INTERRUPTED = """
import signal
from django_natskv.kv._nats import dial
from tests.fix_waiting import eventually
dial.PING_INTERVAL = 600  # the line outlasts the pause
b = connections["default"].kv().create_bucket({"bucket": settings.NATSKV["default"]["NAME"]})
b.put("key", 1)
HANDLER
client = connections["default"]._requests
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
def interrupt():
    while not client._in_flight: time.sleep(0.001)
    os.kill(os.getpid(), SIGNAL)
threading.Thread(target=interrupt).start()
try:
    b.get("key")
except ERROR:
    print(json.dumps("interrupted"), flush=True)
sys.stdin.readline()
print(json.dumps([b.get("key").value, b.put("other", 2) > 0]), flush=True)
eventually(lambda: not client._in_flight)
"""


def interrupted(handler: str, number: str, error: str) -> str:
    return INTERRUPTED.replace("HANDLER", handler).replace("SIGNAL", number).replace("ERROR", error)


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "a signal's handler"])
def test_an_interrupted_call_ends_at_once_and_the_connection_stays_usable(
    program: Callable[..., Program], proxy: Proxy, nats_server: NatsServer, bucket_name: str, how: str
) -> None:
    """A worker's time limit or Ctrl-C: in the main thread, wherever that is in its wait."""
    if how == "KeyboardInterrupt":
        code = interrupted("", "signal.SIGINT", "KeyboardInterrupt")
    else:
        handler = "def handler(*_): raise InterruptedError\nsignal.signal(signal.SIGUSR1, handler)"
        code = interrupted(handler, "signal.SIGUSR1", "InterruptedError")
    one = program(code, {"default": {"SERVERS": proxy.url, "NAME": bucket_name, "REQUEST_TIMEOUT": 40.0}})
    assert one.read() == "ready"
    proxy.pause("replies")
    began = time.monotonic()
    one.tell()
    assert one.read() == "interrupted"
    assert time.monotonic() - began < 20  # the timeout is 40
    proxy.heal()
    one.tell()
    lines, errors = one.finish()
    assert lines == [[1, True]]
    assert errors == ""
    eventually(lambda: nats_server.connections(bucket_name) == [])


@pytest.mark.parametrize("when", ["as it closes", "when it has closed", "in the last turn of its loop"])
def test_a_request_that_comes_while_the_connection_is_closed_is_told_so_and_the_next_one_connects(
    connect: Connect, nats_server: NatsServer, when: str
) -> None:
    """Its thread had found the loop that ends before anybody ended it, and was held up."""
    connection = connect(nats_server.url)
    connection.kv()
    client = connection._requests
    late = Exchange(client, "nobody.hears.it", what="a test", patient=True)
    shut, close, finish = client._shut, client._dialled.close, client.driver._finish

    async def closing() -> None:
        client._admit(late)
        await close()

    async def shutting() -> None:
        await shut()
        client._admit(late)

    async def finishing(closing: Any) -> None:
        await finish(closing)
        if closing is not None:
            asyncio.get_running_loop().call_soon(client._admit, late)

    if when == "as it closes":
        client._dialled.close = closing
    elif when == "in the last turn of its loop":
        client.driver._finish = finishing
    else:
        client._shut = shutting
    connection.close()
    client._shut, client.driver._finish = shut, finish
    assert late.over
    with pytest.raises(NotConnected, match="closed"):
        late.result()
    assert connection.kv() is not None
