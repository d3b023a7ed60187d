from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from django_natskv.kv._known import Expiries, Known, vanished
from django_natskv.kv._nats.messages import Stored, parse_ttl

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NOW = EPOCH + timedelta(days=1)
DELETE = {"KV-Operation": "DEL"}


def stored(subject: str, revision: int, *, at: int | None = None, marker: bool = False) -> Stored:
    created = EPOCH + timedelta(seconds=revision if at is None else at)
    return Stored(subject, revision, created, DELETE if marker else {}, b"" if marker else b"1")


def fold(held: dict[str, tuple[int, datetime]], news: list[Stored]) -> dict[str, tuple[int, datetime]]:
    for one in news:
        if one.is_live:
            held[one.subject] = (one.revision, one.created)
        else:
            held.pop(one.subject, None)
    return held


writes = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12)
# What becomes of a bucket while nobody looks: it goes on, from where it was or from what is left of that (0: anew).
fates = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 12)), writes), min_size=1, max_size=5)


def written(changes: list[tuple[str, bool]], history: int, times: list[int] | None = None) -> list[Stored]:
    """Return what a replay shows of a bucket after ``changes``, each a key and whether it is a marker."""
    kept: dict[str, list[Stored]] = {}
    for revision, (subject, marker) in enumerate(changes, 1):
        revisions = kept.setdefault(subject, [])
        revisions.append(stored(subject, revision, at=times[revision - 1] if times else None, marker=marker))
        del revisions[:-history]
    return sorted((one for each in kept.values() for one in each), key=lambda one: one.revision)


@given(fates, st.sampled_from([1, 3]))
def test_what_is_told_adds_up_to_the_bucket_whatever_became_of_it(fates, history):
    known = Known()
    held: dict[str, tuple[int, datetime]] = {}
    changes: list[tuple[str, bool]] = []
    times: list[int] = []
    clock = 0
    for left, more in fates:
        if left is not None:
            del changes[left:], times[left:]
        changes += more
        times += range(clock, clock + len(more))
        clock += len(more) + 1
        replay = written(changes, history, times)
        fold(held, known.replace(replay, NOW))
        assert held == fold({}, replay)
        assert set(known.subjects()) == {one.subject for one in replay}


@given(writes, writes, st.sampled_from([1, 3]))
def test_nothing_is_told_twice_and_nothing_left_out_of_a_bucket_that_only_went_on(first, more, history):
    known = Known()
    before = known.replace(written(first, history), NOW)
    news = known.replace(written(first + more, history), NOW)
    told = {(one.subject, one.revision) for one in before}
    assert not told & {(one.subject, one.revision) for one in news}
    revisions = {(one.subject, one.revision) for one in written(first + more, history)}
    assert revisions - told == {(one.subject, one.revision) for one in news if one.created != NOW}


@given(writes, writes)
def test_news_are_in_order_with_what_is_gone_last(first, second):
    known = Known()
    known.replace(written(first, 1), NOW)
    news = known.replace(written(second, 1, list(range(100, 120))), NOW)
    there = [one.revision for one in news if one.created != NOW]
    assert there == sorted(there)
    assert [one.created for one in news] == [*(one.created for one in news[: len(there)])] + [NOW] * (
        len(news) - len(there)
    )


def test_a_bucket_made_anew_is_news_even_where_its_revisions_coincide():
    known = Known()
    known.replace([stored("a", 1, at=1)], NOW)
    assert [one.revision for one in known.replace([stored("a", 1, at=50)], NOW)] == [1]


def test_every_revision_of_a_bucket_made_anew_is_news():
    known = Known()
    known.replace([stored("a", 2, at=2)], NOW)
    anew = [stored("a", revision, at=100 + revision) for revision in (1, 2, 3)]
    assert [one.revision for one in known.replace(anew, NOW)] == [1, 2, 3]


def test_a_server_that_went_back_is_followed():
    known = Known()
    known.replace([stored("a", 5), stored("b", 9)], NOW)
    news = known.replace([stored("a", 5), stored("b", 3)], NOW)
    assert [(one.subject, one.revision) for one in news] == [("b", 3)]


def test_a_revision_with_an_earlier_time_is_news_all_the_same():
    # Two leaders, two clocks.
    known = Known()
    known.replace([stored("a", 5, at=100)], NOW)
    later = [stored("a", 6, at=99), stored("a", 7, at=101)]
    assert [one.revision for one in known.replace(later, NOW)] == [6, 7]


def test_a_key_that_is_gone_is_told_as_a_purge_of_its_last_revision():
    known = Known()
    known.replace([stored("a", 5), stored("b", 6, marker=True)], NOW)
    gone = known.replace([], NOW)
    assert gone == [vanished("a", 5, NOW)]
    assert not gone[0].is_live


def test_deltas_count_from_the_newest_revision():
    known = Known()
    replay = [stored("a", 1), stored("b", 2), stored("a", 3), stored("a", 4)]
    assert [(one.subject, one.delta) for one in known.replace(replay, NOW)] == [("a", 2), ("b", 0), ("a", 1), ("a", 0)]


def test_forgetting_tells_whether_the_key_was_live():
    known = Known()
    known.apply(stored("a", 1))
    known.apply(stored("b", 2, marker=True))
    assert known.forget("a")
    assert not known.forget("b")
    assert not known.forget("c")
    assert not known.subjects()
    assert known.revision("a") is None


# --- expiries ---


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 99), st.one_of(st.none(), st.integers(0, 50))), max_size=40
    ),
    st.integers(0, 50),
)
def test_only_the_newest_date_of_a_key_counts(dates, now):
    expiries = Expiries()
    newest: dict[str, tuple[int, int | None]] = {}
    for subject, revision, due in dates:
        expiries.set(subject, revision, due)
        newest[subject] = (revision, due)
    due = {(subject, revision) for subject, (revision, date) in newest.items() if date is not None and date <= now}
    assert set(expiries.pop(now, 100)) == due
    left = [date for _, date in newest.values() if date is not None and date > now]
    assert expiries.next() == min(left, default=None)


def test_a_key_that_is_written_again_and_again_does_not_fill_the_memory():
    expiries = Expiries()
    for revision in range(100_000):
        expiries.set("a", revision, float(revision))
    assert len(expiries) < 2_000
    assert expiries.pop(1e9, 10) == [("a", 99_999)]


def test_dates_are_given_out_in_bounded_numbers_and_can_be_cleared():
    expiries = Expiries()
    for number in range(10):
        expiries.set(f"k{number}", number, float(number))
    assert expiries.pop(100, 3) == [("k0", 0), ("k1", 1), ("k2", 2)]
    expiries.clear()
    assert expiries.next() is None


# --- times to live, as this package and others write them ---


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("5", 5),
        ("5s", 5),
        ("1m0s", 60),
        ("1h0m0s", 3600),
        ("2h45m30.5s", 9931),
        ("1500ms", 2),
        ("never", 0),
        ("", 0),
        ("5x", 0),
    ],
)
def test_a_time_to_live_is_understood_as_the_server_does(given, seconds):
    assert parse_ttl(given) == seconds
