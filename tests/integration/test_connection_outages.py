"""Outages: fail fast while down, come back by itself, tell what became of what was in flight, and never hang."""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from django_natskv.exceptions import (
    AuthInvalid,
    ConnectFailed,
    NatsKVError,
    NotConnected,
    OperationalError,
    OperationTimedOut,
    WrongRevision,
)
from django_natskv.kv._nats import client
from django_natskv.kv._nats.exchange import Exchange
from django_natskv.kv._nats.sink import Sink, run_through
from tests.fix_connections import Connect
from tests.fix_credentials import Certificates
from tests.fix_proxy import Proxy
from tests.fix_servers import HOST, MakeServer, NatsCluster, NatsServer, free_port
from tests.fix_waiting import eventually

LONG = 40.0  # seconds: the timeouts of tests in which nothing may wait for one
FAST = 20.0  # seconds; who waited for such a timeout took twice as long, and who only was held up a while less
AT_ONCE = 0.2  # seconds, of one of several that are timed one by one


class Clock:
    """How long a block took."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


def typical(operations: Iterable[Callable[[], Any]]) -> float:
    """Call all of them and return the seconds that the middle one took, whatever held up one or the other."""
    took = []
    for operation in operations:
        with Clock() as clock:
            operation()
        took.append(clock.seconds)
    return statistics.median(took)


def refused(
    operation: Callable[[], Any], error: type[Exception] = NotConnected, match: str | None = None
) -> Callable[[], None]:
    """Return a function that sees ``operation`` fail."""

    def refuses() -> None:
        with pytest.raises(error, match=match):
            operation()

    return refuses


def on_loop(connection: Any, callback: Callable[[], Any]) -> Any:
    """Call ``callback()`` on the connection's loop and return what it gave."""
    result: list[Any] = []
    connection._requests.driver.post(lambda: result.append(callback()))
    eventually(lambda: result)
    return result[0]


def down(connection: Any) -> None:
    eventually(lambda: connection.status == "disconnected", message="the loss to be noticed")


# ------------------------------------------------------------------ down and back


def test_requests_fail_at_once_while_the_server_is_down_and_succeed_soon_after_it_is_back(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server()
    bucket = connect(server.url, REQUEST_TIMEOUT=LONG).kv().create_bucket({"bucket": "b"})
    revision = bucket.put("key", 1)
    server.stop()

    def lost() -> bool:
        with pytest.raises(OperationalError) as caught:
            bucket.get("key")
        return isinstance(caught.value, NotConnected)

    eventually(lost)
    calls = [lambda: bucket.get("key"), lambda: bucket.put("key", 2), bucket.keys]
    for call in calls:
        assert typical([refused(call, match="down")] * 9) < AT_ONCE
    with asyncio.Runner() as runner:
        assert typical([refused(lambda: runner.run(bucket.aget("key")))] * 9) < AT_ONCE

    server.start()

    def back() -> Any:
        try:
            return bucket.get("key")
        except NotConnected:
            return None

    assert eventually(back).revision == revision


def test_it_comes_back_without_being_asked(connect: Connect, make_server: MakeServer) -> None:
    server = make_server()
    connection = connect(server.url, NAME="back")
    connection.kv()
    server.restart(hard=True)
    eventually(lambda: server.connections("back"))
    eventually(lambda: connection.status == "connected")


def test_many_restarts_leave_one_connection_and_no_thread(connect: Connect, make_server: MakeServer) -> None:
    server = make_server()
    connection = connect(server.url, NAME="one")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    threads = set(threading.enumerate())
    for number in range(4):
        server.restart(hard=bool(number % 2))
        eventually(lambda: is_back(bucket))
        assert bucket.put("key", number)
    eventually(lambda: len(server.connections("one")) == 1)
    eventually(lambda: len(on_loop(connection, asyncio.all_tasks)) <= 6)
    eventually(lambda: set(threading.enumerate()) <= threads)


def is_back(bucket: Any) -> bool:
    try:
        bucket.get("key")
    except OperationalError:
        return False
    return True


@pytest.fixture
def all_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a lost connection waits until it is back, however long a busy machine takes for that."""
    monkeypatch.setattr(client, "PATIENCE", LONG)


@pytest.mark.usefixtures("all_patience", "lines_last")
def test_a_cut_line_is_replaced_and_a_read_does_not_notice(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    proxy = make_proxy(nats_server.url)
    bucket = connect(proxy.url).kv().create_bucket({"bucket": bucket_name})
    revision = bucket.put("key", 1)
    for _ in range(5):
        proxy.pause("replies")
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(bucket.get, "key")
            eventually(lambda: bucket._core.wire.client._in_flight)
            proxy.cut()
            proxy.heal()
            assert reading.result(30).revision == revision


@pytest.mark.usefixtures("all_patience", "lines_last")
def test_a_write_that_was_cut_off_is_settled(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    proxy = make_proxy(nats_server.url)
    bucket = connect(proxy.url).kv().create_bucket({"bucket": bucket_name, "history": 64})
    for number in range(5):
        proxy.pause("replies")
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(bucket.put, "key", number)
            eventually(lambda: bucket._core.wire.client._in_flight)
            eventually(lambda: nats_server.streams()[f"KV_{bucket_name}"]["state"]["messages"] == number + 1)  # noqa: B023
            proxy.cut()
            proxy.heal()
            assert writing.result(30) == number + 1
    assert [entry.value for entry in bucket.history("key")] == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("lines_last")
def test_what_is_in_flight_when_the_server_dies_fails_at_once_as_what_it_is(
    connect: Connect, make_server: MakeServer, make_proxy: Callable[[str], Proxy]
) -> None:
    server = make_server()
    proxy = make_proxy(server.url)
    bucket = connect(proxy.url, REQUEST_TIMEOUT=LONG).kv().create_bucket({"bucket": "b"})
    bucket.put("key", 1)
    proxy.pause("replies")
    with ThreadPoolExecutor(40) as pool:
        reads = [pool.submit(bucket.get, "key") for _ in range(16)]
        writes = [pool.submit(bucket.put, f"key{number}", 1) for number in range(16)]
        eventually(lambda: len(bucket._core.wire.client._in_flight) == 32)
        proxy.refuse(cut=True)
        with Clock() as clock:
            for read in reads:
                with pytest.raises(NotConnected):
                    read.result(LONG)
            for write in writes:
                with pytest.raises(OperationTimedOut) as caught:
                    write.result(LONG)
                assert caught.value.may_have_been_applied
                assert "may have been applied" in str(caught.value)
    assert clock.seconds < FAST
    assert bucket._core.wire.client._in_flight == {}
    # What has lost its patience stays until the next attempt to connect.
    eventually(lambda: bucket._core.wire.client._waiting == [])


def test_a_patient_request_that_was_sent_after_all_waits_for_its_answer(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    """The line comes back within the patience of a repeated request, and the answer after it."""
    answering = connect(nats_server.url)
    answering.kv()
    asked: list[str] = []
    hearing = Sink(lambda message: asked.append(message.reply))
    on_loop(answering, lambda: run_through(answering._requests.nats.subscribe(bucket_name, future=hearing)))

    proxy = make_proxy(nats_server.url)
    connection = connect(proxy.url)
    connection.kv()
    impatient: list[Exchange] = []  # whose patience is over, which it is for them only when the test says so
    lose_patience = connection._requests._impatient
    connection._requests._impatient = impatient.append
    proxy.pause("requests")
    on_loop(connection, connection._requests._dialled.abort)
    down(connection)

    def ask() -> Any:
        return (yield Exchange(connection._requests, bucket_name, what="a test", patient=True))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(connection._runner.call, ask())
        eventually(lambda: connection._requests._waiting)
        proxy.heal()
        reply = eventually(lambda: asked)[0]
        [exchange] = eventually(lambda: impatient)
        on_loop(connection, lambda: lose_patience(exchange))
        assert not asking.done()
        on_loop(answering, lambda: run_through(answering._requests.nats.publish(reply, b"late")))
        assert asking.result(30).data == b"late"


# ------------------------------------------------------------------ dead lines


def test_a_half_open_line_is_noticed(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    proxy = make_proxy(nats_server.url)
    connection = connect(proxy.url, REQUEST_TIMEOUT=LONG)
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    revision = bucket.put("key", 1)
    proxy.blackhole()
    down(connection)
    assert typical([refused(lambda: bucket.get("key"))] * 5) < AT_ONCE
    proxy.heal()
    eventually(lambda: is_back(bucket))
    assert bucket.get("key").revision == revision


def test_a_half_open_tls_line_is_noticed_as_soon(
    connect: Connect, make_server: MakeServer, make_proxy: Callable[[str], Proxy], certificates: Certificates
) -> None:
    """TLS says goodbye and waits for half a minute to hear it back."""
    server = make_server(config=certificates.server_config())
    proxy = make_proxy(server.tls_url)
    connection = connect(proxy.url, TLS={"CA": certificates.ca})
    bucket = connection.kv().create_bucket({"bucket": "b"})
    proxy.blackhole()
    down(connection)
    proxy.heal()
    eventually(lambda: is_back(bucket))


def test_a_half_open_line_with_much_to_send_is_noticed_as_soon(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    """What cannot be sent must not keep the client from being replaced."""
    proxy = make_proxy(nats_server.url)
    connection = connect(proxy.url)
    bucket = connection.kv().create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes")
    value = b"x" * 900_000
    proxy.blackhole()
    with ThreadPoolExecutor(32) as pool:
        writes = [pool.submit(bucket.put, "key", value) for _ in range(32)]
        for write in writes:
            with pytest.raises((OperationTimedOut, NotConnected)):
                write.result(30)
    down(connection)
    proxy.heal()
    eventually(lambda: is_back(bucket))
    assert bucket.put("key", b"y") > 0


def test_a_frozen_server_costs_each_request_its_timeout_and_then_none(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server()
    connection = connect(server.url)
    bucket = connection.kv().create_bucket({"bucket": "b"})
    connection._runner.timeout = 0.2  # from now on: before, it had to succeed
    server.freeze()
    for operation, may_have_been_applied in ((lambda: bucket.get("key"), False), (lambda: bucket.put("key", 1), True)):
        with Clock() as clock, pytest.raises(OperationTimedOut) as caught:
            operation()
        assert 0.2 <= clock.seconds < FAST
        assert caught.value.may_have_been_applied is may_have_been_applied
    down(connection)
    assert typical([refused(lambda: bucket.get("key"))] * 5) < AT_ONCE
    connection._runner.timeout = LONG
    server.thaw()
    eventually(lambda: is_back(bucket))


@pytest.fixture
def blackhole() -> Any:
    """The URL of a port whose backlog is full: a connect gets no answer at all."""
    listener = socket.socket()
    listener.bind((HOST, 0))
    listener.listen(0)
    fillers = []
    for _ in range(8):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    yield f"nats://{HOST}:{listener.getsockname()[1]}"
    for one in [*fillers, listener]:
        one.close()


def test_connecting_to_a_black_hole_takes_its_timeout_and_no_longer(connect: Connect, blackhole: str) -> None:
    connection = connect(blackhole, CONNECT_TIMEOUT=0.5, REQUEST_TIMEOUT=LONG)
    with Clock() as clock, pytest.raises(ConnectFailed, match=r"did not answer within 0\.5 s"):
        connection.kv()
    assert 0.4 < clock.seconds < FAST
    assert typical([refused(connection.kv, ConnectFailed)] * 5) < AT_ONCE


def test_a_request_does_not_wait_longer_than_its_timeout_for_a_connection(connect: Connect, blackhole: str) -> None:
    connection = connect(blackhole, CONNECT_TIMEOUT=LONG, REQUEST_TIMEOUT=0.3)
    with Clock() as clock, pytest.raises(NotConnected, match="not sent") as caught:
        connection.kv()
    assert blackhole in str(caught.value)
    assert clock.seconds < FAST
    with Clock() as clock:
        connection.close()
    assert clock.seconds < FAST


def test_a_server_that_takes_the_connection_and_says_nothing(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy]
) -> None:
    proxy = make_proxy(nats_server.url)
    proxy.blackhole()
    connection = connect(proxy.url, CONNECT_TIMEOUT=0.5, REQUEST_TIMEOUT=LONG)
    with Clock() as clock, pytest.raises(ConnectFailed, match="did not answer"):
        connection.kv()
    assert clock.seconds < FAST


def test_a_server_that_is_full_says_so(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config="max_connections: 1")
    first, second = connect(server.url), connect(server.url)
    first.kv()

    def says_so() -> bool:
        with pytest.raises(ConnectFailed) as caught:
            second.kv()
        return "maximum connections exceeded" in str(caught.value)

    eventually(says_so)  # its words may be lost with the line, now and then
    first.close()
    eventually(lambda: second.status == "connected")


# ------------------------------------------------------------------ never connected


def test_a_dead_server_is_named_at_once(connect: Connect) -> None:
    url = f"nats://{HOST}:{free_port()}"
    connection = connect(url, CONNECT_TIMEOUT=LONG, REQUEST_TIMEOUT=LONG)
    assert typical([refused(connection.kv, ConnectFailed, match=url)] * 5) < AT_ONCE


def test_what_never_connected_connects_when_the_server_comes(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(start=False)
    connection = connect(server.url)
    with pytest.raises(ConnectFailed):
        connection.kv()
    server.start()

    def comes() -> bool:
        try:
            connection.kv()
        except OperationalError:
            return False
        return True

    eventually(comes)


def test_the_whole_pool_dead(connect: Connect) -> None:
    urls = [f"nats://{HOST}:{free_port()}" for _ in range(3)]
    with Clock() as clock, pytest.raises(ConnectFailed):
        connect(urls, CONNECT_TIMEOUT=LONG, REQUEST_TIMEOUT=LONG).kv()
    assert clock.seconds < FAST


@pytest.mark.parametrize("most", [0, 2])
def test_it_gives_up_after_the_attempts_that_it_was_allowed_and_begins_again_when_asked(
    connect: Connect, make_server: MakeServer, make_proxy: Callable[[str], Proxy], most: int
) -> None:
    server = make_server(start=False)
    proxy = make_proxy(server.url)
    connection = connect(proxy.url, RECONNECT={"MAX": most, "WAIT": 0.05, "MAX_WAIT": 0.05})
    with pytest.raises(ConnectFailed):
        connection.kv()
    eventually(lambda: connection.status == "idle")
    assert proxy.accepted == 1 + most
    server.start()
    connection.kv()
    assert connection.status == "connected"


def test_a_failure_that_nobody_foresaw_is_an_error_of_the_request_and_not_the_end(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    connection = connect(nats_server.url, CONNECT_TIMEOUT=LONG, REQUEST_TIMEOUT=LONG)
    broken = True

    def resolve(settings: Any) -> Any:
        if broken:
            raise ZeroDivisionError
        return settings

    connection._requests._resolve = resolve
    with Clock() as clock, pytest.raises(ConnectFailed, match="ZeroDivisionError"):
        connection.kv()
    assert clock.seconds < FAST
    assert "not foreseen" in caplog.text
    broken = False

    def comes() -> bool:
        try:
            connection.kv()
        except ConnectFailed:
            return False
        return True

    eventually(comes)


# ------------------------------------------------------------------ clients that are lost


def test_a_client_that_the_server_threw_out_for_too_large_a_message_is_replaced(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server(config="max_payload: 64KB")
    connection = connect(server.url, NAME="thrown")
    bucket = connection.kv().create_bucket({"bucket": "b"})
    client = connection._requests
    generation = client.generation

    def violate() -> None:
        client.nats._max_payload = 2**30  # past every check of ours and of nats-py
        client.nats._transport.write(b"PUB x 100000\r\n" + b"x" * 100_000 + b"\r\n")

    on_loop(connection, violate)
    eventually(lambda: client.generation > generation)
    eventually(lambda: is_back(bucket))
    eventually(lambda: len(server.connections("thrown")) == 1)
    eventually(lambda: "maximum payload" in server.log.lower())


def test_a_protocol_error_of_the_server_is_survived(
    connect: Connect, nats_server: NatsServer, bucket_name: str
) -> None:
    connection = connect(nats_server.url)
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    client = connection._requests
    for provoke in (
        lambda: client.nats._transport.write(b"NONSENSE\r\n"),
        lambda: asyncio.ensure_future(client.nats._process_err("'some new error of a server'")),
        lambda: asyncio.ensure_future(client.nats.close()),
        lambda: client._dialled.abort(),  # noqa: PLW0108 - that of then
    ):
        generation = client.generation
        on_loop(connection, provoke)
        eventually(lambda: client.generation > generation)  # noqa: B023
        eventually(lambda: is_back(bucket))


def test_a_line_that_is_reset_with_something_yet_to_be_sent_leaves_no_traceback(
    connect: Connect, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py sends it while it closes, on the line that is gone, and the task that closes ends with that error."""
    gc.collect()  # what other tests have left says what it has to say before this one listens
    caplog.clear()
    connection = connect(nats_server.url)
    connection.kv()
    client = connection._requests
    generation = client.generation
    ended: list[BaseException | None] = []

    def reset() -> None:
        nats = client.nats
        nats._reading_task.add_done_callback(lambda task: ended.append(task._exception))
        nats.corked = True
        nats._pending.append(b"PING\r\n")
        nats._pending_data_size += 6
        nats._transport._io_reader.set_exception(ConnectionResetError())

    on_loop(connection, lambda: asyncio.get_running_loop().call_soon(reset))
    eventually(lambda: client.generation > generation)
    assert isinstance(ended.pop(), ConnectionResetError)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_read_loop_that_broke_is_replaced_at_once(
    connect: Connect, nats_server: NatsServer, bucket_name: str
) -> None:
    """F7, F8: nats-py would go on as if connected, and every request would wait for its timeout."""
    connection = connect(nats_server.url, NAME=bucket_name, REQUEST_TIMEOUT=LONG)
    bucket = connection.kv().create_bucket({"bucket": bucket_name})
    client = connection._requests
    generation = client.generation

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    publish = client._publish

    def sabotage(exchange: Exchange) -> None:
        # As it is sent: a ping of the server would break the loop before the answer does.
        client.nats._ps.take = broken
        client._publish = publish
        publish(exchange)

    client._publish = sabotage
    with Clock() as clock, pytest.raises(OperationTimedOut):
        bucket._runner.call(bucket._core.wire.tell("INFO", None, "a request with a broken answer"))
    assert clock.seconds < FAST
    eventually(lambda: client.generation > generation)
    eventually(lambda: is_back(bucket))
    eventually(lambda: len(nats_server.connections(bucket_name)) == 1)


def test_a_slow_consumer_is_thrown_out_by_the_server_and_replaced(
    connect: Connect, make_server: MakeServer, make_proxy: Callable[[str], Proxy]
) -> None:
    server = make_server(config='max_pending: 1MB, write_deadline: "200ms"')
    proxy = make_proxy(server.url)
    connection = connect(proxy.url)
    bucket = connection.kv().create_bucket({"bucket": "b", "storage": "memory"}, codec="bytes")
    bucket.put("key", b"x" * 1_000_000)
    connection._runner.timeout = 1.0  # from now on: before, it had to succeed
    proxy.pause("replies")
    with ThreadPoolExecutor(32) as pool:
        reads = [pool.submit(bucket.get, "key") for _ in range(32)]
        for read in reads:
            with pytest.raises(NatsKVError):
                read.result(30)
    eventually(lambda: "Slow Consumer" in server.log or "write_deadline" in server.log.lower())
    proxy.heal()
    eventually(lambda: is_back(bucket))


class Incrementer:
    """Adds one to a key of its own, again and again, and keeps what contradicts the answers that it got."""

    def __init__(self, bucket: Any, key: str) -> None:
        self.bucket = bucket
        self.key = key
        self.done = 0
        self.in_doubt = False
        self.strange: list[str] = []

    def run(self, stop: threading.Event) -> Incrementer:
        revision = self.bucket.create(self.key, 0)
        while not stop.is_set() or self.in_doubt:
            try:
                revision = self.bucket.update(self.key, self.done + 1, revision)
                self.done, self.in_doubt = self.done + 1, False
            except NotConnected:
                time.sleep(0.005)
            except OperationTimedOut:
                self.in_doubt = True  # it may be there, or still come
            except WrongRevision:
                revision = self.look()
            except Exception as error:
                self.strange.append(repr(error))
        return self

    def look(self) -> int:
        entry = eventually(lambda: settled(self.bucket, self.key))
        if not self.in_doubt or entry.value != self.done + 1:
            self.strange.append(f"{entry.value} after {self.done}, in doubt: {self.in_doubt}")
        self.done, self.in_doubt = entry.value, False
        return entry.revision


def test_requests_of_many_threads_through_outage_after_outage(
    connect: Connect, make_server: MakeServer, make_proxy: Callable[[str], Proxy]
) -> None:
    """No acknowledged write is lost, none is applied twice, and what was said to be unsent was not applied."""
    server = make_server()
    proxy = make_proxy(server.url)
    connection = connect(proxy.url, NAME="busy")
    bucket = connection.kv().create_bucket({"bucket": "b", "history": 1})
    stop = threading.Event()
    with ThreadPoolExecutor(16) as pool:
        workers = [pool.submit(Incrementer(bucket, f"key{number}").run, stop) for number in range(16)]
        try:
            eventually(lambda: len(bucket.keys()) == 16)
            for _ in range(4):
                proxy.cut()
                eventually(lambda: is_back(bucket))
            server.restart()
            eventually(lambda: is_back(bucket))
            proxy.refuse(cut=True)
            down(connection)
            proxy.accept()
            eventually(lambda: is_back(bucket))
        finally:
            stop.set()
        for one in [worker.result(30) for worker in workers]:
            assert one.strange == []
            assert bucket.get(one.key).value == one.done
    eventually(lambda: len(server.connections("busy")) == 1)


def settled(bucket: Any, key: str) -> Any:
    try:
        return bucket.get(key)
    except OperationalError:
        return None


# ------------------------------------------------------------------ several servers


def test_a_dead_server_among_several_is_passed_over(connect: Connect, nats_server: NatsServer) -> None:
    dead = f"nats://{HOST}:{free_port()}"
    for _ in range(8):  # the order is random
        connect([dead, nats_server.url]).kv()


def test_a_silent_server_among_several_holds_up_nobody(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy]
) -> None:
    proxy = make_proxy(nats_server.url)
    proxy.blackhole()
    for _ in range(6):
        with Clock() as clock:
            connect([proxy.url, nats_server.url], CONNECT_TIMEOUT=LONG, REQUEST_TIMEOUT=LONG).kv()
        assert clock.seconds < FAST
    proxy.heal()
    eventually(lambda: proxy.connections == 0)


def test_when_one_server_refuses_the_login_and_others_are_dead_that_is_the_news(
    connect: Connect, make_server: MakeServer
) -> None:
    server = make_server(config="authorization { user: a, password: b }")
    dead = [f"nats://{HOST}:{free_port()}" for _ in range(2)]
    with pytest.raises(AuthInvalid):
        connect([*dead, server.url], USER="a", PASSWORD="c").kv()


@pytest.mark.cluster
def test_the_servers_of_a_cluster_are_discovered_and_used(
    connect: Connect, make_cluster: Callable[..., NatsCluster]
) -> None:
    cluster = make_cluster()
    connection = connect(cluster.servers[0].url, NAME="found")
    bucket = connection.kv().create_bucket({"bucket": "b", "replicas": 3})
    revision = bucket.put("key", 1)
    connection._runner.timeout = 2.0  # from now on: before, it had to succeed
    cluster.servers[0].kill()
    others = cluster.servers[1:]
    eventually(lambda: any(server.connections("found") for server in others))

    def back() -> Any:
        try:
            return bucket.get("key")
        except OperationalError:
            return None

    assert eventually(back, 30).revision == revision
