"""What leaves no marker, and of which a server tells nobody, is told all the same (F15)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.kv._known import Expiries
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv._session import EXPIRY_GRACE
from django_natskv.kv.runner import Runner
from tests.fix_facade import ConnectKV
from tests.fix_waiting import eventually
from tests.integration.watching import Told, ask, complaints, held, patient, purge, ready

NOTICED = 30.0  # seconds: two audits are 6, and the machine may hold up all who take part


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    patient(monkeypatch)


@pytest.fixture
def connection(connect_kv: ConnectKV) -> kv.Connection:
    return connect_kv(connect_timeout=30.0, request_timeout=30.0)


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

    Runner(connection._requests.driver, 30).call(write())


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
    assert not complaints(caplog, bucket)


def test_a_purge_of_everything_and_thousands_at_once(make, watching, connection):
    bucket = make()
    for number in range(300):
        bucket.put(f"a.{number}", 1)
    told = watching(bucket)
    purge(connection, bucket.name, ">")
    eventually(lambda: not told.held, NOTICED)
    bucket.put("b", 1)
    eventually(lambda: told.values == {"b": 1}, NOTICED)


def test_so_many_keys_that_a_replay_costs_less(make, watching, connection, monkeypatch, caplog):
    monkeypatch.setattr("django_natskv.kv._session.MANY", 10)
    bucket = make()
    for number in range(30):
        bucket.put(f"a.{number}", 1)
    bucket.put("b", 1)
    told = watching(bucket)
    purge(connection, bucket.name, "a.>")
    eventually(lambda: told.values == {"b": 1}, NOTICED)
    assert "30 keys have vanished" in complaints(caplog, bucket)[0]


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
    eventually(lambda: ("a.1", "short") in told.brief, NOTICED)
    eventually(lambda: told.values == {"b": 1}, NOTICED)
    assert told.entries[-1].operation == "purge"


def test_an_expiry_that_uncovers_an_older_value(make, watching, connection):
    bucket = make(history=5)
    first = bucket.put("a.1", "old")
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: ("a.1", "short") in told.brief, NOTICED)
    eventually(lambda: told.held == {"a.1": ("old", first)}, NOTICED)


def test_an_expiry_that_uncovers_one_that_expires_too(make, watching, connection):
    bucket = make(history=5)
    bucket.put("a.1", "old")
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "4s")
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: ("a.1", "short") in told.brief, NOTICED)
    eventually(lambda: told.values == {"a.1": "old"} and told.held == held(bucket), NOTICED)
    assert [value for _, value in told.brief][-3:] == ["short", "short", "old"]


def test_an_expiry_before_which_our_clock_runs_ahead(make, connection, monkeypatch):
    # The server's clock counts: by ours, the value would be gone when it arrives.
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(datetime.now(UTC).timestamp() + 3600, tz)

    for module in ("_session", "_survey"):
        monkeypatch.setattr(f"django_natskv.kv.{module}.datetime", Ahead)
    dates: list[float] = []
    whole = Expiries.set

    def noting(self: Any, subject: str, revision: int, due: float | None) -> None:
        if due is not None and f".{bucket.name}." in subject:
            dates.append(due)
        whole(self, subject, revision, due)

    monkeypatch.setattr(Expiries, "set", noting)
    bucket = make(history=5)
    bucket.put("a.1", "old")
    told = Told()
    ready(bucket.watch(told))
    before = time.monotonic()
    put_with_ttl(connection, bucket.name, "a.1", "2s")
    eventually(lambda: told.values == {"a.1": "old"} and ("a.1", "short") in told.brief, NOTICED)
    # Not when it came, as it would be if it was taken to be over by then.
    assert dates[0] > before + 2 + EXPIRY_GRACE - 0.1


def test_the_end_of_a_buckets_time_to_live(make, watching):
    bucket = make(ttl_ms=1_000)

    def begun() -> Told | None:
        bucket.put("a.1", 1)
        told: Told = watching(bucket)
        return told if told.brief == [("a.1", 1)] else None  # it may be over before the watch has begun

    told = eventually(begun, NOTICED)
    assert told is not None
    eventually(lambda: not told.held, NOTICED)


def test_an_expiry_with_a_limit_marker(make, watching, connection):
    bucket = make(limit_marker_ttl_ms=1_000, history=5)
    told = watching(bucket)
    put_with_ttl(connection, bucket.name, "a.1", "1s")
    eventually(lambda: ("a.1", "short") in told.brief, NOTICED)
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
    eventually(lambda: told.brief[-1] == ("a.1", "purge"), NOTICED)
    count = len(told.entries)
    eventually(lambda: bucket.history("a.1") == [], NOTICED)
    bucket.put("b", 2)
    eventually(lambda: told.values == {"b": 2}, NOTICED)
    assert len(told.entries) == count + 1
