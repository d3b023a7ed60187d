"""The store of a local cache in mode "invalidate": what may be kept, and for how long."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_natskv.kv import Entry, Operation, codecs
from django_natskv.kv._core import Core
from django_natskv.kv._kept import OVERHEAD, Clock, Keeper, special
from django_natskv.kv._lru import TRUST, Lru, __file__ as lru_file
from django_natskv.kv._nats.config import BucketInfo

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def info(last: int = 10, subjects: int = 3, size: int = 300, **config: Any) -> BucketInfo:
    return BucketInfo("b", config, T0, size, 1, last, subjects, asked=T0)


def entry(key: str, revision: int, value: Any = "v") -> Entry:
    return Entry("b", key, value, revision, T0, Operation.PUT)


class Store:
    def __init__(self, most: int = 10**6) -> None:
        wire: Any = None
        self.now = 1_000.0
        keeper = Keeper(Core(wire, info(), codecs.resolve("json")), Clock(lambda: self.now, lambda: T0))
        self.lru = Lru(keeper, most)
        self.lru.switch(on=True)

    def read(self, key: str, found: Entry | None) -> None:
        self.lru.end(self.lru.begin(key, self.now), found)

    def find(self, key: str) -> Any:
        held = self.lru.find(key, self.now)
        return "nothing" if held is None else self.lru.hand_out(held)


@pytest.fixture
def store():
    return Store()


def test_what_was_read_is_kept_and_absence_too(store):
    store.read("a", entry("a", 1))
    store.read("b", None)
    assert store.find("a").value == "v"
    assert store.find("b") is None
    assert store.find("c") == "nothing"
    assert store.lru.items(store.now).keys() == {"a"}


def test_a_peek_gives_what_is_held_if_all_of_it_is(store):
    found = entry("a", 1)
    store.read("a", found)
    assert store.lru.peek(["a", "b"], store.now) is None
    store.read("b", None)
    assert store.lru.peek(["b", "a"], store.now) == [None, found]
    assert store.lru.peek(["b", "a"], store.now + TRUST) is None


@pytest.mark.parametrize("found", [entry("a", 1), None])
def test_a_change_drops_what_is_held(store, found):
    store.read("a", found)
    store.lru.changed("a", 2)
    assert store.find("a") == "nothing"
    assert store.lru.bytes == 0


def test_a_change_that_was_read_already_drops_nothing(store):
    store.read("a", entry("a", 2))
    store.lru.changed("a", 2)
    assert store.find("a").revision == 2


def test_a_read_that_a_change_overtook_is_not_kept(store):
    reading = store.lru.begin("a", store.now)
    store.lru.changed("a", 2)
    store.lru.end(reading, entry("a", 1))
    assert store.find("a") == "nothing"


def test_an_absence_that_a_change_overtook_is_not_kept(store):
    reading = store.lru.begin("a", store.now)
    store.lru.changed("a", 2)
    store.lru.end(reading, None)
    assert store.find("a") == "nothing"


def test_a_read_that_found_the_change_is_kept(store):
    reading = store.lru.begin("a", store.now)
    store.lru.changed("a", 2)
    store.lru.end(reading, entry("a", 2))
    assert store.find("a").revision == 2


@pytest.mark.parametrize("back", [False, True])
def test_a_read_across_an_interruption_is_not_kept(store, back):
    store.read("held", entry("held", 1))
    reading = store.lru.begin("a", store.now)
    store.lru.switch(on=False)
    if back:
        store.lru.switch(on=True)
    store.lru.end(reading, entry("a", 1))
    assert store.find("a") == store.find("held") == "nothing"


def test_nothing_is_kept_of_a_read_that_began_while_the_watch_was_off(store):
    store.lru.switch(on=False)
    reading = store.lru.begin("a", store.now)
    store.lru.switch(on=True)
    store.lru.end(reading, entry("a", 1))
    assert store.find("a") == "nothing"


def test_reads_leave_nothing_behind(store):
    store.lru.give_up(store.lru.begin("a", store.now))
    first, second = store.lru.begin("a", store.now), store.lru.begin("a", store.now)
    store.lru.end(second, None)
    store.lru.give_up(first)
    assert store.lru._readings == {}


def test_the_size_is_bounded_and_what_is_used_stays(store):
    store = Store(most=3_500)
    for number in range(10):
        store.read(f"k{number}", entry(f"k{number}", number + 1, "x" * 20))
        store.find("k0")
        assert store.lru.bytes <= 3_500
    assert store.find("k0").revision == 1
    assert store.find("k9").revision == 10
    for number in range(100):
        key = f"more{number}"
        store.read(key, entry(key, 1, "x" * 20))
        for held in list(store.lru._held):
            store.find(held)
        assert store.find(key) != "nothing"
        assert store.lru.bytes <= 3_500
    assert store.lru.bytes == sum(held.size for held in store.lru._held.values())


def test_what_is_larger_than_the_bound_is_not_kept():
    store = Store(most=1_000)
    store.read("a", entry("a", 1, "x" * 900))
    assert store.find("a") == "nothing"
    assert len(store.lru) == 0


def test_a_value_is_trusted_for_a_while_without_proof(store):
    store.read("a", entry("a", 1))
    store.now += TRUST - 0.1
    assert store.find("a") != "nothing"
    store.now += 0.2
    assert store.find("a") == "nothing"


def test_a_quiet_bucket_proves_that_nothing_vanished(store):
    store.lru.looked(info(), store.now, store.now)
    store.now += 1
    store.read("a", entry("a", 1))
    for _ in range(10):
        store.now += 3
        store.lru.looked(info(), store.now, store.now)
        assert store.find("a") != "nothing"
    store.now += TRUST + 0.1
    assert store.find("a") == "nothing"


def test_what_vanished_without_a_marker_drops_everything(store):
    store.lru.looked(info(), store.now, store.now)
    store.read("a", entry("a", 1))
    reading = store.lru.begin("b", store.now)
    store.lru.looked(info(subjects=2, size=200), store.now, store.now)  # a filtered purge: F15
    store.lru.end(reading, entry("b", 2))
    assert store.find("a") == store.find("b") == "nothing"


def test_what_was_read_while_the_bucket_was_looked_at_is_not_proven_by_that(store):
    store.lru.end(store.lru.begin("a", store.now - 0.5), entry("a", 1))
    for _ in range(4):
        store.lru.looked(info(), store.now - 1, store.now)
        store.now += 2
    assert store.find("a") == "nothing"


def test_a_proof_is_as_old_as_its_question(store):
    store.lru.looked(info(), store.now, store.now)
    store.read("a", entry("a", 1))
    store.now += TRUST + 1
    store.lru.looked(info(), store.now - 2, store.now)
    assert store.find("a") != "nothing"
    store.now += TRUST - 1
    assert store.find("a") == "nothing"


def test_in_a_busy_bucket_a_value_is_read_again_now_and_then(store):
    store.lru.looked(info(last=10), store.now, store.now)
    store.read("a", entry("a", 1))
    for last in (11, 12, 13):
        assert store.find("a") != "nothing"
        store.now += 2
        store.lru.changed("other", last)
        store.lru.looked(info(last=last, size=300 + last), store.now, store.now)
        store.lru.looked(info(last=last + 1, size=300 + last), store.now, store.now)  # which the watch has yet to bring
    assert store.find("a") == "nothing"


def test_what_has_expired_is_absent(store):
    store.read("a", special(entry("a", 1), 3, timedelta(seconds=2)))
    store.lru.looked(info(), store.now, store.now)
    assert store.find("a").value == "v"
    store.now += 2.1
    assert store.find("a") is None
    assert store.lru.items(store.now) == {}


def test_wherever_a_signals_handler_breaks_in_it_may_read_and_write_too() -> None:
    """Handlers run behind calls: at each of them in turn, until one does not come to be called."""
    for place in itertools.count():
        store = Store(most=4 * (OVERHEAD + 2))
        for key in "abcd":
            store.read(key, entry(key, 1))
        newest, calls = 1, itertools.count()

        def handler(store: Store = store) -> None:
            nonlocal newest
            newest = 5
            store.lru.changed("new", newest)
            for key in ("new", "e", "f", "g"):  # which lets go of all that was there
                store.read(key, entry(key, newest))

        def broken_into(frame: Any, event: str, _: Any, place: int = place, calls: Any = calls) -> None:
            if event in ("call", "c_return") and frame.f_code.co_filename == lru_file and next(calls) == place:
                sys.setprofile(None)
                handler()

        sys.setprofile(broken_into)
        try:
            reading = store.lru.begin("new", store.now)
            store.lru.end(reading, entry("new", newest))
        finally:
            sys.setprofile(None)
        assert store.lru.bytes == sum(held.size for held in store.lru._held.values())
        assert store.lru.bytes <= 4 * (OVERHEAD + 2)
        assert not store.lru._readings
        held = store.lru.find("new", store.now)
        assert held is None or (held.entry is not None and held.entry.revision == newest), place
        if newest == 1:
            break
    assert place > 5
