"""When a replay is over and what an audit concludes, decided on made-up deliveries, one race at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from django_natskv.kv._known import Known
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import Interrupted
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._replay import Replay
from django_natskv.kv._session import FIRST_WAIT, LONGEST_WAIT, Session
from django_natskv.kv._survey import Survey

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def stored(key: str, revision: int, pending: int = 0, ttl: str = "") -> Stored:
    headers = {"Nats-TTL": ttl} if ttl else {}
    return Stored(key, revision, datetime.now(UTC), headers, b"1", pending)


def info(last: int, keys: int, *, created: datetime = EPOCH) -> BucketInfo:
    return BucketInfo("b", {}, created, 0, 1, last, keys)


class FakeFlow:
    """Gives what it was given, a list at a time, and then nothing."""

    def __init__(self, *news: Sequence[Stored], newest: int = 0) -> None:
        self._news = list(news)
        self.newest = newest
        self.pending = 0
        self.asked = 0

    async def next(self, _patience: float) -> list[Stored]:
        self.asked += 1
        news = list(self._news.pop(0)) if self._news else []
        if news:
            self.newest, self.pending = news[-1].revision, news[-1].pending
        return news


class FakeSink(Known):
    def __init__(self, *known: Stored) -> None:
        super().__init__()
        for one in known:
            self.apply(one)
        self.forgotten: list[str] = []

    def forget(self, gone: Any) -> Any:
        self.forgotten.append(gone.subject)
        return super().forget(gone.subject)


class EndedSink(FakeSink):
    ends = 0

    def ended(self) -> None:
        self.ends += 1


class FakeCore:
    name = "b"
    prefix = "$KV.b."
    wire: Any = None

    def covers_all(self, _filters: object, _info: object) -> bool:
        return True


class FakeSurvey(Survey):
    """A survey that ``looks`` and ``lists`` describe, each said once and the last for ever."""

    def __init__(self, looks: list[BucketInfo], lists: list[set[str]]) -> None:
        super().__init__(FakeCore(), None, [">"], None)  # type: ignore[arg-type]
        self.looks, self.lists, self.found = looks, lists, dict[str, Stored]()
        self.seen = looks[0]
        self.lists_asked = 0

    async def look(self) -> BucketInfo:
        self.seen = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return self.seen

    async def there(self) -> set[str]:
        self.lists_asked += 1
        return set(self.lists.pop(0) if len(self.lists) > 1 else self.lists[0])

    async def newest(self, subjects: list[str]) -> list[Stored | None]:
        return [self.found.get(one) for one in subjects]


class Replayed:
    """A replay of a bucket that ``looks`` and ``lists`` describe."""

    def __init__(self, looks: list[BucketInfo], lists: list[set[str]], *, history: bool = False) -> None:
        self.survey = FakeSurvey(looks, lists)
        self.history = history

    async def replayed(self, flow: FakeFlow, pending: int, opened: BucketInfo | None = None) -> list[tuple[str, int]]:
        replay = Replay(self.survey, flow, None, history=self.history)  # type: ignore[arg-type]
        whole = await replay.whole(opened or self.survey.looks[0], pending)
        return [(one.subject, one.revision) for one in whole]


class FakeSession(Session):
    """A session on a bucket that ``looks`` and ``lists`` describe."""

    def __init__(self, looks: list[BucketInfo], lists: list[set[str]], sink: Any = None) -> None:
        super().__init__(FakeCore(), None, [">"], sink or FakeSink(), history=False)  # type: ignore[arg-type]
        self.fake = self._survey = FakeSurvey(looks, lists)

    async def _read_again(self, subjects: list[str]) -> None:
        for subject in subjects:
            if subject not in self.fake.found:
                self._sink.forget(stored(subject, 1))


# --- the end of a replay ---


async def test_it_is_over_when_the_newest_revision_was_delivered_and_nothing_follows():
    session = Replayed([info(2, 2)], [set()])
    assert await session.replayed(FakeFlow([stored("a", 1, 1), stored("b", 2)]), 2) == [("a", 1), ("b", 2)]
    assert session.survey.lists_asked == 0  # which a large bucket is grateful for


async def test_nothing_pending_is_not_the_end_while_a_key_moves_to_a_new_revision():
    session = Replayed([info(9, 2)], [{"a", "b"}])
    flow = FakeFlow([stored("a", 1)], [], [], [stored("b", 9)])
    assert await session.replayed(flow, 1) == [("a", 1), ("b", 9)]


async def test_the_newest_revision_is_not_the_end_while_more_is_said_to_follow():
    # What was asked came of a leader that is behind the replica which delivers.
    session = Replayed([info(5, 2)], [{"a", "b"}])
    flow = FakeFlow([stored("a", 5, 1)], [stored("b", 6)])
    assert await session.replayed(flow, 1) == [("a", 5), ("b", 6)]


async def test_a_key_that_vanishes_is_not_waited_for():
    session = Replayed([info(9, 3)], [{"a", "b", "c"}, {"a", "c"}, {"a", "c"}])
    flow = FakeFlow([stored("a", 1)], [], [], [stored("c", 9)])
    assert await session.replayed(flow, 3) == [("a", 1), ("c", 9)]


async def test_a_bucket_in_which_something_is_always_pending_has_an_end():
    session = Replayed([info(10**9, 2)], [{"a", "b"}])
    endless = [[stored("ab"[number % 2], number, 5)] for number in range(1, 1000)]
    flow = FakeFlow(*endless)
    await session.replayed(flow, 2)
    assert flow.asked < 5


async def test_what_was_pending_and_vanished_is_not_waited_for():
    session = Replayed([info(9, 0)], [set()])
    assert await session.replayed(FakeFlow([]), 7) == []


async def test_what_a_process_that_stood_still_has_yet_to_read_is_not_given_up(monkeypatch):
    clock = iter([0.0, 0.0, 10.0, 10.1])
    monkeypatch.setattr("django_natskv.kv._replay.time", SimpleNamespace(monotonic=lambda: next(clock)))
    session = Replayed([info(9, 2)], [{"a", "b"}])
    assert await session.replayed(FakeFlow([stored("a", 1)], [], [stored("b", 9)]), 1) == [("a", 1), ("b", 9)]
    clock = iter([0.0, 0.0, 10.0, 10.1])
    with pytest.raises(Interrupted, match="b is in the bucket and was not delivered"):
        await session.replayed(FakeFlow([stored("a", 1)]), 1)


async def test_of_a_key_that_moved_on_the_newest_is_kept_and_all_is_in_order():
    session = Replayed([info(4, 2)], [set()])
    flow = FakeFlow([stored("a", 1, 3), stored("b", 2, 2), stored("a", 3, 1), stored("a", 4)])
    assert await session.replayed(flow, 4) == [("b", 2), ("a", 4)]
    whole = Replayed([info(4, 2)], [set()], history=True)
    flow = FakeFlow([stored("a", 1, 3), stored("b", 2, 2), stored("a", 3, 1), stored("a", 4)])
    assert await whole.replayed(flow, 4) == [("a", 1), ("b", 2), ("a", 3), ("a", 4)]


@pytest.mark.parametrize("now", [info(9, 1, created=EPOCH + timedelta(1)), info(3, 1)])
async def test_another_bucket_or_an_earlier_one_is_no_end(now):
    session = Replayed([now], [{"a"}])
    with pytest.raises(Interrupted):
        await session.replayed(FakeFlow([stored("a", 9)]), 1, info(9, 1))


# --- audits ---


async def audit(session: FakeSession, flow: FakeFlow) -> None:
    await session._audit(flow)  # type: ignore[arg-type]


async def test_a_backlog_is_not_a_loss():
    session = FakeSession([info(9, 2)], [{"a", "b"}], FakeSink(stored("a", 1)))
    session.fake.found = {"b": stored("b", 9), "$KV.b.>": stored("b", 9)}
    await audit(session, FakeFlow(newest=5))


async def test_what_was_passed_over_is_a_loss():
    session = FakeSession([info(9, 2)], [{"a", "b"}], FakeSink(stored("a", 1)))
    session.fake.found = {"b": stored("b", 3)}
    with pytest.raises(Interrupted, match="passed over"):
        await audit(session, FakeFlow(newest=9))


async def test_deliveries_that_make_progress_are_not_overdue():
    session = FakeSession([info(9, 1)], [{"a"}], FakeSink(stored("a", 1)))
    session.fake.found = {"$KV.b.>": stored("a", 9)}
    for newest in (3, 4, 5):
        await audit(session, FakeFlow(newest=newest))
    with pytest.raises(Interrupted, match="was not delivered"):
        await audit(session, FakeFlow(newest=5))


async def test_a_key_written_after_the_look_is_not_taken_for_gone():
    sink = FakeSink(stored("a", 1), stored("b", 12))
    session = FakeSession([info(9, 1)], [{"a"}], sink)
    await audit(session, FakeFlow(newest=12))
    assert not sink.forgotten


async def test_a_key_that_is_not_there_is_gone():
    sink = FakeSink(stored("a", 1), stored("b", 2))
    session = FakeSession([info(9, 1)], [{"a"}], sink)
    session.fake.found = {"$KV.b.>": stored("a", 1)}
    await audit(session, FakeFlow(newest=2))
    assert sink.forgotten == ["b"]


async def test_a_look_at_an_expiry_that_was_too_early_is_repeated(monkeypatch):
    clock = time.monotonic()
    sink = FakeSink()
    session = FakeSession([info(1, 1)], [{"a"}], sink)
    session.fake.found = {"a": stored("a", 1)}
    session._take([stored("a", 1, ttl="1s")])
    monkeypatch.setattr("django_natskv.kv._session.time.monotonic", lambda: clock)
    clock += 2
    await session._check_expiries()
    assert not sink.forgotten
    session.fake.found = {}
    clock += 10
    await session._check_expiries()
    assert sink.forgotten == ["a"]


class Answering(Session):
    """A session whose requests are answered with what ``answer`` gives when it is called."""

    def __init__(self, sink: Any, answer: Any) -> None:
        core = FakeCore()
        core.wire = core
        super().__init__(core, None, [">"], sink, history=False)  # type: ignore[arg-type]
        self.answer = answer
        self._survey.ask = self.ask  # type: ignore[method-assign, assignment]

    async def ask(self, _operation: Any) -> Any:
        return self.answer()


async def test_what_is_read_again_counts_only_if_nothing_was_delivered_meanwhile(monkeypatch):
    for verb in ("each_of_leader", "info"):
        monkeypatch.setattr(FakeCore, verb, lambda *_: None, raising=False)
    sink = FakeSink(stored("moved", 1), stored("gone", 2), stored("same", 3), stored("older", 5))

    def answer() -> list[Stored | None]:
        sink.apply(stored("moved", 9))
        return [None, None, stored("same", 3), stored("older", 4)]

    session = Answering(sink, answer)
    see(session, monkeypatch, info(9, 4))
    await session._read_again(["moved", "gone", "same", "older"])
    assert sink.forgotten == ["gone"]
    assert [sink.revision(key) for key in ("moved", "gone", "same", "older")] == [9, None, 3, 4]


def see(session: Session, monkeypatch: pytest.MonkeyPatch, now: BucketInfo) -> None:
    """Have the session find ``now`` when it looks at the bucket, which it has seen before."""

    async def look() -> BucketInfo:
        return now

    session._survey.seen = info(9, 4)
    monkeypatch.setattr(session._survey, "look", look)


@pytest.mark.parametrize("now", [info(9, 4, created=EPOCH + timedelta(1)), info(8, 4)])
async def test_an_older_revision_of_another_bucket_is_none_of_this_one(monkeypatch, now):
    monkeypatch.setattr(FakeCore, "each_of_leader", lambda *_: None, raising=False)
    sink = FakeSink(stored("a", 5), stored("b", 6))
    session = Answering(sink, lambda: [None, stored("b", 4)])
    see(session, monkeypatch, now)
    with pytest.raises(Interrupted):
        await session._read_again(["a", "b"])
    assert [sink.revision(key) for key in ("a", "b")] == [5, 6]


async def test_a_server_that_does_not_say_what_time_it_is_is_believed_to_agree(monkeypatch):
    monkeypatch.setattr(FakeCore, "info", lambda *_: None, raising=False)
    session = Answering(FakeSink(), lambda: info(1, 1))
    assert await session._survey.look() == info(1, 1)
    assert session._survey.skew == timedelta()


async def test_attempts_that_fail_come_later_and_later_within_bounds_and_not_in_step(monkeypatch):
    waits: list[list[float]] = []

    async def sleep(seconds: float) -> None:
        waits[-1].append(seconds)
        if len(waits[-1]) == 12:
            raise asyncio.CancelledError

    async def follow() -> None:
        raise Interrupted

    monkeypatch.setattr("django_natskv.kv._session.asyncio", SimpleNamespace(sleep=sleep))
    for _ in range(2):
        session = FakeSession([info(1, 1)], [set()])
        monkeypatch.setattr(session, "_report", str)  # which takes an error and tells nobody
        monkeypatch.setattr(session, "_follow", follow)
        waits.append([])
        with pytest.raises(asyncio.CancelledError):
            await session._run()
    ceilings = [min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) for attempt in range(12)]
    for each in waits:
        assert all(high / 2 <= wait <= high for wait, high in zip(each, ceilings, strict=True))
    assert waits[0] != waits[1]


def test_a_session_may_end_before_it_began():
    sink = EndedSink()
    session = FakeSession([info(1, 1)], [set()], sink)
    session._stopped = True
    session._end()  # which another thread's call can put before the beginning
    assert sink.ends == 0
    session._begin()
    assert session._task is None
    assert sink.ends == 1
