"""A copy that lacks what was written is not called live for longer than it may be, whatever holds it up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_natskv.kv import LocalCache, _session, _survey
from django_natskv.kv._nats import flow
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv._nats.messages import from_deliveries
from tests.fix_local import equal, feed, live
from tests.fix_waiting import eventually


@pytest.fixture
def bucket(connect_kv, bucket_name):
    return connect_kv().kv().create_bucket({"bucket": bucket_name, "storage": "memory", "history": 2})


class Looks:
    """Holds up whoever looks at a bucket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held_up: list[asyncio.Future[None]] = []
        whole = _survey.Survey.look

        async def look(survey: _survey.Survey) -> Any:
            self.held_up.append(asyncio.get_running_loop().create_future())
            await self.held_up[-1]
            return await whole(survey)

        monkeypatch.setattr(_survey.Survey, "look", look)

    def held_up_while_live(self, cache: LocalCache[Any]) -> bool:
        if self.held_up and not cache.is_live:  # as where the server fell silent before
            self.let_go()
        return bool(self.held_up)

    def let_go(self) -> None:
        while self.held_up:
            each = self.held_up.pop()
            each.get_loop().call_soon_threadsafe(_settle, each)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@pytest.mark.parametrize("mode", ["mirror", "invalidate"])
def test_while_a_look_at_the_bucket_is_held_up_a_copy_is_live_for_three_seconds_at_most(
    bucket, connect_kv, monkeypatch, mode
):
    """A leader may hang, and answer no look at the bucket, while another server goes on delivering."""
    cache = live(connect_kv().local_cache(bucket.name, mode=mode))
    looks = Looks(monkeypatch)
    eventually(lambda: looks.held_up_while_live(cache))
    bucket.put("a", 1)
    eventually(lambda: cache.status().state == "stale", 4.5)  # a second and a half for the machine
    assert (cache.status().age or 0) > 2
    monkeypatch.undo()
    without: list[bool] = []  # whether it was live without the change, seen as by a thread that has its turn in between

    def breathe():
        without.append(cache.is_live and "a" not in getattr(cache, "_entries", "a"))

    monkeypatch.setattr(flow, "breathe", breathe)
    looks.let_go()
    live(cache)
    assert cache.value("a") == 1
    assert not any(without)


def test_a_replay_from_a_server_that_lags_behind_is_not_complete(bucket, connect_kv, monkeypatch):
    """All keys are there, but one of them is not yet what it was when the copy was begun."""
    for key, value in (("a", "old"), ("b", 1), ("a", "new")):
        bucket.put(key, value)
    late: list[tuple[Any, Any]] = []
    caught_up: list[bool] = []
    consumer, received, presents = _session.Session._consumer, flow._Pull.receive, []
    parse, present = from_deliveries, _survey.Survey.present

    def receive(self, message):
        if message.data == b'"new"' and not caught_up:
            late.append((self, message))
        else:
            received(self, message)

    async def count(self, subjects):
        presents.append(subjects)
        return await present(self, subjects)

    monkeypatch.setattr(
        _session.Session, "_consumer", lambda *arguments: {**consumer(*arguments), "deliver_policy": "all"}
    )
    monkeypatch.setattr(flow._Pull, "receive", receive)
    monkeypatch.setattr(flow._Pull, "receive_all", Exchange.receive_each)  # one by one
    monkeypatch.setattr(
        "django_natskv.kv._nats.flow.from_deliveries", lambda all_: [one._replace(pending=0) for one in parse(all_)]
    )
    monkeypatch.setattr(_survey.Survey, "present", count)
    connection = connect_kv()
    cache = connection.local_cache(bucket.name)
    cache.start()
    eventually(lambda: len(presents) > 2 or cache.status().state == "live")
    assert cache.status().state == "warming", cache.items()
    caught_up.append(True)
    pull, message = late[0]
    connection._watching.driver.post(lambda: received(pull, message))
    live(cache)
    assert cache.value("a") == "new"
    equal(cache, bucket)


def test_a_replay_that_a_server_never_completes_is_begun_anew(bucket, connect_kv, monkeypatch, caplog):
    for number, key in enumerate(("a", "b", "a"), 1):
        bucket.put(key, number)
    flows = []
    parse, received, consumer = from_deliveries, flow._Pull.receive, _session.Session._consumer

    def receive(self, message):
        if self.flow not in flows:
            flows.append(self.flow)
        if self.flow is not flows[0] or message.data != b"3":
            received(self, message)

    monkeypatch.setattr(_session, "AUDIT", 0.5)
    monkeypatch.setattr(
        _session.Session, "_consumer", lambda *arguments: {**consumer(*arguments), "deliver_policy": "all"}
    )
    monkeypatch.setattr(flow._Pull, "receive", receive)
    monkeypatch.setattr(flow._Pull, "receive_all", Exchange.receive_each)  # one by one
    monkeypatch.setattr(
        "django_natskv.kv._nats.flow.from_deliveries", lambda all_: [one._replace(pending=0) for one in parse(all_)]
    )
    cache = live(connect_kv().local_cache(bucket.name))
    assert len(flows) > 1
    assert "was not delivered" in caplog.text
    assert cache.value("a") == 3


def test_what_a_replica_does_not_deliver_while_it_sends_heartbeats_is_missed_within_a_second_of_a_look(
    bucket, connect_kv, monkeypatch
):
    cache = live(connect_kv().local_cache(bucket.name))
    session = feed(cache)._session
    lagging: list[flow.Flow] = []
    received, follow = flow._Pull.receive, _session.Session._check_progress
    missed: list[bool] = []

    def receive(self, message):
        if self.flow not in lagging or not message.data:
            received(self, message)

    async def check(self, *arguments):
        await follow(self, *arguments)
        if self is session and self._overdue[1]:
            # From here on no look comes by itself: the next one has to come sooner because of what is missing.
            monkeypatch.setattr(_session, "AUDIT", 600.0)
            missed.append(True)

    monkeypatch.setattr(flow._Pull, "receive", receive)
    monkeypatch.setattr(flow._Pull, "receive_all", Exchange.receive_each)  # one by one
    monkeypatch.setattr(_session.Session, "_check_progress", check)

    def is_missed() -> bool:  # and not found out otherwise, as where the server fell silent meanwhile
        lagging.append(session._flow)
        bucket.put("a", 1)
        equal(cache, bucket)
        return bool(missed)

    eventually(is_missed)
    assert _session.OVERDUE <= 1
