"""What the connection leans on inside nats-py: an upgrade that changes it is noticed here, and not in production."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from django_natskv.kv._nats.sink import Sink, run_through
from tests.fix_connections import Connect
from tests.fix_servers import MakeServer, NatsServer
from tests.fix_waiting import aeventually, eventually


@contextlib.asynccontextmanager
async def connected(server: NatsServer, **options: Any) -> AsyncIterator[Client]:
    client = await nats.connect(server.url, allow_reconnect=False, pending_size=0, connect_timeout=20, **options)
    try:
        yield client
    finally:
        await client.close()


async def test_a_sink_is_called_inline_with_every_message_and_without_a_task(
    nats_server: NatsServer, bucket_name: str
) -> None:
    got: list[bytes] = []
    tasks: list[Any] = []

    def receive(message: Any) -> None:
        got.append(message.data)
        tasks.append(asyncio.current_task())

    async with connected(nats_server) as client:
        subscription = await client.subscribe(bucket_name, future=Sink(receive))  # type: ignore[arg-type]
        before = asyncio.all_tasks()
        for number in range(100):
            await client.publish(bucket_name, str(number).encode())
        await aeventually(lambda: len(got) == 100)
        assert got == [str(number).encode() for number in range(100)]
        assert set(tasks) == {client._reading_task}
        assert asyncio.all_tasks() <= before
        assert subscription.pending_msgs == 0


async def test_a_sink_that_raises_does_not_end_the_read_loop(
    nats_server: NatsServer, bucket_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    def receive(_: Any) -> None:
        raise ZeroDivisionError

    async with connected(nats_server) as client:
        await client.subscribe(bucket_name, future=Sink(receive))  # type: ignore[arg-type]
        await client.publish(bucket_name, b"")
        await aeventually(lambda: "could not be handled" in caplog.text)
        assert client._reading_task is not None
        assert not client._reading_task.done()


async def test_an_exception_in_the_read_loop_ends_it_while_it_claims_to_be_connected(
    nats_server: NatsServer, bucket_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F8. When this fails, the watch over the read loop's end may go."""

    class Raising:
        def cancelled(self) -> bool:
            return False

        def set_result(self, _: Any) -> None:
            raise ZeroDivisionError

    async with connected(nats_server) as client:
        await client.subscribe(bucket_name, future=Raising())  # type: ignore[arg-type]
        await client.publish(bucket_name, b"")
        reading = client._reading_task
        assert reading is not None
        await aeventually(reading.done)
        assert client.is_connected


async def test_publishing_and_subscribing_do_not_wait(nats_server: NatsServer, bucket_name: str) -> None:
    """``run_through`` raises where they would."""
    async with connected(nats_server) as client:
        sink: Any = Sink(lambda _: None)
        for number in range(500):
            run_through(client.publish(bucket_name, b"x" * 10_000, f"{bucket_name}.reply", {"Name": "value"}))
            if number % 5 == 0:
                subscription = run_through(client.subscribe(f"{bucket_name}.{number}", future=sink))
                run_through(subscription.unsubscribe())
        await client.flush()


async def test_publishing_without_a_connection_raises_at_once_and_sends_nothing_later(
    nats_server: NatsServer,
) -> None:
    """F10."""
    client = await nats.connect(nats_server.url, allow_reconnect=False, pending_size=0)
    await client.close()
    with pytest.raises(nats.errors.Error):
        run_through(client.publish("subject", b""))
    client._status = Client.DISCONNECTED
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        run_through(client.publish("subject", b""))


async def test_a_ping_goes_out_past_what_is_yet_to_be_sent(nats_server: NatsServer, bucket_name: str) -> None:
    """Why one flush does not confirm a subscription, and two do."""
    async with connected(nats_server) as client:
        await client.flush()
        sent: list[bytes] = []
        transport: Any = client._transport
        write, writelines = transport.write, transport.writelines

        def spied_write(data: bytes) -> None:
            sent.append(data)
            write(data)

        def spied_writelines(data: list[bytes]) -> None:
            sent.extend(data)
            writelines(data)

        transport.write, transport.writelines = spied_write, spied_writelines
        await client.subscribe(bucket_name)
        await client.flush()
        await client.flush()
        # What answers a ping of the server, which it sends when it likes, is none of it.
        assert [data[:4] for data in sent if data[:4] != b"PONG"] == [b"PING", b"SUB ", b"PING"]


async def test_the_socket_and_its_encryption_can_be_found(nats_server: NatsServer) -> None:
    async with connected(nats_server) as client:
        writer = client._transport._io_writer  # type: ignore[union-attr]
        assert writer.get_extra_info("socket").fileno() >= 0
        assert writer.get_extra_info("ssl_object") is None
        assert client._server_info["max_payload"] == client.max_payload


async def test_every_credential_passes_the_connect_command() -> None:
    """F24: the place where a plain line is refused."""
    source = inspect.getsource(Client._process_connect_init)
    assert source.index("connect_tls") < source.index("self._connect_command()") < source.index("PING_PROTO")
    assert not inspect.iscoroutinefunction(Client._connect_command)
    for name in ("_signature_cb(", "_user_jwt_cb("):
        assert [method for method, code in sources() if name in code] == ["_connect_command"]


def sources() -> list[tuple[str, str]]:
    return [(name, inspect.getsource(method)) for name, method in inspect.getmembers(Client, inspect.isfunction)]


async def test_a_lost_client_stays_lost(nats_server: NatsServer) -> None:
    """It is replaced, and must never come back by itself beside its successor."""
    closed = asyncio.Event()

    async def closed_cb() -> None:
        closed.set()

    async with connected(nats_server, closed_cb=closed_cb) as client:
        assert client._transport is not None
        client._transport._io_writer.transport.abort()  # type: ignore[attr-defined]
        await asyncio.wait_for(closed.wait(), 30)
        assert client.is_closed
        assert client._reconnection_task is None


def test_nothing_is_drawn_from_the_programs_own_source_of_chance(
    connect: Connect, make_server: MakeServer, bucket_name: str
) -> None:
    """A seeded program, a test under hypothesis: who draws beside them changes what they get."""
    server = make_server()
    random.seed(7)
    before = random.getstate()
    connection = connect(["nats://127.0.0.1:1", server.url], RECONNECT={"WAIT": 0.05})
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    watch = bucket.watch(lambda _entry: None)
    watch.initialized.result(30)
    server.kill()
    eventually(lambda: connection.status != "connected")
    server.start()
    eventually(lambda: connection.status == "connected")
    watch.stop()
    assert random.getstate() == before
