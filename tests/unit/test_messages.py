"""Answers to direct reads: what the server says of a value, wherever it stands, and what was stored with it."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from django_natskv.kv._nats.lean import Message, block_of
from django_natskv.kv._nats.messages import all_direct, from_direct, parse_headers, status_of, stream_of

TOLD = (
    "Nats-Stream: KV_b\r\nNats-Subject: $KV.b.k\r\nNats-Sequence: 7\r\n"
    "Nats-Time-Stamp: 2026-11-23T10:55:30.854394551Z\r\n"
)
WRITTEN = datetime(2026, 11, 23, 10, 55, 30, 854394, UTC)


def answer(own: str = "", told: str = TOLD, data: bytes = b"data") -> Message:
    return Message("inbox.1", "", data, f"NATS/1.0\r\n{own}{told}\r\n".encode())


@pytest.mark.parametrize(
    ("own", "headers"),
    [
        ("", {}),
        ("A: 1\r\n", {"A": "1"}),
        ("A: 1\r\nNats-Msg-Id: x.1\r\n", {"A": "1"}),
        ("Nats-Msg-Id: x.1\r\n", {}),
        ("Nats-Msg-Id: x.1\r\nA: 1\r\n", {"Nats-Msg-Id": "x.1", "A": "1"}),
        ("Nats-Stream: KV_other\r\nNats-Subject: $KV.o.k\r\nNats-Sequence: 1\r\n", None),
        (f"A: {'1' * 600}\r\nNats-Msg-Id: x.1\r\n", {"A": "1" * 600}),
    ],
)
@pytest.mark.parametrize("more", ["", "Nats-Num-Pending: 9\r\nNats-Last-Sequence: 3\r\n"])
def test_what_the_server_says_of_a_value_and_what_was_stored_with_it(own, headers, more):
    reply = answer(own, TOLD + more)
    stored = from_direct(reply)
    assert (stored.subject, stored.revision, stored.created, stored.data) == ("$KV.b.k", 7, WRITTEN, b"data")
    assert headers is None or stored.headers == headers
    assert stream_of(reply) == "KV_b"
    assert status_of(reply) is None


def test_what_the_server_says_in_another_order_is_read_too():
    lines = TOLD.split("\r\n")[:-1]
    reply = answer("A: 1\r\n", "\r\n".join(reversed(lines)) + "\r\n")
    stored = from_direct(reply)
    assert (stored.subject, stored.revision, stored.created) == ("$KV.b.k", 7, WRITTEN)
    assert stored.headers["A"] == "1"
    assert stream_of(reply) == "KV_b"


def test_a_message_of_nats_py_is_read_too():
    headers = parse_headers(answer("A: 1\r\n").block)
    reply = SimpleNamespace(subject="inbox.1", reply="", data=b"data", headers=headers)
    stored = from_direct(reply)
    assert (stored.subject, stored.revision, stored.created, stored.data) == ("$KV.b.k", 7, WRITTEN, b"data")
    assert stored.headers["A"] == "1"
    assert stream_of(reply) == "KV_b"


def test_values_with_the_same_headers_share_them_and_others_do_not():
    same, more, other, last = all_direct(
        [answer(f"A: {value}\r\nNats-Msg-Id: x.{number}\r\n") for number, value in enumerate("1121")]
    )
    assert same.headers is more.headers
    assert [each.headers for each in (same, other, last)] == [{"A": "1"}, {"A": "2"}, {"A": "1"}]


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"NATS/1.0 204 EOB\r\n\r\n", "204"),
        (b"NATS/1.0 503\r\n\r\n", "503"),
        (b"", None),
        (b"NATS/1.0\r\nA: 1\r\n\r\n", None),
        (b"NATS/1.0\r\nStatus: 204\r\n\r\n", None),
        (b"NATS/1.0 204 EOB\r\nNats-Sequence: 1\r\n\r\n", None),  # stored with that line by another program
    ],
)
def test_a_status_is_told_from_a_value(block, status):
    assert status_of(Message("inbox.1", "", b"", block)) == status


def test_headers_go_out_as_one_block_unless_one_holds_a_break():
    assert block_of(None) == block_of({}) == b""
    assert block_of({"A": "1", "B": ""}) == b"NATS/1.0\r\nA: 1\r\nB: \r\n\r\n"
    assert block_of({"A": "1\r\nB: 2"}) is None
    assert block_of({"A": "1\n"}) is None
