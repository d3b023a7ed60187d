"""Keys of any kind, under prefixes and versions of any kind, on a real server: none is, nor touches, another."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache

pytestmark = pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")

PREFIXES = ["", "_", "a", "a.b", "*", ">", "==made", "p" * 300, "q" * 300, "é", "1"]
VERSIONS = [1, "1.k", "", "_", "x" * 300, "==made", "*", -1]
# fmt: off
KEYS = [
    "", ".", "..", "a.", ".a", "a..b", "*", ">", "a.*", "a.>", "$KV", " ", "\n", "\0", "\ud800", "é", "e\u0301", "=",
    "=20", "_", "=5F", "==clear", "_.==clear", "==lock.l", "==chunk.a.0", "==made", "==made.x", "==sha256.00",
    "a" * 200, "a" * 201, "a" * 50_000, "b" * 50_000, "=41", "A", "a:b", "a b", "a/b", "a\\b", "\U0001f600", "true",
    "None", "0", "-1", "1.0", "%20", "\x7f", "\u2028", "\r\n", "a\tb", "é" * 70, "é" * 67, "\udfff" * 70, "." * 300,
]
# fmt: on


@pytest.mark.slow
def test_no_key_is_anothers_and_clear_takes_one_prefix(natskv: Any, bucket_name: str):
    numbers = itertools.count()
    everything: dict[tuple[str, Any], dict[str, int]] = {}
    for prefix, version in itertools.product(PREFIXES, VERSIONS):
        data = {key: next(numbers) for key in KEYS}
        assert NatsKVCache(bucket_name, {"KEY_PREFIX": prefix}).set_many(data, version=version) == []
        everything[prefix, version] = data
    for (prefix, version), data in everything.items():
        assert NatsKVCache(bucket_name, {"KEY_PREFIX": prefix}).get_many(KEYS, version=version) == data
    one = NatsKVCache(bucket_name, {"KEY_PREFIX": "a"})
    assert sorted(one.keys(version=1)) == sorted(KEYS)
    one.delete_pattern("*", version=1)
    assert one.get_many(KEYS, version="1.k") == everything["a", "1.k"]
    one.clear()
    for (prefix, version), data in everything.items():
        cache = NatsKVCache(bucket_name, {"KEY_PREFIX": prefix})
        assert cache.get_many(KEYS, version=version) == ({} if prefix == "a" else data)


@pytest.mark.slow
def test_each_operation_takes_any_key(cache: Any):
    for key in KEYS:
        assert cache.add(key, 1)
        assert cache.incr(key) == 2
        assert cache.touch(key, 10_000)
        assert 9_900 < cache.ttl(key) < 10_010  # its clock is known to half of the time that the server took to tell it
        assert cache.incr_version(key) == 2
        assert cache.get(key, version=2) == 2
        assert cache.keys(version=2) == [key]
        assert cache.get_entry(key, version=2).key == key
        assert cache.delete(key, version=2)
        assert cache.get_or_set(key, lambda: 3) == 3
        cache.delete_many([key])
        assert not cache.has_key(key)
