"""A watch survives whatever happens to the server and the line, and then tells what changed meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.exceptions import JetStreamApiError, OperationalError, PermissionsViolation
from django_natskv.kv import _session
from django_natskv.kv._nats.exchange import Pause
from django_natskv.kv.runner import Operation, Runner
from django_natskv.kv.watch import _Teller
from tests.chaos.writers import Filler
from tests.fix_facade import ConnectKV
from tests.fix_proxy import Proxy
from tests.fix_servers import MakeServer, NatsCluster, NatsServer
from tests.fix_waiting import eventually
from tests.integration.watching import Stopwatch, Told, ask, complaints, held, purge, ready, threads, update_once

BACK = 30.0  # seconds in which it is up to date again, on any machine; how long it takes is held by tests/chaos


@pytest.fixture
def server(make_server: MakeServer) -> NatsServer:
    return make_server()


@pytest.fixture
def proxy(make_proxy: Callable[[str], Proxy], server: NatsServer) -> Proxy:
    return make_proxy(server.url)


@pytest.fixture
def control(connect_kv: ConnectKV, server: NatsServer) -> kv.Connection:
    """A connection past the proxy, with time to spare for a server that the machine holds up."""
    return connect_kv(server, connect_timeout=30.0, request_timeout=30.0)


@pytest.fixture
def make(control: kv.Connection, bucket_name: str) -> Callable[..., kv.Bucket]:
    def make(**config: Any) -> kv.Bucket:
        return control.kv().create_bucket({"bucket": bucket_name, **config})

    return make


def begin(connection: kv.Connection, bucket: kv.Bucket, **options: Any) -> Told:
    def begun() -> kv.Watch | None:
        try:
            return connection.kv().open_bucket(bucket.name).watch(told, **options)
        except OperationalError:  # the server is there, and the machine may hold it up
            return None

    told = Told()
    watch = eventually(begun, BACK)
    assert watch is not None
    ready(watch)
    return told


def tried(work: Callable[[], Any]) -> bool:
    try:
        work()
    except OperationalError:
        return False
    return True


def drop(connection: kv.Connection, bucket: kv.Bucket, consumer: str) -> None:
    """Delete a consumer, if the watch has not let go of it by itself meanwhile."""
    with suppress(JetStreamApiError):
        ask(connection, f"CONSUMER.DELETE.KV_{bucket.name}.{consumer}")


def same(told: Told, bucket: kv.Bucket, timeout: float = BACK) -> None:
    def equal() -> bool:
        try:
            there = held(bucket)
        except OperationalError:  # a replicated bucket may have lost its leader again
            return False
        # Not the two as they are: where CI is set, pytest takes seconds to explain how thousands of keys differ.
        differ = [key for key in {**told.held, **there} if told.held.get(key) != there.get(key)]
        assert not differ[:5]
        return True

    eventually(equal, timeout)


# --- the server ---


@pytest.mark.parametrize("hard", [False, True])
def test_a_restart(make, control, connect_kv, server, hard):
    bucket = make()
    revisions = {key: bucket.put(key, 1) for key in "abc"}
    told = begin(connect_kv(server), bucket)
    server.restart(hard=hard)
    update_once(bucket, "b", 2, revisions["b"])
    bucket.delete("c")
    same(told, bucket)
    assert told.brief == [("a", 1), ("b", 1), ("c", 1), ("b", 2), ("c", "delete")]  # nothing twice


def test_a_crash_after_which_older_values_are_back(make, connect_kv, server):
    # F1: a value that was purged by filter, beneath one that is there.
    connection = connect_kv(server)
    bucket = make()
    bucket.put("a", "old")
    bucket.put("other", 1)
    bucket.put("a", "new")
    told = begin(connection, bucket)
    purge(connection, bucket.name, "a")
    eventually(lambda: told.values == {"other": 1}, BACK)
    server.restart(hard=True)
    eventually(lambda: tried(lambda: bucket.put("other", 2)), BACK)
    same(told, bucket)


@pytest.mark.parametrize("hard", [False, True])
def test_a_memory_bucket_that_a_restart_took_away(make, connect_kv, server, hard):
    bucket = make(storage="memory")
    bucket.put("a", 1)
    bucket.put("b", 1)
    told = begin(connect_kv(server), bucket)
    server.restart(hard=hard)
    eventually(lambda: not told.held, BACK, "the truth is that nothing is there")
    assert sorted(told.brief[2:]) == [("a", "purge"), ("b", "purge")]
    again = eventually(lambda: _made(make), BACK)
    assert again is not None
    again.put("b", 1)
    same(told, bucket)
    assert told.values == {"b": 1}


def _made(make: Any) -> kv.Bucket | None:
    try:
        return make(storage="memory")
    except OperationalError:
        return None


# --- the line ---


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_line(make, connect_kv, proxy, reset):
    bucket = make()
    bucket.put("a", 1)
    told = begin(connect_kv(proxy.url), bucket)
    proxy.refuse()
    proxy.cut(reset=reset)
    bucket.put("a", 2)
    bucket.put("b", 1)
    bucket.delete("b")
    bucket.put("c", 1)
    proxy.accept()
    same(told, bucket)
    assert told.brief == [("a", 1), ("a", 2), ("b", "delete"), ("c", 1)]


def test_a_half_open_line_is_noticed_in_time(make, connect_kv, proxy):
    bucket = make()
    bucket.put("a", 1)
    told = begin(connect_kv(proxy.url), bucket)
    taken = proxy.accepted
    proxy.blackhole()
    bucket.put("a", 2)
    eventually(lambda: proxy.accepted > taken, BACK, "it tries anew, after three seconds and not after minutes (F11)")
    proxy.cut()
    proxy.heal()
    same(told, bucket)


def test_a_long_outage_fills_no_log_and_keeps_no_processor_busy(make, connect_kv, proxy, caplog):
    bucket = make()
    bucket.put("a", 1)
    told = begin(connect_kv(proxy.url), bucket)
    proxy.refuse(cut=True)
    busy = time.process_time()
    clock = Stopwatch()
    eventually(lambda: clock.seconds > 10, BACK)
    busy = time.process_time() - busy
    bucket.put("a", 2)
    proxy.accept()
    same(told, bucket)
    assert len(complaints(caplog, bucket)) <= 3
    assert "password" not in caplog.text
    assert busy < 2


# --- the bucket and its consumers ---


def test_a_deleted_bucket_made_anew(make, control, connect_kv, server, monkeypatch, caplog):
    bucket = make()
    bucket.put("a", 1)
    bucket.put("b", 1)
    bucket.delete("b")
    told = begin(connect_kv(server), bucket)
    control.kv().delete_bucket(bucket.name)
    eventually(lambda: not told.held, BACK)
    assert told.brief[2:] == [("a", "purge")]
    assert told.entries[-1].revision == 1
    count = len(complaints(caplog, bucket))
    replaced: list[int] = []
    whole = _Teller.replace

    def replace(self: Any, replay: Any) -> None:
        if self._core.name == bucket.name:
            replaced.append(len(replay))
        whole(self, replay)

    monkeypatch.setattr(_Teller, "replace", replace)
    clock = Stopwatch()
    eventually(lambda: clock.seconds > 3, BACK)
    assert len(complaints(caplog, bucket)) <= count + 1  # it waits, and says so once
    assert not replaced
    make()
    bucket.put("c", 1)
    same(told, bucket)


@pytest.mark.parametrize("deliver", ["latest", "history", "updates"])
def test_a_bucket_made_anew_where_revisions_coincide(make, control, connect_kv, server, deliver):
    bucket = make(history=5)
    told = begin(connect_kv(server), bucket, deliver=deliver)
    bucket.put("a", "then")
    bucket.put("b", "then")
    eventually(lambda: len(told.held) == 2, BACK)
    control.kv().delete_bucket(bucket.name)
    make(history=5)
    bucket.put("a", "now")
    bucket.put("c", "now")
    same(told, bucket)
    assert told.values == {"a": "now", "c": "now"}


def test_a_bucket_made_anew_before_the_first_replay_of_a_watch_for_updates(make, control, connect_kv, proxy):
    bucket = make()
    for number in range(10):
        bucket.put(f"k{number}", 1)
    watched = connect_kv(proxy.url).kv().open_bucket(bucket.name)
    watched.watch(Told(), deliver="updates").stop()  # the connection is there
    with proxy.paused("requests"):
        told = Told()
        started = threading.Thread(target=lambda: watched.watch(told, deliver="updates"))
        started.start()
    started.join()
    proxy.refuse(cut=True)
    control.kv().delete_bucket(bucket.name)
    make()
    bucket.put("a", 1)
    proxy.accept()
    eventually(lambda: told.values == {"a": 1}, BACK)


def test_a_consumer_deleted_by_an_operator(make, control, connect_kv, server):
    bucket = make()
    bucket.put("a", 1)
    told = begin(connect_kv(server), bucket)
    for _ in range(3):
        consumers = eventually(lambda: server.consumers(f"KV_{bucket.name}"))
        for consumer in consumers:
            drop(control, bucket, consumer)
        bucket.put("a", 2)
        same(told, bucket)
        eventually(lambda: server.consumers(f"KV_{bucket.name}") not in ([], consumers), BACK)  # noqa: B023
    eventually(lambda: len(server.consumers(f"KV_{bucket.name}")) == 1, BACK)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(120)
def test_a_change_of_the_leader(make_cluster: Callable[[], NatsCluster], connect_kv, bucket_name, caplog):
    cluster = make_cluster()
    bucket = connect_kv(cluster.urls, request_timeout=5.0).kv().create_bucket({"bucket": bucket_name, "replicas": 3})
    revision = bucket.put("a", 1)
    bucket.put("b", 1)
    told = begin(connect_kv(cluster.urls), bucket)
    leader = eventually(lambda: cluster.leader(f"KV_{bucket_name}"), 30)
    assert leader is not None
    leader.kill()
    update_once(bucket, "a", 2, revision)
    same(told, bucket)
    # What was told only grows: the bucket was never taken to be gone.
    assert told.brief == [("a", 1), ("b", 1), ("a", 2)]


# --- permissions ---


@pytest.mark.parametrize(
    "denied",
    [
        'publish: {{ deny: "$JS.API.CONSUMER.>" }}',
        'publish: {{ deny: "$JS.API.STREAM.INFO.>" }}',
        'subscribe: {{ deny: "_INBOX.>" }}',
    ],
)
def test_a_permission_that_is_taken_away_and_given_back(make_server, connect_kv, bucket_name, caplog, denied):
    def users(permissions: str) -> str:
        watcher = f"{{ user: watcher, password: w{permissions and ', permissions: {' + permissions + '}'} }}"
        return f"authorization {{ users: [ {{ user: admin, password: a }}, {watcher} ] }}"

    server: NatsServer = make_server(config=users(""))
    connection = connect_kv(server, user="admin", password="a")
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    bucket.put("a", 1)
    told = begin(connect_kv(server, user="watcher", password="w"), bucket)

    def reload(config: str) -> None:
        server.config = config
        (server.directory / "server.conf").write_text(server._configuration())
        done = server.log.count("Reloaded server configuration")
        os.kill(server.pid, signal.SIGHUP)
        eventually(lambda: server.log.count("Reloaded server configuration") > done, BACK)

    reload(users(denied.format()))
    # What it holds already may go on; a new session may not begin.
    for consumer in server.consumers(f"KV_{bucket_name}"):
        drop(connection, bucket, consumer)
    eventually(lambda: complaints(caplog, bucket), BACK)
    bucket.put("a", 2)
    bucket.put("b", 2)
    reload(users(""))
    same(told, bucket)
    assert len(complaints(caplog, bucket)) <= 5


@pytest.mark.parametrize("missing", ["$JS.API.CONSUMER.CREATE.KV_{}.*", "$JS.API.CONSUMER.MSG.NEXT.KV_{}.*"])
def test_a_permission_that_is_missing_from_the_start_is_told_once(make_server, connect_kv, bucket_name, missing):
    subject = missing.format(bucket_name)

    def config(permissions: str) -> str:
        watcher = f"{{ user: watcher, password: w{permissions} }}"
        return f"authorization {{ users: [ {{ user: admin, password: a }}, {watcher} ] }}"

    server: NatsServer = make_server(config=config(f', permissions: {{ publish: {{ deny: "{subject}" }} }}'))
    connect_kv(server, user="admin", password="a").kv().create_bucket({"bucket": bucket_name}).put("a", 1)
    errors: list[Exception] = []
    bucket = connect_kv(server, user="watcher", password="w").kv().open_bucket(bucket_name)
    told = Told()
    watch = bucket.watch(told, on_error=errors.append)
    eventually(lambda: errors, BACK)
    [error] = errors
    assert isinstance(error, PermissionsViolation)
    assert error.subject == subject
    assert f"watching bucket {bucket_name!r}" in str(error)
    server.config = config("")
    (server.directory / "server.conf").write_text(server._configuration())
    os.kill(server.pid, signal.SIGHUP)
    watch.initialized.result(BACK)
    assert told.values == {"a": 1}
    assert errors == [error], "once, however often it was tried"


# --- handlers and sinks ---


@pytest.mark.slow
def test_a_slow_handler_with_100_000_updates_behind_it(make, connect_kv, server, monkeypatch, caplog):
    monkeypatch.setattr(_session, "INACTIVE", 2)  # instead of half a minute
    bucket = make(storage="memory")
    gate = threading.Event()
    told = Told()

    def handler(entry: kv.Entry) -> None:
        assert gate.wait(40)
        told(entry)

    watch = connect_kv(server).kv().open_bucket(bucket.name).watch(handler)
    with Filler([server.url], bucket.name) as filler:
        filler.fill(f"k{number % 5_000}" for number in range(100_000))
    teller = watch._teller
    eventually(teller.is_busy, 10)
    eventually(lambda: not server.consumers(f"KV_{bucket.name}"), 20, "the server lets go of it")
    assert teller._put - teller._taken < 20_000
    gate.set()
    same(told, bucket, 20)
    assert len(complaints(caplog)) == 1


def test_a_sink_that_fails_does_not_end_the_session(make, connect_kv, server, monkeypatch, caplog):
    bucket = make()
    told = begin(connect_kv(server), bucket)
    whole = _Teller.apply
    fails = True

    def apply(self: Any, stored: Any) -> None:
        if fails:
            raise ValueError
        whole(self, stored)

    def stale(self: Any, error: Exception) -> None:
        if fails:
            raise KeyError

    monkeypatch.setattr(_Teller, "apply", apply)
    monkeypatch.setattr(_Teller, "stale", stale)
    bucket.put("a", 1)
    same(told, bucket)
    bucket.put("b", 1)
    eventually(lambda: complaints(caplog, bucket))
    fails = False
    same(told, bucket)
    assert not [line for line in complaints(caplog, bucket) if "broken off" in line]


def test_what_breaks_into_the_loop_does_not_end_a_watch(make, connect_kv, server, monkeypatch):
    # A KeyboardInterrupt ends the task that the thread which drives the loop is in.
    connection = connect_kv(server)
    bucket = make()
    told = begin(connection, bucket)
    whole = _Teller.is_busy
    broken: list[BaseException] = []

    def is_busy(self: Any) -> bool:
        if threading.current_thread() is thread and not broken:
            raise KeyboardInterrupt
        return whole(self)

    def drive() -> None:
        def pause() -> Operation[None]:
            while True:
                # After the first the loop is left to whoever calls next, which is this thread or, late, its keeper.
                yield Pause(connection._watches, 0.001, "driving")
                yield Pause(connection._watches, 0.5, "driving")

        try:
            Runner(connection._watches.driver, BACK).call(pause())
        except KeyboardInterrupt as error:
            broken.append(error)

    thread = threading.Thread(target=drive)
    monkeypatch.setattr(_Teller, "is_busy", is_busy)
    thread.start()
    eventually(lambda: bucket.put("a", time.monotonic()) and broken, BACK)
    thread.join()
    bucket.put("b", 1)
    same(told, bucket)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_is_silent_and_the_parent_undisturbed(make, connect_kv, server):
    connection = connect_kv(server)
    bucket = make()
    bucket.put("a", 1)
    told = Told()
    watch = connection.kv().open_bucket(bucket.name).watch(told)
    ready(watch)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.read(read, 1)  # the parent's watch was told of more
            watch.stop()
            watch.stop()
            status = 0 if len(told.entries) == 1 and not threads(bucket) else 2
        finally:
            os._exit(status)
    bucket.put("a", 2)
    eventually(lambda: told.values == {"a": 2}, BACK)
    os.write(write, b"x")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    bucket.put("a", 3)
    eventually(lambda: told.values == {"a": 3}, BACK)
    os.close(read)
    os.close(write)
