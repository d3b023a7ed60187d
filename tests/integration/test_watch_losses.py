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
from tests.integration.watching import Stopwatch, Told, complaints, held, patient, purge, ready


@pytest.fixture
def bucket(connect_kv: ConnectKV, bucket_name: str) -> kv.Bucket:
    # The machine may hold up the server, or us, for as long as a request has otherwise.
    connection = connect_kv(connect_timeout=30.0, request_timeout=30.0)
    return connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"})


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that the machine holds up is not taken for one that has fallen silent."""
    patient(monkeypatch)


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


def same(told: Told, bucket: kv.Bucket) -> None:
    eventually(lambda: told.held == held(bucket), 30)


@pytest.mark.usefixtures("unhurried")
def test_a_delivery_that_is_missing_is_noticed_by_the_next(bucket, lose, monkeypatch, caplog):
    monkeypatch.setattr(_session, "AUDIT", 600)  # which would notice too, later
    told = begin(bucket)
    lost: list[Any] = []

    def first(message: Any) -> bool:
        if lost or is_heartbeat(message):
            return False
        lost.append(message)
        return True

    lose(first)
    bucket.put("a", 1)
    eventually(lambda: lost, 30)
    bucket.put("b", 1)
    same(told, bucket)
    assert "is missing" in complaints(caplog, bucket)[0]


def test_silence_on_a_line_that_is_alive_is_noticed(bucket, lose, monkeypatch, caplog):
    monkeypatch.setattr(_session, "AUDIT", 600)  # nothing else is to notice
    told = begin(bucket)
    lose(lambda _message: True)
    eventually(lambda: complaints(caplog, bucket), 30)
    assert "silent" in complaints(caplog, bucket)[0]
    bucket.put("a", 1)
    same(told, bucket)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("keys", [None, ["a", "b"]])
def test_deliveries_that_never_come_are_noticed_although_there_are_heartbeats(bucket, lose, caplog, keys):
    bucket.put("a", 0)
    told = begin(bucket, keys=keys)
    lose(lambda message: not is_heartbeat(message))
    bucket.put("a", 1)  # the number of keys stays the same
    same(told, bucket)
    assert "was not delivered" in complaints(caplog, bucket)[0]


@pytest.mark.usefixtures("unhurried")
def test_a_key_that_was_passed_over_is_noticed(bucket, monkeypatch, caplog):
    told = begin(bucket)
    whole = _Teller.apply
    monkeypatch.setattr(_Teller, "apply", lambda self, stored: stored.subject.endswith(".a") or whole(self, stored))
    bucket.put("a", 1)
    bucket.put("b", 1)
    eventually(lambda: ("b", 1) in told.brief)
    monkeypatch.setattr(_Teller, "apply", whole)
    same(told, bucket)
    assert "passed over" in complaints(caplog, bucket)[0]


@pytest.mark.usefixtures("unhurried")
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
    eventually(lambda: len(held_up) == 2, 30)
    purge(connect_kv(), bucket.name, "a")
    # Put off by twenty times what the look took, the next would come after 16 seconds.
    eventually(lambda: not told.held, 12)


@pytest.mark.usefixtures("unhurried")
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
    assert not complaints(caplog, bucket)


@pytest.mark.usefixtures("unhurried")
def test_a_quiet_part_of_a_bucket_is_not_listed_again_and_again(bucket, monkeypatch):
    monkeypatch.setattr(_session, "AUDIT", 0.05)
    listed: list[int] = []
    whole = _survey.Survey.there

    async def there(self: Any) -> set[str]:
        if self._core.name == bucket.name:
            listed.append(1)
        return await whole(self)

    looked: list[int] = []
    look = _survey.Survey.look

    async def counting(self: Any) -> Any:
        if self._core.name == bucket.name:
            looked.append(1)
        return await look(self)

    monkeypatch.setattr(_survey.Survey, "there", there)
    monkeypatch.setattr(_survey.Survey, "look", counting)
    bucket.put("a", 1)
    begin(bucket, keys="a")
    in_replay = len(listed)  # as many as a server that is held up needs to deliver
    eventually(lambda: len(looked) > 10, 30)
    assert len(listed) <= in_replay + 2


@pytest.mark.usefixtures("unhurried")
def test_a_bucket_under_load_is_not_taken_for_one_that_loses(bucket, nats_server, monkeypatch, caplog):
    monkeypatch.setattr(_session, "AUDIT", 0.05)
    told = begin(bucket)
    narrow = begin(bucket, keys=["k.1.>", "k.2.*"])
    keys = [f"k.{number % 10}.{number}" for number in range(3_000)]
    with Overwriter([nats_server.url], bucket.name, keys) as writers:
        eventually(lambda: writers.changes > 4_000, 30)
        writers.stop()
    same(told, bucket)
    eventually(lambda: narrow.held == {k: v for k, v in held(bucket).items() if k[:4] in {"k.1.", "k.2."}}, 30)
    assert not complaints(caplog, bucket)
