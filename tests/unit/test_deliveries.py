"""Deliveries whose numbers are parsed together: they are what each of them is alone."""

from __future__ import annotations

from typing import Any

import pytest

from django_natskv.kv._nats import messages
from django_natskv.kv._nats.lean import Message
from django_natskv.kv._nats.messages import Stored, from_deliveries, from_delivery, parse_delivered

PLAIN = "$JS.ACK.KV_b.natskv-1.1."
IN_DOMAIN = "$JS.ACK.hub.AbC123.KV_b.natskv-1.1."
COUNT = 20


def deliveries(prefix: str = PLAIN, end: str = "") -> list[Any]:
    """Return what a consumer delivers, with numbers of different lengths."""
    return [
        Message(
            f"$KV.b.key-{number}",
            f"{prefix}{number * 97}.{number}.{1_700_000_000_000_000_000 + number}.{COUNT - number}{end}",
            b"%d" % number,
            b"NATS/1.0\r\nName: value\r\n\r\n" if number % 3 else b"",
        )
        for number in range(1, COUNT + 1)
    ]


@pytest.fixture
def alone(monkeypatch):
    """Count the deliveries that were parsed one by one."""
    parsed: list[Any] = []

    def count(message: Any) -> Stored:
        parsed.append(message)
        return from_delivery(message)

    monkeypatch.setattr(messages, "from_delivery", count)
    return parsed


@pytest.mark.parametrize("prefix", [PLAIN, IN_DOMAIN])
def test_together_they_are_what_each_is_alone(prefix, alone):
    given = deliveries(prefix)
    found = from_deliveries(given)
    assert found == [from_delivery(message) for message in given]
    assert found[6] == Stored(
        "$KV.b.key-7", 679, 1_700_000_000_000_000_007, {"Name": "value"}, b"7", pending=COUNT - 7, delivery=7
    )
    assert not alone


@pytest.mark.parametrize(
    "given",
    [
        deliveries(IN_DOMAIN, ".AbCdEf"),  # F7: a word of the server's own behind the numbers
        deliveries()[:3],
        [*deliveries(), *deliveries(IN_DOMAIN)],
        [*deliveries()[:10], deliveries()[10]._replace(reply=f"{PLAIN}007.1.1.1"), *deliveries()[11:]],
    ],
    ids=["another form", "few", "two consumers", "no JSON"],
)
def test_what_cannot_be_parsed_together_is_parsed_one_by_one(given, alone):
    assert from_deliveries(given) == [from_delivery(message) for message in given]
    assert len(alone) == len(given)


def test_none_are_none():
    assert from_deliveries([]) == []


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (b"NATS/1.0\r\nNats-Msg-Id: abc\r\n\r\n", None),
        (b"NATS/1.0\r\nNats-Msg-Id: abc\r\nA: b\r\n\r\n", {"Nats-Msg-Id": "abc", "A": "b"}),
        (b"NATS/1.0\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NATS/1.0 408 Gone\r\n\r\n", {"Status": "408", "Description": "Gone"}),
    ],
)
def test_only_the_id_of_a_write_is_passed_over(block, headers):

    assert parse_delivered(block) == headers
