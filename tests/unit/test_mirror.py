"""The store of a local cache in mode "mirror": pure decisions, with clocks of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_natskv.kv import codecs
from django_natskv.kv._core import Core
from django_natskv.kv._kept import OVERHEAD, Clock, Keeper
from django_natskv.kv._mirror import Mirror, TooLarge
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.flow import Interrupted
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._state import MARKER
from django_natskv.kv.names import matcher

T0 = datetime(2030, 1, 1, tzinfo=UTC)
DELETED = {"KV-Operation": "DEL"}


def info(asked: datetime = T0, **config: Any) -> BucketInfo:
    return BucketInfo("b", config, T0, 0, 0, config.pop("last", 10**6), 0, asked=asked)


def stored(key: str, revision: int, data: bytes = b'"v"', **more: Any) -> Stored:
    more.setdefault("written", T0)
    return Stored(f"$KV.b.{key}", revision, headers=more.pop("headers", {}), data=data, **more)


class Store:
    """A mirror, what it told, and its clocks."""

    def __init__(self, patterns: tuple[str, ...] = (">",), most: int = 10**9) -> None:
        self.monotonic = 1_000.0
        self.local = T0
        self.changes: list[tuple[str, Any, Any, int]] = []
        self.errors: list[Exception] = []
        self.swapped: list[dict[str, Any]] = []
        wire: Any = None
        self.clock = Clock(lambda: self.monotonic, lambda: self.local)
        keeper = Keeper(Core(wire, info(), codecs.resolve("json")), self.clock)
        self.mirror = Mirror(
            keeper,
            "b",
            matcher(patterns),
            most,
            changed=self.changed,
            report=self.errors.append,
            swapped=self.swapped.append,
        )

    def changed(self, key: str, old: Any, new: Any, revision: int) -> None:
        self.changes.append((key, old and old.value, new and new.value, revision))

    def own(self, key: str, revision: int, data: bytes = b'"mine"', headers: dict[str, str] | None = None) -> None:
        self.mirror.wrote(key, stored(key, revision, data, headers=headers or {}), self.monotonic)

    def value(self, key: str) -> Any:
        entry = self.mirror.look_up(key)
        return None if entry is None else entry.value


def warm(*entries: Stored, **options: Any) -> Store:
    store = Store(**options)
    store.mirror.looked(info(), store.monotonic, store.monotonic)
    store.mirror.replace(entries)
    return store


def test_a_replay_is_told_of_no_key():
    store = warm(stored("a", 1), stored("b", 2))
    assert store.changes == []
    assert store.mirror.items().keys() == {"a", "b"}


def test_a_new_state_replaces_everything_and_tells_the_difference():
    store = warm(stored("same", 1), stored("moved", 2), stored("gone", 3), stored("deleted", 4))
    store.mirror.lost()
    store.mirror.replace(
        [stored("same", 1), stored("moved", 5, b'"w"'), stored("new", 6), stored("deleted", 7, b"", headers=DELETED)]
    )
    assert sorted(store.changes) == [
        ("deleted", "v", None, 7),
        ("gone", "v", None, 3),
        ("moved", "v", "w", 5),
        ("new", None, "v", 6),
    ]


def test_a_server_that_went_back_is_believed():
    store = warm(stored("a", 9, b'"newer"'))
    store.mirror.lost()
    store.mirror.replace([stored("a", 4, b'"older"')])  # F2
    assert store.value("a") == "older"
    assert store.mirror.revision == 4


def test_the_same_revision_of_another_bucket_is_a_change():
    store = warm(stored("a", 1))
    store.mirror.lost()
    store.mirror.replace([stored("a", 1, written=T0 + timedelta(hours=1))])
    assert [change[0] for change in store.changes] == ["a"]


def test_readers_see_a_new_state_before_its_changes_are_told():
    store = warm(stored("a", 1))
    store.mirror.lost()
    seen: list[Any] = []
    store.mirror._changed = lambda *_: seen.append(store.swapped[-1])
    store.mirror.replace([stored("a", 2, b'"w"')])
    assert seen == [store.mirror.entries]


def test_what_arrives_in_a_replay_is_placed_aside():
    store = warm(stored("a", 1))
    store.mirror.lost()
    store.mirror.begin()
    store.mirror.arriving([stored("a", 5, b'"w"', delivery=1, pending=1)])
    assert store.value("a") == "v"
    assert store.mirror.lag == 1
    store.mirror.arriving([stored("b", 6, delivery=2, pending=0)])
    store.mirror.arrived()
    assert store.mirror.keys() == ["a", "b"]
    assert store.value("a") == "w"
    assert store.mirror.lag == 0


def test_a_replay_that_broke_off_leaves_nothing():
    store = warm(stored("a", 1))
    store.mirror.lost()
    store.mirror.begin()
    store.mirror.arriving([stored("lost", 5, delivery=1)])
    store.mirror.lost()
    store.mirror.begin()
    store.mirror.arriving([stored("b", 6, delivery=1)])
    store.mirror.arrived()
    assert store.mirror.keys() == ["b"]
    store.mirror.begin()
    store.mirror.arriving([stored("lost", 7, delivery=1)])
    store.mirror.replace([])
    assert store.mirror.keys() == []


def test_an_entry_is_made_once_at_its_first_read_and_is_the_newest():
    store = warm(stored("a", 1), stored("b", 2))
    first = store.mirror.look_up("a")
    assert first is not None
    assert first is store.mirror.look_up("a")
    assert (first.bucket, first.key, first.value, first.revision, first.created) == ("b", "a", "v", 1, T0)
    assert (first.operation, first.delta) == ("put", None)
    held = store.mirror.entries["b"]
    store.mirror.apply(stored("b", 3, b'"newer"'))
    store.mirror._unpacked("b", held)  # a read that was overtaken
    assert store.value("b") == "newer"
    assert store.mirror.items()["b"].value == "newer"
    assert [entry.key for entry in store.mirror.whole()] == ["a", "b"]


@pytest.mark.parametrize("key", ["a", "b"])
def test_the_size_is_the_same_by_whatever_way_a_state_came(key):
    one = warm(stored("a", 1, b'"1234567890"'))
    one.mirror.apply(stored(key, 2, b'{"n": 1}'))
    one.mirror.apply(stored("c", 3, b"", headers=DELETED))
    one.mirror.apply(stored("c", 4, b"7"))
    one.mirror.apply(stored("c", 5, b"", headers=DELETED))
    other = warm(*({"a": stored("a", 1, b'"1234567890"')} | {key: stored(key, 2, b'{"n": 1}')}).values())
    other.mirror.apply(stored("c", 5, b"", headers=DELETED))
    assert one.mirror.bytes == other.mirror.bytes
    for name in ("a", "b", "c"):
        one.mirror.forget(stored(name, 9))
    assert one.mirror.bytes == 0


def test_keys_values_and_what_an_entry_takes_are_counted():
    store = warm(stored("abc", 1, b'"12345"'), stored("gone", 2, b"", headers=DELETED))
    assert store.mirror.bytes == OVERHEAD + 3 + 5 + MARKER + 4


def test_more_than_the_bound_is_refused_during_the_replay_and_afterwards():
    store = Store(most=1_000)
    store.mirror.arriving([stored("a", 1, delivery=1)])
    store.mirror.arriving([stored("b", 2, delivery=2)])
    store.mirror.arriving([stored("c", 3, delivery=3)])
    with pytest.raises(TooLarge, match=r"1,000 bytes.*MAX_BYTES"):
        store.mirror.arriving([stored("d", 4, delivery=4)])
    store = warm(stored("a", 1), stored("b", 2), most=1_000)
    with pytest.raises(TooLarge):
        store.mirror.apply(stored("c", 3, b'"' + b"x" * 900 + b'"'))


# --- a process's own writes


def test_an_own_write_is_read_at_once_and_confirmed_by_the_watch():
    store = warm(stored("a", 1))
    store.own("a", 5)
    assert store.value("a") == "mine"
    assert store.mirror.items()["a"].value == "mine"
    store.mirror.apply(stored("a", 3, b'"theirs"'))
    assert store.value("a") == "mine"
    store.mirror.apply(stored("a", 5, b'"mine"'))
    assert store.mirror.own == {}
    assert store.value("a") == "mine"


def test_an_own_delete_is_read_at_once():
    store = warm(stored("a", 1), stored("b", 2))
    store.own("a", 5, b"", DELETED)
    assert store.value("a") is None
    assert store.mirror.keys() == ["b"]
    assert store.mirror.items().keys() == {"b"}


@pytest.mark.parametrize(
    "newer", [stored("a", 6, b'"newer"'), stored("a", 6, b"", headers=DELETED)], ids=["put", "delete"]
)
def test_an_own_write_never_hides_what_is_newer(newer):
    early, late = warm(stored("a", 1)), warm(stored("a", 1))
    early.own("a", 5)
    early.mirror.apply(newer)
    late.mirror.apply(newer)
    late.own("a", 5)  # the answer to the write came after the watch
    assert early.value("a") == late.value("a") == (None if newer.headers else "newer")
    assert late.mirror.own == {}


def test_an_own_write_does_not_come_back_for_a_key_that_vanished():
    store = warm(stored("a", 1))
    store.own("a", 5)
    store.mirror.apply(stored("a", 5, b'"mine"'))
    store.mirror.forget(stored("a", 5))
    assert store.value("a") is None


def test_an_older_own_write_gives_way_to_a_newer_one():
    store = warm(stored("a", 1))
    store.own("a", 5, b'"new"')
    store.own("a", 4, b'"old"')
    assert store.value("a") == "new"


def test_an_own_write_during_a_replay_outlives_it_and_one_before_does_not():
    store = warm(stored("a", 1), stored("b", 2))
    store.mirror.lost()
    store.own("a", 7)
    store.monotonic += 1
    store.mirror.looked(info(), store.monotonic, store.monotonic)
    store.monotonic += 1
    store.own("b", 8)
    store.monotonic += 1
    store.mirror.looked(info(), store.monotonic, store.monotonic)  # in the middle of the replay
    store.mirror.replace([stored("a", 1), stored("b", 2)])
    assert store.value("a") == "v"  # a server that went back has lost it (F2)
    assert store.value("b") == "mine"


def test_an_own_write_that_the_watch_never_came_by_is_forgotten():
    store = warm(stored("a", 1))
    store.own("x", 5)
    store.mirror.looked(info(), store.monotonic + 4, store.monotonic + 4)
    assert store.value("x") == "mine"
    store.mirror.looked(info(), store.monotonic + 6, store.monotonic + 6)
    assert store.value("x") is None


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("of_another", [True, False])
def test_an_own_write_of_a_bucket_that_was_made_anew_is_forgotten_though_its_answer_was_read_late(late, of_another):
    config: dict[str, Any] = {"mirror": {"name": "KV_o"}} if of_another else {}
    store = warm(stored("a", 900))
    store.mirror.lost()
    store.mirror.looked(info(last=3, **config), store.monotonic, store.monotonic)  # the new one
    store.monotonic += 1
    store.own("a", 1_258)  # the old one's answer, or that of a write which the next look was too early for
    store.own("b", 250)
    asked = store.monotonic + 1 if late else store.monotonic - 1
    store.monotonic += 2
    store.mirror.looked(info(last=300, **config), asked, store.monotonic)
    assert store.value("a") == "mine", "until the new state is seen: the old one has what was before"
    store.mirror.replace([stored("a", 7)])
    assert store.value("a") == ("v" if late and not of_another else "mine")
    assert store.value("b") == "mine"
    store.mirror.looked(info(last=1), store.monotonic, store.monotonic)  # made anew once more, which is not noticed yet
    assert store.value("b") == "mine"


def test_own_writes_count_until_the_watch_has_come_by_them_and_have_a_bound():
    store = warm(stored("a", 1), most=2_000)
    before = store.mirror.bytes
    store.own("a", 5, b'"12345"')
    store.own("a", 6, b'"123456"')
    store.own("b", 7, b"", DELETED)
    assert store.mirror.bytes == before + OVERHEAD + 1 + 6 + MARKER + 1
    store.mirror.apply(stored("a", 6, b'"12"'))
    store.mirror.apply(stored("b", 8, b"", headers=DELETED))
    assert store.mirror.bytes == OVERHEAD + 1 + 2 + MARKER + 1
    for number in range(5):
        store.own(f"{number}", 10 + number)
    with pytest.raises(TooLarge, match="MAX_BYTES"):
        store.own("one too many", 20, b'"' + b"x" * 500 + b'"')
    store.mirror.lost()
    store.monotonic += 1
    store.mirror.looked(info(), store.monotonic, store.monotonic)
    store.mirror.replace([])
    assert (store.mirror.own, store.mirror.bytes) == ({}, 0)
    store.own("a", 30)
    store.mirror.looked(info(), store.monotonic + 6, store.monotonic + 6)
    assert store.mirror.bytes == 0


def test_own_writes_of_other_keys_and_codecs_are_left_alone():
    store = warm(stored("a.x", 1), patterns=("a.*",))
    store.own("b.x", 5)
    store.own("a.x", 6, b"\xff")
    assert store.mirror.own == {}


# --- values


def test_a_mutable_value_is_the_readers_own():
    store = warm(stored("a", 1, b'{"list": [1]}'))
    store.value("a")["list"].append(2)
    store.mirror.items()["a"].value["list"].append(3)
    assert store.value("a") == {"list": [1]}


def test_an_immutable_value_is_handed_out_as_it_is():
    store = warm(stored("a", 1))
    assert store.mirror.look_up("a") is store.mirror.look_up("a")


def test_the_last_good_value_stays_where_a_new_one_does_not_decode(caplog):
    store = warm(stored("a", 1), stored("never", 2, b"\xff"))
    store.mirror.apply(stored("a", 3, b"\xff"))
    assert store.value("a") == "v"
    assert store.value("never") is None
    assert store.mirror.undecodable == len(store.errors) == len(caplog.records) == 2
    assert store.mirror.revision_of("$KV.b.a") == 3
    assert len(store.mirror.subjects()) == 2
    store.mirror.lost()
    store.mirror.replace([stored("never", 2, b"\xff"), stored("a", 3, b"\xff")])
    assert store.value("a") == "v"
    assert len(caplog.records) == 2  # each is told once
    store.mirror.apply(stored("a", 4, b'"good"'))
    assert store.value("a") == "good"
    store.mirror.apply(stored("never", 5, b"", headers=DELETED))
    assert store.mirror.undecodable == 0


def test_who_is_told_of_a_value_that_does_not_decode_may_read_the_copy():
    store = warm(stored("a", 1), stored("b", 2))
    read: list[Any] = []
    store.mirror._report = lambda _: read.append((store.value("a"), store.mirror.items().keys()))
    store.mirror.apply(stored("a", 3, b"\xff"))
    assert read == [("v", {"a", "b"})]
    assert store.changes == []


def test_a_signals_handler_may_read_the_copy_that_its_thread_was_just_reading():
    store = warm(stored("a", 1), stored("b", 2))
    with store.mirror._writing:
        assert store.value("a") == "v"
        store.own("b", 3)
        assert store.mirror.items()["b"].value == "mine"


MANY = [stored(f"key-{number}", number, f'"value {number}"'.encode()) for number in range(1, 200)]
AMONG_MANY = [
    [],
    [stored("key-7", 300)],  # a key twice, in another part
    [stored("key-198", 300), stored("key-199", 301)],  # and in the same one
    [stored("key-7", 300, b"", headers=DELETED)],
    [stored("key-300", 300, b"\xff")],
    [stored("key-300", 300, b"\xff"), stored("key-300", 301)],
    [stored("key-300", 300, b'["mutable"]')],
    [stored("key-300", 300, headers={"Nats-TTL": "5s"})],
    [stored("key-300", 300, headers={"Mine": "x"}), stored("key-300", 301)],
    [stored("other", 300)],
]


@pytest.mark.parametrize("more", AMONG_MANY)
@pytest.mark.parametrize("config", [{}, {"max_age": 10**9}])
def test_what_arrives_together_becomes_what_it_does_one_by_one(more, config):
    together, singly = Store(patterns=("key-*",)), Store(patterns=("key-*",))
    for store in (together, singly):
        store.mirror.looked(info(**config), store.monotonic, store.monotonic)
        store.mirror.begin()
    together.mirror.arriving([*MANY, *more])
    for one in (*MANY, *more):
        singly.mirror.arriving([one._replace(headers={**one.headers, "Nats-Msg-Id": "1"})])
    for store in (together, singly):
        store.mirror.arrived()
    assert together.mirror.items() == singly.mirror.items()
    for fact in ("bytes", "revision", "undecodable"):
        assert getattr(together.mirror, fact) == getattr(singly.mirror, fact)
    assert set(together.mirror.subjects()) == set(singly.mirror.subjects())


def test_keys_outside_of_the_part_are_known_and_not_held():
    store = warm(stored("a.x", 1), stored("b.x", 2), patterns=("a.*", "*.y"))
    assert store.mirror.keys() == ["a.x"]
    assert set(store.mirror.subjects()) == {"$KV.b.a.x", "$KV.b.b.x"}
    assert "$KV.b.b.x" in store.mirror.subjects()


# --- time


def test_what_has_expired_by_the_servers_clock_is_absent():
    store = warm(stored("a", 1, headers={"Nats-TTL": "10s"}), stored("b", 2))
    store.local += timedelta(days=365)  # the reader's own clock says nothing
    store.monotonic += 9.9
    assert store.mirror.keys() == ["a", "b"]
    store.monotonic += 0.2
    assert store.value("a") is None
    assert store.mirror.keys() == ["b"]
    assert store.mirror.items().keys() == {"b"}


@pytest.mark.parametrize(
    ("config", "ttl", "lives"),
    [
        ({"max_age": 5 * 10**9}, None, 5),
        ({"max_age": 5 * 10**9}, "10s", 5),
        ({"max_age": 50 * 10**9}, "10s", 10),
        ({"max_age": 5 * 10**9}, "never", None),
        ({"subject_delete_marker_ttl": 30 * 10**9, "max_msgs_per_subject": 4}, "10s", 30),  # F15
        ({"subject_delete_marker_ttl": 30 * 10**9, "max_msgs_per_subject": 1}, "10s", 10),
        ({}, None, None),
    ],
)
def test_the_shorter_of_the_buckets_and_the_entrys_time_to_live_counts(config, ttl, lives):
    store = Store()
    store.mirror.looked(info(**config), store.monotonic, store.monotonic)
    store.mirror.replace([stored("a", 1, headers={} if ttl is None else {"Nats-TTL": ttl})])
    store.monotonic += 4.9 if lives is None else lives - 0.1
    assert store.value("a") == "v"
    store.monotonic += 0.2 if lives is not None else 10**6
    assert store.value("a") == (None if lives is not None else "v")


def test_a_new_time_to_live_of_the_bucket_asks_for_a_resync():
    store = warm(stored("a", 1))
    with pytest.raises(Interrupted):
        store.mirror.looked(info(max_age=10**9), store.monotonic, store.monotonic)
    store.mirror.lost()
    store.mirror.looked(info(max_age=10**9), store.monotonic, store.monotonic)


def test_the_servers_clock_is_followed_from_its_last_answer():
    store = warm(stored("a", 1, headers={"Nats-TTL": "10s"}))
    store.monotonic += 1
    store.mirror.looked(info(asked=T0 + timedelta(seconds=9)), store.monotonic, store.monotonic)
    assert store.value("a") == "v"
    store.monotonic += 1.1
    assert store.value("a") is None


# --- races, each brought about in the middle of a read


class Meanwhile(dict[str, Any]):
    """A dict in which something happens just after a look-up."""

    def __init__(self, held: dict[str, Any], happens: Any) -> None:
        super().__init__(held)
        self.happens = happens

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key, default)
        happens, self.happens = self.happens, lambda: None
        happens()
        return found


@pytest.mark.parametrize("part", ["own", "others", "entries"])
def test_a_confirmation_in_the_middle_of_a_read_does_not_show_what_was_before(part):
    store = warm(stored("a", 1, b'"before"'))
    store.own("a", 5)
    holder = store.mirror if part == "own" else store.mirror._state
    setattr(holder, part, Meanwhile(getattr(holder, part), lambda: store.mirror.apply(stored("a", 5, b'"mine"'))))
    assert store.value("a") == "mine"


@pytest.mark.parametrize("part", ["own", "others", "entries"])
def test_a_new_state_in_the_middle_of_a_read_does_not_show_what_was_before(part):
    store = warm(stored("a", 1, b'"before"'))
    store.own("a", 5)
    store.mirror.lost()
    holder = store.mirror if part == "own" else store.mirror._state
    setattr(holder, part, Meanwhile(getattr(holder, part), lambda: store.mirror.replace([stored("a", 5, b'"mine"')])))
    assert store.value("a") == "mine"


def test_a_new_state_is_seen_before_its_changes_are_told():
    store = warm(stored("a", 1, b'"before"'))
    seen: list[tuple[Any, int]] = []
    store.mirror.begin()
    store.mirror.arriving([stored("a", 2, b'"after"')])
    store.mirror.arrived(lambda: seen.append((store.value("a"), len(store.changes))))
    assert seen == [("after", 0)]
    assert len(store.changes) == 1


def test_a_new_state_is_seen_before_own_writes_are_let_go():
    store = warm(stored("a", 1))
    store.own("a", 5)
    store.mirror.lost()
    store.mirror._swapped = lambda _: store.changes.append(("own", None, None, len(store.mirror.own)))
    store.mirror.replace([stored("a", 5, b'"mine"')])
    assert ("own", None, None, 1) in store.changes
    assert store.mirror.own == {}
