"""When a snapshot is made anew: whenever something may have changed, and never otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from django_natskv.registry import _shown
from tests.registry_classes import Carrier, ShopConfig


@dataclass(frozen=True)
class Kept:
    value: bytes
    revision: int


class Copy:
    """Stands for a local cache, and what is found in it: a revision that goes up."""

    def __init__(self) -> None:
        self.entry = Kept(b'{"limit": 0}', 1)
        self.moment = object()
        self.key = "shop.ShopConfig"
        self.meanwhile: list[int] = []  # what is written by others while somebody reads

    def write(self, number: int) -> None:
        self.entry = Kept(b'{"limit": %d}' % number, number)
        self.moment = object()


class Place:
    bucket = "made-up"

    def __init__(self, copy: Copy) -> None:
        self.cache = copy

    def entry(self, key: str, otherwise: Any) -> Any:
        found = self.cache.entry
        while self.cache.meanwhile:
            self.cache.write(self.cache.meanwhile.pop())
        return found

    def note(self, key: str, entry: Any) -> bool:
        return entry is not None

    def entries(self, otherwise: Any) -> Any:
        return {self.cache.key: self.entry("", None)}


@pytest.fixture
def copy(monkeypatch):
    made = Copy()
    place = Place(made)
    monkeypatch.setattr(_shown, "place_of", lambda declaration: place)
    return made


def test_what_changes_in_the_middle_of_a_read_is_seen_by_the_next_one(copy):
    current = _shown.Current()
    assert current.__get__(None, ShopConfig).limit == 0
    copy.write(2)
    copy.meanwhile = [3]
    assert current.__get__(None, ShopConfig).limit == 2
    assert current.__get__(None, ShopConfig).limit == 3


def test_the_same_goes_for_the_objects_of_a_model(copy):
    shown = _shown.Collection()
    copy.key = "shop.Carrier.dhl"
    assert [one.revision for one in shown.all(Carrier).values()] == [1]
    copy.write(2)
    copy.meanwhile = [3]
    assert [one.revision for one in shown.all(Carrier).values()] == [2]
    assert [one.revision for one in shown.all(Carrier).values()] == [3]


def test_nothing_is_made_while_nothing_changes(copy, monkeypatch):
    current = _shown.Current()
    first = current.__get__(None, ShopConfig)
    monkeypatch.setattr(_shown, "make", lambda *arguments: pytest.fail("made again"))
    assert all(current.__get__(None, ShopConfig) is first for _ in range(3))
    copy.moment = object()  # something else in the bucket
    assert current.__get__(None, ShopConfig) is first


def test_a_revision_that_a_server_gives_once_more_after_a_crash_is_another_one(copy):  # F2
    current = _shown.Current()
    assert current.__get__(None, ShopConfig).limit == 0
    copy.entry, copy.moment = Kept(b'{"limit": 9}', 1), object()
    again = current.__get__(None, ShopConfig)
    assert (again.limit, again.revision) == (9, 1)
    copy.entry, copy.moment = Kept(b'{"limit": 9}', 1), object()  # an own write, as the server has it
    assert current.__get__(None, ShopConfig) is again
