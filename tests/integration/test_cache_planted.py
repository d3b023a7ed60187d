"""What others put into the bucket of a cache: nothing of it runs, and nothing of it raises."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest


def headers(stored: Any, key: str) -> dict[str, str]:
    return dict(stored().get(key).headers)


class Boom:
    ran = False

    def __reduce__(self) -> Any:
        return (setattr, (Boom, "ran", True))


def test_a_pickle_that_was_planted_does_not_run(cache, stored, caplog, bucket_name):
    cache.set("k", [1])
    form = headers(stored, "_.1.k")
    bomb = pickle.dumps(Boom())
    genuine = stored().get("_.1.k").value
    with caplog.at_level(logging.WARNING, "django_natskv.cache"):
        for data in (bomb, b"\0" * 32 + bomb, genuine[:32] + bomb, b"", b"\xff"):
            stored().put("_.1.k", data, headers=form)
            assert cache.get("k", "default") == "default"
            assert not cache.has_key("k")
        stored().put("_.1.k", bomb)
        assert cache.get("k", "default") == "default"
        assert cache.ttl("k") == 0.0
        for operation in (cache.touch, cache.persist, cache.get_entry, cache.delete):
            assert not operation("k")
        assert stored().get("_.1.k") is None  # delete removed it
        stored().put("_.1.k", bomb)
        assert not cache.touch("k", -1)
        stored().put("_.1.k", bomb)
    assert not Boom.ran
    assert cache.plain.unreadable >= 6
    told = [record.getMessage() for record in caplog.records if record.name == "django_natskv.cache"]
    assert len([text for text in told if bucket_name in text]) == 1, told
    assert cache.add("k", 1)
    assert cache.get("k") == 1


def test_a_value_moved_to_another_key_does_not_verify(cache, stored):
    cache.set("a", [1])
    entry = stored().get("_.1.a")
    stored().put("_.1.b", entry.value, headers=dict(entry.headers))
    assert cache.get("b") is None
    assert cache.get("a") == [1]


@pytest.mark.parametrize(
    "rubbish",
    [
        {"Natskv-TTL": "soon"},
        {"Natskv-Expires": "never"},
        {"Natskv-TTL": "nan"},
        {"Natskv-TTL": "1e300"},
        {"Natskv-Expires": "inf"},
        {"Natskv-Expires": "-1e300"},
        {"Natskv-Expires": "9e12"},
        {"Natskv-TTL": "60", "Natskv-Kept": "nan"},
        {"Natskv-TTL": "60", "Natskv-Kept": "1e300"},
        {"Natskv-TTL": "60", "Natskv-Kept": "whatever"},
        {"Natskv-Chunks": "a." + "1" * 5_000 + ".1"},
        {"Natskv-Chunks": "a" * 1_500 + ".1.1"},
        {"Natskv-Chunks": "x"},
        {"Natskv-Chunks": "a.99999999999999.1"},
        {"Natskv-Chunks": "a.0.0"},
        {"Natskv-Chunks": "a.1.1"},
        {"Natskv-Chunks": "../.1.1"},
        {"Natskv-Format": "pickle+rot13"},
        {"Natskv-Key": "==="},
    ],
    ids=lambda rubbish: str(rubbish)[:40],
)
@pytest.mark.parametrize("storage", ["memory", "file"])
def test_rubbish_from_others_is_a_miss_or_what_it_says(make_cache, stored, rubbish, storage):
    cache = make_cache(BUCKET={"storage": storage})
    cache.set("warm", 1)

    def plant() -> None:
        stored().put("_.1.k", b"5", headers=rubbish)

    plant()
    value = cache.get("k")
    assert value in (None, 5)
    found = value == 5
    assert cache.get_many(["k"]) == ({"k": 5} if found else {})
    assert cache.has_key("k") is found
    assert (cache.get_entry("k") is not None) is found
    assert (cache.ttl("k") != 0.0) is found
    cache.keys()
    assert cache.touch("k", 100) is found
    plant()
    assert cache.delete("k") is found
    plant()
    assert cache.set_many({"k": 7}, 10) == []
    plant()
    assert cache.add("k", 6) is not found
    plant()
    cache.set("k", 6, 50)  # shorter than any of these says
    assert cache.get("k") == 6
