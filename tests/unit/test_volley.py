"""Several writes in flight as one step: each gets its own outcome, once."""

from __future__ import annotations

from typing import Any

import pytest

from django_natskv.exceptions import NotConnected, OperationTimedOut
from django_natskv.kv._nats.volley import Volley
from django_natskv.kv._nats.writes import Write

CLIENT: Any = type("Client", (), {"forget": lambda self, exchange: None})()


@pytest.fixture
def ended() -> list[bool]:
    return []


@pytest.fixture
def volley(ended: list[bool]) -> Volley:
    writes = [Write(key, b"", {}, None, "putting", "b") for key in "abc"]
    made = Volley(CLIENT, "$KV.b.", writes, [b""] * 3, "writing 3 keys")
    made._done = lambda: ended.append(True)
    made.sent = True
    return made


def test_it_is_over_when_each_has_its_answer_and_a_second_one_is_dropped(volley: Volley, ended: Any) -> None:
    for number in (2, 0, 0, 2):  # whoever listens to the keys may answer too
        volley.settle(number, number)
    assert not ended
    volley.settle(1, 1)
    assert ended == [True]
    assert volley.result() == [0, 1, 2]


def test_those_without_an_answer_are_told_one_by_one(volley: Volley) -> None:
    volley.settle(1, "answer")
    first, second, third = volley.result()
    assert second == "answer"
    assert isinstance(first, OperationTimedOut)
    assert first.may_have_been_applied
    assert ["putting 'a'" in str(first), "putting 'c'" in str(third)] == [True, True]


def test_those_without_an_answer_share_what_ended_all(volley: Volley) -> None:
    volley.settle(1, "answer")
    lost = NotConnected("lost")
    volley.finish(lost)
    assert volley.result() == [lost, "answer", lost]


def test_a_permission_to_listen_is_no_matter_of_single_writes(volley: Volley) -> None:
    assert not volley.refuse("subscription", "$KV.b.a".__eq__, lambda needed, _what: NotConnected(needed))
    assert volley.refuse("publish", "$KV.b.a".__eq__, lambda needed, _what: NotConnected(needed))
    assert str(volley.result()[0]) == "$KV.b.a"
