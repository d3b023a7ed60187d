"""What leaves no marker, and of which a server tells nobody, is told all the same (F15)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv.runner import Runner
from tests.fix_facade import ConnectKV
from tests.fix_waiting import eventually
from tests.integration.watching import Told, ask, complaints, held, purge, ready

NOTICED = 6.0  # seconds: two audits


@pytest.fixture
def connection(connect_kv: ConnectKV) -> kv.Connection:
    return connect_kv()


@pytest.fixture
def make(connection: kv.Connection, bucket_name: str) -> Any:
    def make(**config: Any) -> Any:
        return connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory", **config})

    return make


@pytest.fixture(params=[None, ["a.>", "b"]], ids=["whole", "narrowed"])
def watching(request: pytest.FixtureRequest) -> Any:
    def begin(bucket: Any, **options: Any) -> Told:
        told = Told()
        ready(bucket.watch(told, keys=request.param, **options))
        return told

    return begin


def put_with_ttl(connection: kv.Connection, bucket: str, key: str, ttl: str) -> None:
    """Write over whatever is there with a time to live, as another client would."""

    def write() -> Any:
        yield Exchange(connection._requests, f"$KV.{bucket}.{key}", b'"short"', {"Nats-TTL": ttl})

    Runner(connection._requests.driver, 5).call(write())


def test_a_purge_by_filter(make, watching, connection, caplog):
    bucket = make()
    for key in ("a.1", "a.2", "b"):
        bucket.put(key, 1)
    last = bucket.get("a.2").revision
    told = watching(bucket)
    purge(connection, bucket.name, "a.>")
    eventually(lambda: told.values == {"b": 1}, NOTICED)
    gone = told.entries[-1]
    assert {entry.key for entry in told.entries[3:]} == {"a.1", "a.2"}
    assert gone.operation == "purge"
    assert last in {entry.revision for entry in told.entries[3:]}
    assert abs((datetime.now(UTC) - gone.created).total_seconds()) < 10
    assert not complaints(caplog)


def test_a_purge_of_everything_and_thousands_at_once(make, watching, connection):
    bucket = make()
    for number in range(300):
        bucket.put(f"a.{number}", 1)
    told = watching(bucket)
    purge(connection, bucket.name, ">")
    eventually(lambda: not told.held, NOTICED)
    bucket.put("b", 1)
    eventually(lambda: told.values == {"b": 1})


def test_so_many_keys_that_a_replay_costs_less(make, watching, connection, monkeypatch, caplog):
    monkeypatch.setattr("django_natskv.kv._session.MANY", 10)
    bucket = make()
    for number in range(30):
        bucket.put(f"a.{number}", 1)
    bucket.put("b", 1)
    told = watching(bucket)
    purge(connection, bucket.name, "a.>")
    eventually(lambda: told.values == {"b": 1}, NOTICED)
    assert "30 keys have vanished" in complaints(caplog)[0]


def test_purged_tombstones(make, watching):
    bucket = make()
    bucket.put("b", 1)
    bucket.put("a.1", 1)
    told = watching(bucket)
    bucket.delete("a.1")
    bucket.purge_deletes()
    bucket.put("b", 2)
    eventually(lambda: told.values == {"b": 2}, NOTICED)


@pytest.mark.parametrize("ttl", ["1", "1s", "0h0m1s"])
def test_an_expiry(make, watching, connection, ttl):
    bucket = make()
    bucket.put("b", 1)
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", ttl)
    eventually(lambda: told.values == {"a.1": "short", "b": 1})
    eventually(lambda: told.values == {"b": 1}, NOTICED)
    assert told.entries[-1].operation == "purge"


def test_an_expiry_that_uncovers_an_older_value(make, watching, connection):
    bucket = make(history=5)
    first = bucket.put("a.1", "old")
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: told.values == {"a.1": "short"})
    eventually(lambda: told.held == {"a.1": ("old", first)}, NOTICED)


def test_an_expiry_that_uncovers_one_that_expires_too(make, watching, connection):
    bucket = make(history=5)
    bucket.put("a.1", "old")
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "4s")
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: told.held == held(bucket) and told.values == {"a.1": "short"})
    eventually(lambda: told.values == {"a.1": "old"}, 10)
    assert [value for _, value in told.brief][-3:] == ["short", "short", "old"]


def test_an_expiry_before_which_our_clock_runs_ahead(make, connection, monkeypatch):
    # The server's clock counts: by ours, the value would be gone when it arrives.
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, tz)

    for module in ("_session", "_survey"):
        monkeypatch.setattr(f"django_natskv.kv.{module}.datetime", Ahead)
    bucket = make(history=5)
    bucket.put("a.1", "old")
    told = Told()
    ready(bucket.watch(told))
    put_with_ttl(connection, bucket.name, "a.1", "2s")
    eventually(lambda: told.values == {"a.1": "short"})
    eventually(lambda: told.values == {"a.1": "old"}, 3.2, "the first look was in time")


def test_the_end_of_a_buckets_time_to_live(make, watching):
    bucket = make(ttl_ms=1_000)
    bucket.put("a.1", 1)
    told = watching(bucket)
    assert told.values == {"a.1": 1}
    eventually(lambda: not told.held, NOTICED)


def test_an_expiry_with_a_limit_marker(make, watching, connection):
    bucket = make(limit_marker_ttl_ms=1_000, history=5)
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: told.values == {"a.1": "short"})
    eventually(lambda: not told.held, NOTICED)
    assert told.entries[-1].operation == "purge"


def test_an_eviction(make, watching, connection):
    bucket = make()
    config = ask(connection, f"STREAM.INFO.KV_{bucket.name}")["config"]
    ask(connection, f"STREAM.UPDATE.KV_{bucket.name}", {**config, "max_msgs": 3, "discard": "old"})
    for key in ("a.1", "a.2", "b"):
        bucket.put(key, 1)
    told = watching(bucket)
    bucket.put("a.3", 1)
    eventually(lambda: told.values == {"a.2": 1, "b": 1, "a.3": 1}, NOTICED)


def test_a_key_that_goes_while_another_comes(make, watching, connection):
    # The number of keys is the same as before.
    bucket = make()
    for key in ("a.1", "b"):
        bucket.put(key, 1)
    told = watching(bucket)
    purge(connection, bucket.name, "a.1")
    bucket.put("a.2", 1)
    eventually(lambda: told.values == {"a.2": 1, "b": 1}, NOTICED)


def test_an_expired_marker_is_nothing_new(make, watching):
    bucket = make()
    bucket.put("a.1", 1)
    bucket.put("b", 1)
    told = watching(bucket)
    bucket.purge("a.1", marker_ttl_ms=1_000)
    eventually(lambda: told.brief[-1] == ("a.1", "purge"))
    count = len(told.entries)
    eventually(lambda: bucket.history("a.1") == [], NOTICED)
    bucket.put("b", 2)
    eventually(lambda: told.values == {"b": 2}, NOTICED)
    assert len(told.entries) == count + 1
