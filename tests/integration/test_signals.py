"""Django's signals of real connections and local caches."""

from __future__ import annotations

import threading

import pytest

from django_natskv import connections, kv, signals
from tests.fix_local import live
from tests.fix_waiting import eventually


class Heard:
    """What the signals told of the default connection, in order: what others tell is of tests that are over."""

    def __init__(self):
        self.all = []
        self.threads = set()

    def receiver(self, name):
        def receive(sender, signal, **arguments):
            self.threads.add(threading.current_thread().name)
            self.all.append((name, arguments))

        return receive

    def of(self, name):
        ours = connections["default"]
        return [arguments for kind, arguments in list(self.all) if kind == name and arguments["connection"] is ours]

    @property
    def changes(self):
        return [
            (one["key"], one["old"] and one["old"].value, one["new"] and one["new"].value, one["revision"])
            for one in self.of("entry_changed")
        ]


@pytest.fixture
def heard():
    found = Heard()
    receivers = [
        (signal, found.receiver(name))
        for name, signal in (
            ("initialized", signals.initialized),
            ("entry_changed", signals.entry_changed),
            ("connection_status", signals.connection_status),
        )
    ]
    for signal, receiver in receivers:
        signal.connect(receiver)
    yield found
    for signal, receiver in receivers:
        signal.disconnect(receiver)


@pytest.fixture
def own(settings, make_server):
    """A server of the test's own, as the default connection."""
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    return server


def test_the_first_replay_is_told_by_initialized_alone(natskv, heard, bucket_name):
    connection = connections["default"]
    context = connection.kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    bucket.put("a", 1)
    bucket.put("list", [1])
    cache = live(connection.local_cache(bucket_name))
    eventually(lambda: heard.of("initialized"), 30)
    # Each once the one before is told: a watch that begins again between two of them tells what came of both.
    for count, write in enumerate(
        (lambda: bucket.put("a", 2), lambda: bucket.delete("a"), lambda: bucket.put("list", [2]))
    ):
        write()
        eventually(lambda: len(heard.changes) == count + 1, 30)  # noqa: B023
    assert heard.of("initialized") == [{"connection": connection, "bucket": bucket_name}]
    assert heard.changes == [("a", 1, 2, 3), ("a", 2, None, 4), ("list", [1], [2], 5)]
    assert heard.threads == {"natskv-signals"}
    heard.of("entry_changed")[-1]["new"].value.append(3)
    assert cache.value("list") == [2]
    assert heard.of("entry_changed")[0]["connection"] is connection
    assert type(heard.of("entry_changed")[-1]["new"]) is kv.Entry
    context.delete_bucket(bucket_name)


def test_what_a_resync_finds_is_told(own, heard, connect_kv):
    connection = connections["default"]
    bucket = connection.kv().create_bucket({"bucket": "b"})
    for key in ("same", "moved", "gone"):
        bucket.put(key, 1)
    cache = live(connection.local_cache("b"))
    own.stop()
    eventually(lambda: cache.status().state == "stale", 30)
    own.start()
    other = connect_kv(own).kv().open_bucket("b")
    # The copy is still away, or hears of these as they happen: it is all the same.
    other.put("moved", 2)
    other.delete("gone")
    other.put("new", 1)
    live(cache)
    eventually(lambda: len(heard.changes) >= 3, 30)
    assert {(key, old, new) for key, old, new, _ in heard.changes} == {
        ("moved", 1, 2),
        ("gone", 1, None),
        ("new", None, 1),
    }
    assert len(heard.of("initialized")) == 1


def test_a_receiver_may_block_and_read_and_fail_meanwhile(natskv, bucket_name, heard):
    ours = connections["default"]
    context = ours.kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    cache = live(ours.local_cache(bucket_name))
    seen = []

    def receive(connection, key, new, **_):
        if connection is not ours:
            return
        seen.append((bucket.get_many([key])[key].value >= new.value, cache.value(key) >= new.value))
        message = "a mistake"
        raise ValueError(message)

    signals.entry_changed.connect(receive)
    try:
        for number in range(20):
            bucket.put(f"k{number}", number)  # of one key several changes may be told as one
        eventually(lambda: len(seen) == 20, 30)
    finally:
        signals.entry_changed.disconnect(receive)
    assert set(seen) == {(True, True)}
    assert len(heard.changes) == 20
    context.delete_bucket(bucket_name)


def test_the_status_of_the_connection_is_told(own, heard):
    connection = connections["default"]
    connection.kv().create_bucket({"bucket": "b"})
    live(connection.local_cache("b"))
    eventually(lambda: [one["status"] for one in heard.of("connection_status")][-1:] == ["connected"], 30)
    own.stop()
    eventually(lambda: heard.of("connection_status")[-1]["status"] == "disconnected", 30)
    assert isinstance(heard.of("connection_status")[-1]["error"], Exception)
    assert connection.status == "disconnected"
    count = len(heard.of("connection_status"))
    own.start()
    eventually(lambda: heard.of("connection_status")[-1]["status"] == "connected", 30)
    assert len(heard.of("connection_status")) - count < 8
    connection.close()
    eventually(lambda: heard.of("connection_status")[-1]["status"] == "closed", 30)


def test_errors_without_a_taker_are_told(natskv, heard, bucket_name, caplog):
    connection = connections["default"]
    context = connection.kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"})
    watch = bucket.watch(lambda entry: 1 / 0)
    taken: list[Exception] = []
    other = bucket.watch(lambda entry: 1 / 0, on_error=taken.append)
    bucket.put("a", 1)
    eventually(lambda: taken and [one for one in heard.of("connection_status") if one["status"] == "error"], 30)
    (told,) = [one for one in heard.of("connection_status") if one["status"] == "error"]
    assert isinstance(told["error"], ZeroDivisionError)
    assert len(taken) == 1
    watch.stop()
    other.stop()
    live(connection.local_cache(bucket_name))
    context.open_bucket(bucket_name, codec="bytes").put("bad", b"\xff")
    eventually(lambda: [one for one in heard.of("connection_status") if "bad" in str(one["error"])], 30)
    assert "bad" in caplog.text
    context.delete_bucket(bucket_name)
