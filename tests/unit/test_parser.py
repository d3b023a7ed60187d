"""The parser that hands messages over: it takes what nats-py's own takes, however the bytes are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from nats.errors import ProtocolError

from django_natskv.kv._nats.lean import MOST, LeanParser, Message
from django_natskv.kv._nats.sink import Sink

HEADERS = b"NATS/1.0\r\nName: value\r\n\r\n"
ONLY_ID = b"NATS/1.0\r\nNats-Msg-Id: abc.1\r\n\r\n"


class Client:
    """What a parser tells its client, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.runs: list[int] = []
        self._subs = {
            1: SimpleNamespace(_future=Sink(self.told.append, self.together)),
            2: SimpleNamespace(_future=Sink(self.told.append)),
            3: SimpleNamespace(_future=None),
        }

    def together(self, messages: Sequence[Any]) -> None:
        self.runs.append(len(messages))
        self.told.extend(messages)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.told.append(("left to nats-py", sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.told.append("ping")

    async def _process_pong(self) -> None:
        self.told.append("pong")

    async def _process_err(self, message: str) -> None:
        self.told.append(message)


def message(sid: int, data: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    sizes = b"%d %d" % (len(headers), len(headers + data)) if headers else b"%d" % len(data)
    kind = b"HMSG" if headers else b"MSG"
    return b"%s a.b %d %s%s\r\n%s%s\r\n" % (kind, sid, reply + b" " if reply else b"", sizes, headers, data)


WIRE = b"".join(
    [
        message(1, b"one"),
        message(1, b"", b"$JS.ACK.x"),
        b"PING\r\n",
        message(1, b"MSG a 1 3\r\n", headers=ONLY_ID),
        message(2, b"two", b"reply", HEADERS),
        message(3, b"queued", b"reply", HEADERS),
        message(3, b"queued"),
        message(9, b"nobody's"),
        b"+OK\r\n",
        b"PONG\r\n",
        message(1, b"x" * 5000),
        b"-ERR 'Some Trouble'\r\n",
        message(1, b"last"),
    ]
)
TOLD = [
    Message("a.b", "", b"one", b""),
    Message("a.b", "$JS.ACK.x", b"", b""),
    "ping",
    Message("a.b", "", b"MSG a 1 3\r\n", ONLY_ID),
    Message("a.b", "reply", b"two", HEADERS),
    ("left to nats-py", 3, b"a.b", b"reply", b"queued", HEADERS),
    ("left to nats-py", 3, b"a.b", b"", b"queued", None),
    ("left to nats-py", 9, b"a.b", b"", b"nobody's", None),
    "pong",
    Message("a.b", "", b"x" * 5000, b""),
    "'some trouble'",
    Message("a.b", "", b"last", b""),
]


def parse(*chunks: bytes) -> Client:
    client = Client()
    parser = LeanParser(client)

    async def feed() -> None:
        for chunk in chunks:
            await parser.parse(chunk)

    asyncio.run(feed())
    assert not parser.buf
    return client


def test_messages_that_come_together_are_handed_over_together():
    client = parse(WIRE)
    assert client.told == TOLD
    assert client.runs == [2, 1, 1, 1]


def test_headers_are_parsed_when_they_are_asked_for():
    one, _, _, only_id, two, *_ = parse(WIRE).told
    assert (one.headers, only_id.headers, two.headers) == (None, None, {"Name": "value"})


def test_lines_that_are_the_same_but_for_the_subscription_are_told_apart():
    both = message(1, b"one") + message(1, b"two") + message(2, b"six") + message(1, b"ten")
    client = parse(both)
    assert [told.data for told in client.told] == [b"one", b"two", b"six", b"ten"]
    assert client.runs == [2, 1]


def test_many_are_handed_over_in_parts():
    client = parse(b"".join(message(1, b"%d" % number) for number in range(2 * MOST + 1)))
    assert client.runs == [MOST, MOST, 1]
    assert [told.data for told in client.told] == [b"%d" % number for number in range(2 * MOST + 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 64, 1000, 4096])
def test_however_the_bytes_are_cut(size):
    assert parse(*(WIRE[start : start + size] for start in range(0, len(WIRE), size))).told == TOLD


@pytest.mark.parametrize("cut", range(1, 400))
def test_wherever_they_are_cut_once(cut):
    assert parse(WIRE[:cut], WIRE[cut:]).told == TOLD


def test_a_sink_that_fails_keeps_nothing_else_from_coming(caplog):
    client = Client()

    def fail(_: Any) -> None:
        raise ValueError

    client._subs[1] = SimpleNamespace(_future=Sink(fail, fail))
    asyncio.run(LeanParser(client).parse(message(1, b"one") + message(2, b"two")))
    assert [told.data for told in client.told] == [b"two"]
    assert "could not be handled" in caplog.text


def test_what_is_spaced_in_another_way_is_left_to_nats_py():
    client = parse(b"MSG  a.b 1  3\r\nabc\r\n" + message(2, b"next"))
    assert client.told[0][2:5] == (b"a.b", b"", b"abc")
    assert client.told[1].data == b"next"


def test_what_is_no_protocol_is_told_as_nats_py_tells_it():
    with pytest.raises(ProtocolError):
        parse(b"NONSENSE\r\n")
