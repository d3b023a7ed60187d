"""The backend of django-constance: shared by all instances, read from memory, and never in the way."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from constance import signals

from django_natskv import connections
from django_natskv.contrib.constance import NatsKVBackend
from django_natskv.exceptions import BucketNotFound, OperationalError
from tests.fix_servers import free_port
from tests.fix_waiting import eventually

BUCKET = "constance-tests"


@pytest.fixture
def bucket(natskv: Any, settings: Any) -> Any:
    """The bucket as another program sees it, absent to begin with."""
    settings.CONSTANCE_NATSKV_BUCKET = BUCKET
    # A copy that takes a busy machine long is waited for, or the first reads would find nothing.
    settings.NATSKV = {"default": {**natskv, "LOCAL_CACHE": {"WAIT": 20.0}}}
    context = connections["default"].kv()
    with contextlib.suppress(BucketNotFound):
        context.delete_bucket(BUCKET)
    yield lambda: context.open_bucket(BUCKET, codec="json")
    with contextlib.suppress(BucketNotFound):
        context.delete_bucket(BUCKET)


def test_a_read_makes_nothing_and_the_first_write_makes_the_bucket(bucket, do):
    backend = NatsKVBackend()
    assert do(backend.get, "A") is None
    assert do(backend.mget, ["A", "B"]) == {}
    assert BUCKET not in connections["default"].kv().bucket_names()
    do(backend.set, "A", [1])
    assert bucket().get("A").value == {"__type__": "default", "__value__": [1]}


def test_instances_share_one_copy_and_see_what_they_write_at_once(bucket, do):
    backends = [NatsKVBackend() for _ in range(4)]  # as constance makes
    for number in range(20):
        do(backends[number % 4].set, "A", number)
        assert [do(backend.get, "A") for backend in backends] == [number] * 4
    assert len({id(backend._place.cache) for backend in backends}) == 1


def test_what_another_program_writes_arrives(bucket, do):
    backend = NatsKVBackend()
    do(backend.set, "A", 1)
    bucket().put("A", {"__type__": "default", "__value__": "theirs"})
    eventually(lambda: do(backend.get, "A") == "theirs")
    value = do(backend.mget, ["A", "B"])
    assert value == {"A": "theirs"}


def test_any_name_is_a_key_and_values_are_the_readers_own(bucket, do):
    backend = NatsKVBackend()
    do(backend.set, "a name.with ü", {"list": []})
    do(backend.get, "a name.with ü")["list"].append(1)
    assert do(backend.get, "a name.with ü") == {"list": []}
    assert bucket().keys() == ["a=20name=2Ewith=20=C3=BC"]


def test_what_cannot_be_read_is_not_there_and_is_told(bucket, do, caplog):
    backend = NatsKVBackend()
    do(backend.set, "A", 1)
    do(backend.set, "B", 2)
    for kind in ("unheard of", "decimal", "date"):
        bucket().put("A", {"__type__": kind, "__value__": ["1"]})
        eventually(lambda: do(backend.mget, ["A", "B"]) == {"B": 2})
        eventually(lambda: "The setting A in bucket constance-tests cannot be read" in caplog.text)
        assert do(backend.get, "A") is None
        assert caplog.text.count("cannot be read") == 1  # and not at every read
        do(backend.set, "A", 1)
        caplog.clear()


def test_constance_is_told_of_a_change_with_old_and_new(bucket, do):
    told = []

    def hear(sender: Any, key: str, old_value: Any, new_value: Any, **_: Any) -> None:
        told.append((key, old_value, new_value))

    signals.config_updated.connect(hear)
    try:
        do(NatsKVBackend().set, "A", 1)
        do(NatsKVBackend().set, "A", 2)
    finally:
        signals.config_updated.disconnect(hear)
    assert told == [("A", None, 1), ("A", 1, 2)]


def test_while_nothing_listens_there_is_nothing_and_a_write_raises(settings, do):
    nobody = {"SERVERS": [f"nats://127.0.0.1:{free_port()}"], "LOCAL_CACHE": {"WAIT": 0.2}}
    settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"]}, "other": nobody}
    settings.CONSTANCE_NATSKV_CONNECTION = "other"
    assert do(NatsKVBackend().get, "A") is None
    assert do(NatsKVBackend().mget, ["A"]) == {}
    with pytest.raises(OperationalError):
        do(NatsKVBackend().set, "A", 1)
