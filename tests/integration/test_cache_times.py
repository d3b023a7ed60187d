"""Times of a cache: exact to the fraction of a second, by the server's clock, and none that is no number."""

from __future__ import annotations

import math
import time
from decimal import Decimal
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.exceptions import InvalidTTL
from tests.fix_waiting import eventually


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def test_a_fraction_of_a_second_is_a_timeout(cache):
    entry = eventually(lambda: cache.set("k", 1, 0.4) or cache.get_entry("k"), 30)  # read in time
    assert (entry.expires - entry.created).total_seconds() == pytest.approx(0.4)
    eventually(lambda: not cache.has_key("k"))
    assert cache.get_many(["k"]) == {}
    assert cache.add("k", 2, 100)
    assert cache.get("k") == 2


def test_the_server_lets_go_of_what_has_expired_too(cache, stored):
    cache.set("k", 1, 0.1)
    cache.set_many({"l": 1}, 0.1)
    cache.set("never", 1, None)
    cache.set("long", 1, 10**12)
    eventually(lambda: sorted(stored().keys()) == ["_.1.long", "_.1.never"], 30)
    assert cache.ttl("long") is None


def test_what_keeps_its_end_keeps_it_exactly(cache):
    cache.set("k", 1, 50.25)
    ends = cache.get_entry("k").expires
    for _ in range(20):
        cache.incr("k")
    assert cache.get_entry("k").expires == ends
    assert cache.incr_version("k") == 2
    assert cache.get_entry("k", version=2).expires == ends
    assert cache.get("k", version=2) == 21
    assert cache.get("k") is None


def test_the_servers_clock_counts_and_not_ours(plain, monkeypatch):
    plain.set("k", 1, 1_000)
    plain.set("gone", 1, 0.05)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    newcomer = NatsKVCache(plain._location, {"OPTIONS": {"COMPRESS_MIN": 7}})  # a place of its own
    assert newcomer._place is not plain._place
    assert newcomer.get("k") == 1
    assert 900 < (newcomer.ttl("k") or 0) <= 1_010  # known to half of the time that the server took to tell its own
    eventually(lambda: newcomer.get("gone") is None)


@pytest.mark.parametrize("nan", [math.nan, "nan", Decimal("NaN")], ids=repr)
def test_a_timeout_that_is_not_a_number_is_refused(cache, nan):
    for write in (cache.set, cache.add, cache.get_or_set):
        with pytest.raises(InvalidTTL, match="NaN"):
            write("k", 1, nan)
    for write in (cache.touch, cache.expire):
        with pytest.raises(ValueError, match="NaN"):
            write("k", nan)
    with pytest.raises(ValueError, match="NaN"):
        cache.set_many({"k": 1}, nan)
    assert cache.get("k") is None


@pytest.mark.parametrize(
    "long", [math.inf, 10**400, 1e300, 10**11], ids=["infinite", "no float", "1e300", "3,000 years"]
)
def test_a_timeout_that_is_absurdly_long_is_never(cache, long):
    cache.set("k", 1, long)
    assert cache.ttl("k") is None
    cache.set("k", 1, 100)
    assert cache.touch("k", long)
    assert cache.ttl("k") is None
    for past in (-math.inf, -(10**400)):
        cache.set("k", 1, past)
        assert cache.get("k") is None
