"""What is lost on the way, whatever loses it, is noticed, and the watch begins again from the bucket itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.kv import _session, _survey
from django_natskv.kv._nats import flow
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv.watch import _Teller
from tests.chaos.writers import Overwriter
from tests.fix_facade import ConnectKV
from tests.fix_waiting import eventually
from tests.integration.watching import Stopwatch, Told, complaints, held, purge, ready


@pytest.fixture
def bucket(connect_kv: ConnectKV, bucket_name: str) -> kv.Bucket:
    return connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory"})


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], bool]], None]:
    """Have messages lost on their way to the flow that exists now: those of which ``which`` is true."""
    whole = flow._Pull.receive

    def lose(which: Callable[[Any], bool]) -> None:
        victims: list[Any] = []

        def receive(self: Any, message: Any) -> None:
            if not victims:
                victims.append(self.flow)
            if self.flow is not victims[0] or not which(message):
                whole(self, message)

        monkeypatch.setattr(flow._Pull, "receive", receive)
        monkeypatch.setattr(flow._Pull, "receive_all", Exchange.receive_each)

    return lose


def is_heartbeat(message: Any) -> bool:
    return bool(message.headers and message.headers.get("Status"))


def begin(bucket: kv.Bucket, **options: Any) -> Told:
    told = Told()
    ready(bucket.watch(told, **options))
    return told


def same(told: Told, bucket: kv.Bucket, timeout: float) -> None:
    eventually(lambda: told.held == held(bucket), timeout)


def test_a_delivery_that_is_missing_is_noticed_by_the_next(bucket, lose, caplog):
    told = begin(bucket)
    lost: list[Any] = []

    def first(message: Any) -> bool:
        if lost or is_heartbeat(message):
            return False
        lost.append(message)
        return True

    lose(first)
    bucket.put("a", 1)
    eventually(lambda: lost)
    bucket.put("b", 1)
    clock = Stopwatch()
    same(told, bucket, 5)
    assert clock.seconds < 1.4  # an audit would have noticed too, later
    assert "is missing" in complaints(caplog)[0]


def test_silence_on_a_line_that_is_alive_is_noticed(bucket, lose, caplog):
    told = begin(bucket)
    lose(lambda _message: True)
    clock = Stopwatch()
    eventually(lambda: complaints(caplog), 3)
    assert clock.seconds < 2
    assert "silent" in complaints(caplog)[0]
    bucket.put("a", 1)
    same(told, bucket, 2)


@pytest.mark.parametrize("keys", [None, ["a", "b"]])
def test_deliveries_that_never_come_are_noticed_although_there_are_heartbeats(bucket, lose, caplog, keys):
    bucket.put("a", 0)
    told = begin(bucket, keys=keys)
    lose(lambda message: not is_heartbeat(message))
    bucket.put("a", 1)  # the number of keys stays the same
    same(told, bucket, 10)
    assert "was not delivered" in complaints(caplog)[0]


def test_a_key_that_was_passed_over_is_noticed(bucket, monkeypatch, caplog):
    told = begin(bucket)
    whole = _Teller.apply
    monkeypatch.setattr(_Teller, "apply", lambda self, stored: stored.subject.endswith(".a") or whole(self, stored))
    bucket.put("a", 1)
    bucket.put("b", 1)
    eventually(lambda: told.values == {"b": 1})
    monkeypatch.setattr(_Teller, "apply", whole)
    same(told, bucket, 6)
    assert "passed over" in complaints(caplog)[0]


def test_a_look_that_was_held_up_does_not_put_off_the_next(bucket, connect_kv, monkeypatch):
    monkeypatch.setattr(_session, "AUDIT", 0.2)
    bucket.put("a", 1)
    told = begin(bucket)
    whole = _survey.Survey.look
    held_up: list[int] = []

    async def look(self: Any) -> Any:
        if not held_up:
            held_up.append(1)
            await asyncio.sleep(1)  # as a server that is frozen for a moment
            held_up.append(2)
        return await whole(self)

    monkeypatch.setattr(_survey.Survey, "look", look)
    eventually(lambda: len(held_up) == 2)
    purge(connect_kv(), bucket.name, "a")
    eventually(lambda: not told.held, 3)


def test_other_keys_that_change_are_no_loss_to_a_narrowed_watch(bucket, monkeypatch, caplog):
    monkeypatch.setattr(_session, "AUDIT", 0.1)
    bucket.put("a", 1)
    told = begin(bucket, keys="a")
    clock = Stopwatch()
    number = 0
    while clock.seconds < 2:
        number += 1
        bucket.put("b", number)
    assert told.brief == [("a", 1)]
    assert not complaints(caplog)


def test_a_quiet_part_of_a_bucket_is_not_listed_again_and_again(bucket, monkeypatch):
    monkeypatch.setattr(_session, "AUDIT", 0.05)
    listed: list[int] = []
    whole = _survey.Survey.there

    async def there(self: Any) -> set[str]:
        listed.append(1)
        return await whole(self)

    looked: list[int] = []
    look = _survey.Survey.look

    async def counting(self: Any) -> Any:
        looked.append(1)
        return await look(self)

    monkeypatch.setattr(_survey.Survey, "there", there)
    monkeypatch.setattr(_survey.Survey, "look", counting)
    bucket.put("a", 1)
    begin(bucket, keys="a")
    eventually(lambda: len(looked) > 10)
    assert len(listed) <= 2


def test_a_bucket_under_load_is_not_taken_for_one_that_loses(bucket, nats_server, monkeypatch, caplog):
    monkeypatch.setattr(_session, "AUDIT", 0.05)
    told = begin(bucket)
    narrow = begin(bucket, keys=["k.1.>", "k.2.*"])
    keys = [f"k.{number % 10}.{number}" for number in range(3_000)]
    with Overwriter([nats_server.url], bucket.name, keys) as writers:
        eventually(lambda: writers.changes > 4_000, 15)
        writers.stop()
    same(told, bucket, 10)
    eventually(lambda: narrow.held == {k: v for k, v in held(bucket).items() if k[:4] in {"k.1.", "k.2."}})
    assert not complaints(caplog)
