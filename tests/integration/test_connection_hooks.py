"""The hooks into nats-py: that it calls them, and that everything is right without them, only slower."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from nats.aio.client import Client as NatsClient
from nats.errors import BadSubjectError, OutboundBufferLimitError
from nats.protocol.parser import Parser

from django_natskv.kv._nats.lean import LeanClient, LeanParser, Message, block_of
from django_natskv.kv._nats.sink import Sink
from django_natskv.kv.changes import Change
from tests.fix_connections import Connect
from tests.fix_servers import NatsServer
from tests.fix_waiting import aeventually, eventually

HOOKS = (
    (LeanClient, NatsClient, "_flush_pending"),
    (LeanParser, Parser, "parse"),
    (LeanClient, NatsClient, "_send_publish"),
)
NAMES = [name for _, _, name in HOOKS]


@contextlib.asynccontextmanager
async def connected(server: NatsServer) -> Any:
    client = LeanClient()
    await client.connect(server.url, allow_reconnect=False, pending_size=0, connect_timeout=20)
    try:
        yield client
    finally:
        await client.close()


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[str]:
    calls: list[str] = []
    hook = getattr(owner, name)

    async def counted(self: Any, *given: Any, **options: Any) -> Any:
        calls.append(name)
        return await hook(self, *given, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.mark.parametrize(("ours", "base", "name"), HOOKS, ids=NAMES)
def test_nats_py_has_what_is_hooked_with_these_arguments(ours: type, base: type, name: str) -> None:
    own, theirs = getattr(ours, name), getattr(base, name, None)
    assert theirs is not None, f"nats-py has no {name} any more: requests are slower, see docs/adr/0011"
    assert inspect.iscoroutinefunction(theirs), f"nats-py's {name} is no coroutine any more"
    names = list(inspect.signature(theirs).parameters)
    assert names == list(inspect.signature(own).parameters), f"nats-py's {name} takes other arguments: {names}"


@pytest.mark.parametrize(
    ("ours", "least", "name"),
    [(LeanClient, 10, NAMES[0]), (LeanParser, 1, NAMES[1]), (LeanClient, 10, NAMES[2])],
    ids=NAMES,
)
async def test_nats_py_calls_what_is_hooked(
    nats_server: NatsServer, bucket_name: str, monkeypatch: pytest.MonkeyPatch, ours: type, least: int, name: str
) -> None:
    calls = count_calls(monkeypatch, ours, name)
    got: list[Any] = []
    async with connected(nats_server) as client:
        await client.subscribe(bucket_name, future=Sink(got.append))
        await client.flush()
        calls.clear()
        client.corked = True
        for _ in range(10):
            await client.publish(bucket_name, b"x")
        client.uncork()
        await aeventually(lambda: len(got) == 10)
    assert len(calls) >= least, f"nats-py no longer calls {name}: requests are slower, see docs/adr/0011"


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {"A": "1"},
        {"Natskv-Format": "pickle", "Nats-Msg-Id": "a.1", "Empty": ""},
        {"A": "1\r\nB: 2"},
        {"A": "1\r\nB: 2", "C": "\r"},
    ],
)
async def test_what_is_published_is_what_nats_py_writes(headers: dict[str, str] | None) -> None:
    written = []
    for made in (NatsClient(), LeanClient()):
        await made._send_publish("subject", "reply", b"payload", 7, headers)
        written.append((made._pending, made._pending_data_size, made.stats["out_msgs"], made.stats["out_bytes"]))
    assert written[0] == written[1]


@pytest.mark.parametrize("headers", [None, {"A": "1"}, {"Natskv-Format": "pickle", "Nats-Msg-Id": "a.1", "Empty": ""}])
async def test_what_is_published_at_once_is_what_nats_py_writes(headers: dict[str, str] | None) -> None:
    theirs, ours = NatsClient(), LeanClient()
    await theirs._send_publish("subject", "reply", b"payload", 7, headers)
    ours._status = LeanClient.CONNECTED
    ours.publish_now("subject", "reply", b"payload", block_of(headers) or b"")
    assert (ours._pending, ours._pending_data_size) == (theirs._pending, theirs._pending_data_size)


@pytest.mark.parametrize("subject", ["", " ", "a b", "a\r\nPUB b 0\r\n", "a\n", "\ta"])
async def test_what_is_no_subject_is_not_published_at_once(subject: str) -> None:
    client = LeanClient()
    client._status = LeanClient.CONNECTED
    with pytest.raises(BadSubjectError):
        client.publish_now(subject, "reply", b"payload", b"")
    assert client._pending == []


async def test_nothing_is_published_at_once_without_a_connection() -> None:
    client = LeanClient()
    with pytest.raises(OutboundBufferLimitError):
        client.publish_now("subject", "reply", b"payload", b"")
    assert client._pending == []


async def test_what_is_corked_waits_where_it_can_be_found_and_goes_out_in_one_write(
    nats_server: NatsServer, bucket_name: str
) -> None:
    """``_pending``, ``_pending_data_size`` and ``_transport.writelines`` are what ``uncork`` leans on."""
    got: list[Any] = []
    async with connected(nats_server) as client:
        await client.subscribe(bucket_name, future=Sink(got.append))
        await client.flush()
        written: list[list[bytes]] = []
        transport: Any = client._transport
        writelines = transport.writelines

        def spied(data: list[bytes]) -> None:
            written.append(list(data))
            writelines(data)

        transport.writelines = spied
        client.corked = True
        for _ in range(10):
            await client.publish(bucket_name, b"x")
        size = client._pending_data_size
        assert size == sum(map(len, client._pending)) > 0, "nats-py keeps what is yet to be sent somewhere else"
        assert client.pending_data_size == size
        client.uncork()
        assert (client._pending, client._pending_data_size, client.corked) == ([], 0, False)
        await aeventually(lambda: len(got) == 10)
        assert len(written) == 1
        client.uncork()  # nothing to write
        assert len(written) == 1


async def test_uncorking_a_line_that_broke_does_not_raise(nats_server: NatsServer, bucket_name: str) -> None:
    async with connected(nats_server) as client:
        client.corked = True
        await client.publish(bucket_name, b"x")

        def broken(_: Any) -> None:
            raise BrokenPipeError

        client._transport.writelines = broken
        client.uncork()
        assert client._pending == []


async def test_a_subscription_and_its_sink_can_be_found(nats_server: NatsServer, bucket_name: str) -> None:
    got: list[Any] = []
    async with connected(nats_server) as client:
        sink: Any = Sink(got.append)
        subscription = await client.subscribe(bucket_name, future=sink)
        found = client._subs.get(subscription._id)
        assert found is subscription, "nats-py no longer keeps subscriptions in _subs"
        assert found._future is sink, "nats-py no longer keeps what future= was given in _future"
        queued = await client.subscribe(f"{bucket_name}.queued")
        assert queued._future is None
        await client.publish(bucket_name, b"data", headers={"Name": "value"})
        await client.publish(f"{bucket_name}.queued", b"queued")
        assert (await queued.next_msg(30)).data == b"queued"  # what has no sink is left to nats-py
        await aeventually(lambda: got)
        assert isinstance(got[0], Message)
        assert (got[0].subject, got[0].data, got[0].headers) == (bucket_name, b"data", {"Name": "value"})


async def test_what_sinks_take_is_taken_where_it_is_read(
    nats_server: NatsServer, bucket_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``_transport._io_reader`` and the StreamReader's ``feed_data``, ``_waiter`` and ``_buffer`` are leaned on."""
    got: list[Any] = []
    async with connected(nats_server) as client:
        await client.subscribe(bucket_name, future=Sink(got.append))
        queued = await client.subscribe(f"{bucket_name}.queued")
        await client.flush()
        client.read_directly()
        parsed: list[bytes] = []
        parse = LeanParser.parse

        async def spied(self: Any, data: bytes = b"") -> Any:
            if bytes(data) != b"PING\r\n":  # which the server sends when it likes
                parsed.append(bytes(data))
            return await parse(self, data)

        monkeypatch.setattr(LeanParser, "parse", spied)
        await client.publish(bucket_name, b"x" * 300_000)
        await aeventually(lambda: got)
        assert not parsed, "messages still wake nats-py's read loop: watches are slower, see docs/adr/0012"
        await client.publish(f"{bucket_name}.queued", b"queued")
        await client.publish(bucket_name, b"after")
        assert (await queued.next_msg(30)).data == b"queued"
        await aeventually(lambda: len(got) == 2)
        assert parsed  # what is not for a sink goes nats-py's way


DIRECT = (LeanClient, SimpleNamespace(read_directly=lambda _: None), "read_directly")


@pytest.fixture(
    params=[(*HOOKS, DIRECT), HOOKS[:1], HOOKS[1:2], HOOKS[2:], (DIRECT,)],
    ids=["none", "no flushing", "no delivering", "no publishing", "no reading directly"],
)
def unhooked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py's own methods in the place of the hooks."""
    for own, theirs, name in request.param:
        monkeypatch.setattr(own, name, getattr(theirs, name))


@pytest.mark.usefixtures("unhooked")
def test_everything_is_right_without_the_hooks(connect: Connect, nats_server: NatsServer, bucket_name: str) -> None:
    bucket = connect(nats_server.url).kv().create_bucket({"bucket": bucket_name, "history": 4})
    keys = [f"key-{number}" for number in range(50)]

    def work(own: list[str]) -> None:
        for key in own:
            bucket.put(key, [key])
            assert bucket.get(key).value == [key]

    crew = [threading.Thread(target=work, args=(keys[start::5],)) for start in range(5)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(50)
    assert sorted(bucket.keys()) == sorted(keys)
    assert {key: entry.value for key, entry in bucket.get_many(keys).items()} == {key: [key] for key in keys}
    bucket.delete("key-0")
    assert [entry.value for entry in bucket.history("key-0")] == [["key-0"], None]
    assert bucket.get("missing") is None
    revisions = bucket.write_many([Change.put(key, [key]) for key in keys])
    assert revisions == [bucket.get(key).revision for key in keys]

    async def awaiting() -> None:
        await asyncio.gather(*(bucket.aput(key, 2) for key in keys))
        assert [entry.value for entry in await asyncio.gather(*map(bucket.aget, keys))] == [2] * len(keys)

    asyncio.run(awaiting())
    seen: dict[str, Any] = {}
    bucket.watch(handler=lambda entry: seen.update({entry.key: entry.value}))  # ended with the connection
    eventually(lambda: seen == dict.fromkeys(keys, 2))
    bucket.put("key-1", 3)
    eventually(lambda: seen["key-1"] == 3)


def test_a_key_that_is_no_text_does_not_end_the_connection(
    connect: Connect, nats_server: NatsServer, bucket_name: str
) -> None:
    """Anybody with a raw socket may write one."""
    bucket = connect(nats_server.url).kv().create_bucket({"bucket": bucket_name})
    bucket.put("key", 1)
    address = urlsplit(nats_server.url)
    with socket.create_connection((address.hostname, address.port)) as line:
        line.sendall(b'CONNECT {"verbose":false}\r\nPUB $KV.' + bucket_name.encode() + b".\xff 1\r\n1\r\nPING\r\n")
        with line.makefile("rb") as reader:
            assert any(said == b"PONG\r\n" for said in reader)
    eventually(lambda: len(bucket.keys()) == 2)
    assert sorted(bucket.keys()) == ["key", "\ufffd"]
    seen: list[str] = []
    bucket.watch(handler=lambda entry: seen.append(entry.key))
    eventually(lambda: sorted(seen) == ["key", "\ufffd"])
    assert bucket.get("key").value == 1
    assert bucket._core.wire.client.generation == 1
