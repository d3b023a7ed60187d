"""The tools of the tests do what they say; if these fail, believe no other result."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any, Self

import nats
import pytest

from tests import fix_waiting
from tests.fix_proxy import Proxy
from tests.fix_servers import HOST, REFUSED_VERSION, SERVER_VERSIONS, free_port, session_version
from tests.fix_waiting import aeventually, eventually


class Wire:
    """A NATS client of a few lines: whatever the package does, the tests of the tools must not lean on it."""

    def __init__(self, url: str, name: str = "wire") -> None:
        host, port = url.rpartition("/")[2].split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5)
        self.file = self.socket.makefile("rb")
        try:
            assert self.line().startswith("INFO ")
            self.send("CONNECT " + json.dumps({"verbose": False, "name": name, "headers": True}))
            self.ping()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, line: str) -> None:
        self.socket.sendall(line.encode() + b"\r\n")

    def line(self) -> str:
        line = self.file.readline()
        if not line:
            raise ConnectionError
        return line.decode().rstrip()

    def ping(self) -> None:
        self.send("PING")
        while (line := self.line()) != "PONG":
            assert not line.startswith("-ERR"), line

    def ask(self, subject: str, body: object = None) -> dict[str, Any]:
        """Send a request and return the JSON of its answer."""
        data = json.dumps(body) if body is not None else ""
        self.send("SUB _INBOX.wire 1")
        self.send(f"PUB {subject} _INBOX.wire {len(data)}\r\n{data}")
        while not (head := self.line()).startswith("MSG"):
            assert not head.startswith("-ERR"), head
        answer = json.loads(self.file.read(int(head.split()[-1])))
        assert self.line() == ""
        self.send("UNSUB 1")
        self.ping()
        return answer

    def make_stream(self, name: str, **config: object) -> dict[str, Any]:
        config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", **config}
        return self.ask(f"$JS.API.STREAM.CREATE.{name}", config)

    def make_consumer(self, stream: str, name: str) -> dict[str, Any]:
        return self.ask(
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}",
            {"stream_name": stream, "config": {"durable_name": name, "ack_policy": "none"}},
        )

    def messages(self, stream: str) -> int:
        return self.ask(f"$JS.API.STREAM.INFO.{stream}")["state"]["messages"]


# ---------------------------------------------------------------------- waiting


def test_eventually_returns_what_the_condition_gave():
    results = iter([None, 0, "", "here"])
    assert eventually(lambda: next(results)) == "here"


def test_eventually_waits_for_asserts_and_fails_with_the_last_one():
    def condition() -> None:
        assert 1 + 1 == 3

    with pytest.raises(AssertionError, match=r"not within 0\.05 s: the sum") as caught:
        eventually(condition, 0.05, "the sum")
    assert "1 + 1" in str(caught.value.__cause__)


def test_eventually_asks_once_more_after_its_time_when_it_was_held_up(monkeypatch):
    now = [0.0]
    held_up = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: now.__setitem__(0, now[0] + 100.0))
    monkeypatch.setattr(fix_waiting, "time", held_up)
    assert eventually(lambda: now[0] == 100.0, 5)
    with pytest.raises(AssertionError, match="not within 5 s"):
        eventually(lambda: False, 5)


def test_eventually_lets_other_errors_out_at_once():
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)


async def test_aeventually_lets_the_loop_go_on():
    import asyncio  # noqa: PLC0415

    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, done.set)
    assert await aeventually(done.is_set)
    with pytest.raises(AssertionError, match="not within"):
        await aeventually(lambda: False, 0.02)


# ---------------------------------------------------------------------- servers


def test_the_shared_server_is_there_with_jetstream(nats_server):
    with Wire(nats_server.url) as wire:
        assert "error" not in wire.ask("$JS.API.INFO")
    wanted = session_version()
    if wanted:
        assert ".".join(map(str, nats_server.version)) == wanted


def test_the_server_tells_of_connections_subscriptions_and_consumers(make_server):
    server = make_server()
    assert server.connections() == []
    with Wire(server.url, "somebody") as wire:
        wire.make_stream("S")
        assert server.consumers() == []
        wire.make_consumer("S", "c1")
        assert server.consumers() == server.consumers("S") == ["c1"]
        assert server.consumers("T") == []
        wire.send("SUB weather.> 9")
        wire.ping()
        assert len(server.connections("somebody")) == 1
        assert server.connections("nobody") == []
        assert "weather.>" in server.subscriptions("somebody")
    eventually(lambda: server.connections() == [])


@pytest.mark.parametrize("hard", [False, True])
def test_a_restart_keeps_port_and_store(make_server, hard):
    server = make_server()
    url, pid = server.url, server.pid
    with Wire(url) as wire:
        wire.make_stream("S")
        assert wire.ask("S.a", {"n": 1})["seq"] == 1
        server.restart(hard=hard)
        with pytest.raises(ConnectionError):
            wire.ping()
    assert server.url == url
    assert server.pid != pid
    with Wire(url) as wire:
        assert wire.messages("S") == 1


def test_a_stopped_server_refuses_and_says_that_it_shut_down(make_server):
    server = make_server()
    server.stop()
    assert not server.running
    assert "Initiating Shutdown" in server.log
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, server.port), timeout=2)
    server.stop()


def test_a_killed_server_has_no_time_to_say_so(make_server):
    server = make_server()
    server.kill()
    assert not server.running
    assert "Shutdown" not in server.log


def test_a_frozen_server_answers_only_when_thawed(make_server):
    server = make_server()
    with Wire(server.url) as wire:
        server.freeze()
        wire.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.ping()
        server.thaw()
    with Wire(server.url):
        pass


def test_a_server_does_not_outlive_a_test_run_that_is_killed(tmp_path):
    program = f"""
import pathlib, time
from tests.fix_servers import NatsServer
print(NatsServer(pathlib.Path({str(tmp_path)!r})).start().pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        os.kill(pid, 0)
        run.kill()

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    eventually(gone, 10)


def test_extra_configuration_reaches_the_server(make_server):
    server = make_server(config='authorization { token: "sesame" }', jetstream=None)
    with pytest.raises(AssertionError, match="Authorization Violation"):
        Wire(server.url)
    assert server.ask("varz")["jetstream"] == {}


def test_a_server_that_cannot_start_says_why(make_server):
    with pytest.raises(RuntimeError, match="no_such_option"):
        make_server(config="no_such_option: 1")


def test_free_ports_are_below_the_ephemeral_range_and_never_given_twice():
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 32_768


def test_any_server_is_each_supported_release(any_server, request):
    version = ".".join(map(str, any_server.version))
    assert version in SERVER_VERSIONS
    assert version in request.node.name


def test_the_release_that_is_refused_can_be_had(make_server):
    server = make_server(version=REFUSED_VERSION)
    assert server.version[:2] == (2, 10)


def test_bucket_names_differ_and_are_names(bucket_name, request):
    assert bucket_name.replace("_", "").isalnum()
    assert len(bucket_name) <= 128


def test_the_settings_point_at_the_shared_server(natskv, nats_server):
    from django.conf import settings  # noqa: PLC0415

    assert settings.NATSKV["default"]["SERVERS"] == [nats_server.url] == natskv["SERVERS"]


# ---------------------------------------------------------------------- credentials
#
# With the client library itself: signing and encrypting by hand would test this file's skill and not the fixtures.


async def jetstream_of(url: str, **options: Any) -> Any:
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=5, **options)
    try:
        return json.loads((await client.request("$JS.API.INFO")).data)
    finally:
        await client.close()


async def test_an_nkey_opens_the_server_that_was_told_of_it(make_server, nkey):
    server = make_server(config=nkey.server_config())
    assert "error" not in await jetstream_of(server.url, nkeys_seed_str=nkey.seed)
    with pytest.raises(AssertionError, match="Authorization Violation"):
        Wire(server.url)


async def test_a_credentials_file_opens_an_account_with_jetstream(make_server, credentials):
    server = make_server(config=credentials.config)
    assert "error" not in await jetstream_of(server.url, user_credentials=str(credentials.path))
    assert "BEGIN NATS USER JWT" in credentials.text
    with pytest.raises(AssertionError, match="Authorization Violation"):
        Wire(server.url)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("first", [False, True])
async def test_certificates_encrypt_and_identify(make_server, certificates, verify, first):
    server = make_server(config=certificates.server_config(verify=verify, handshake_first=first))
    context = certificates.client_context(certificate=verify)
    assert "error" not in await jetstream_of(server.tls_url, tls=context, tls_handshake_first=first)


def test_the_other_authority_signed_nothing_here(certificates):
    context = ssl.create_default_context(cafile=certificates.other_ca)
    (other,) = context.get_ca_certs(binary_form=True)
    (ours,) = certificates.client_context().get_ca_certs(binary_form=True)
    assert other != ours


# ---------------------------------------------------------------------- the cluster


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_elects_a_new_leader_and_keeps_what_it_acknowledged(make_cluster):
    cluster = make_cluster()
    assert cluster.meta_leader in cluster.servers
    with Wire(cluster.urls[0]) as wire:
        eventually(lambda: "error" not in wire.make_stream("S", num_replicas=3))
        assert wire.ask("S.a", {"n": 1})["seq"] == 1
    leader = eventually(lambda: cluster.leader("S"))
    leader.kill()
    other = next(server for server in cluster.servers if server.running)
    new = eventually(lambda: cluster.leader("S"), 30)
    assert new is not leader

    def stored() -> int:
        with Wire(other.url) as wire:
            wire.socket.settimeout(1)
            try:
                return wire.messages("S")
            except (TimeoutError, KeyError):  # elected, and not at work yet (F20)
                return 0

    assert eventually(stored, 20) == 1
    leader.start()
    eventually(lambda: all(server.healthy for server in cluster.servers), 20)


# ---------------------------------------------------------------------- the proxy


@pytest.fixture
def proxy(make_proxy, nats_server) -> Proxy:
    return make_proxy(nats_server.url)


def test_the_proxy_forwards_both_ways_and_much(proxy):
    with Wire(proxy.url, "through") as wire:
        assert "error" not in wire.ask("$JS.API.INFO")
        wire.send("SUB echo 7")
        body = "x" * 700_000
        sender = threading.Thread(target=wire.send, args=(f"PUB echo {len(body)}\r\n{body}",))
        sender.start()
        assert wire.line() == f"MSG echo 7 {len(body)}"
        assert wire.file.read(len(body)) == body.encode()
        sender.join()
        assert proxy.connections == 1
    eventually(lambda: proxy.connections == 0)
    assert proxy.accepted == 1


def test_closing_the_client_closes_the_other_end(proxy, nats_server):
    with Wire(proxy.url, "leaver"):
        assert len(nats_server.connections("leaver")) == 1
    eventually(lambda: nats_server.connections("leaver") == [])


def test_the_servers_end_reaches_the_client(make_proxy, make_server):
    server = make_server()
    proxy = make_proxy(server.url)
    with Wire(proxy.url) as wire:
        server.kill()
        with pytest.raises(ConnectionError):
            wire.line()
    # The proxy listens still, with nothing behind it: a connection is taken and closed.
    with pytest.raises(ConnectionError):
        Wire(proxy.url)
    server.start()
    with Wire(proxy.url):
        pass


@pytest.mark.parametrize("reset", [True, False])
def test_cut_breaks_what_exists_and_welcomes_what_comes(proxy, reset):
    with Wire(proxy.url) as wire:
        assert proxy.cut(reset=reset) == 1
        with pytest.raises(ConnectionResetError if reset else ConnectionError):
            wire.line()
    with Wire(proxy.url):
        pass


def test_refuse_and_accept_leave_existing_connections_alone(proxy):
    with Wire(proxy.url) as wire:
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            Wire(proxy.url)
        wire.ping()
        proxy.accept()
        with Wire(proxy.url):
            wire.ping()


def test_refuse_can_cut_too(proxy):
    with Wire(proxy.url) as wire:
        proxy.refuse(cut=True)
        with pytest.raises(ConnectionError):
            wire.line()
    proxy.accept()
    with Wire(proxy.url):
        pass


@pytest.mark.parametrize("refuse", [True, False])
def test_a_cut_breaks_also_what_is_just_being_taken(proxy, refuse):
    for _ in range(20):
        with socket.create_connection((HOST, proxy.port), 20) as client:
            if refuse:
                proxy.refuse(cut=True)
            else:
                proxy.cut()
            with pytest.raises(ConnectionResetError):
                list(iter(lambda: client.recv(4096), b""))  # a greeting may have come through
        proxy.accept()


def test_a_black_hole_swallows_and_a_healed_one_delivers(proxy):
    with Wire(proxy.url) as wire:
        proxy.blackhole()
        wire.send("PING")
        wire.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            wire.socket.recv(1, socket.MSG_PEEK)
        with socket.create_connection((HOST, proxy.port), timeout=0.2) as new, pytest.raises(TimeoutError):
            new.recv(1)  # no INFO
        proxy.heal()
        wire.socket.settimeout(5)
        assert wire.line() == "PONG"


def test_a_cut_in_a_black_hole_loses_what_was_held(proxy, nats_server):
    with Wire(nats_server.url) as listener, Wire(proxy.url) as wire:
        listener.send("SUB lost 1")
        listener.ping()
        proxy.blackhole()
        wire.send("PUB lost 1\r\nx")
        assert proxy.cut() == 1
        assert proxy.connections == 0
        proxy.heal()
        with pytest.raises(ConnectionError):
            wire.line()
        with Wire(proxy.url) as again:
            again.send("PUB lost 1\r\ny")
            assert listener.line() == "MSG lost 1 1"
            assert listener.line() == "y"


def test_held_replies_make_a_request_that_happened_and_was_not_answered(proxy, nats_server):
    with Wire(nats_server.url) as witness, Wire(proxy.url) as wire:
        witness.make_stream("HELD", storage="memory")
        with proxy.paused("replies"):
            wire.send("PUB HELD.a 1\r\nx")
            wire.send("PING")
            eventually(lambda: witness.messages("HELD") == 1)
            wire.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                wire.socket.recv(1, socket.MSG_PEEK)
        wire.socket.settimeout(5)
        assert wire.line() == "PONG"
        with proxy.paused("requests"):
            wire.send("PUB HELD.a 1\r\nx")
            assert witness.messages("HELD") == 1
        eventually(lambda: witness.messages("HELD") == 2)


def test_closing_a_proxy_ends_its_thread_even_in_a_black_hole(nats_server):
    before = threading.active_count()
    proxy = Proxy(nats_server.url).start()
    with Wire(proxy.url) as wire:
        proxy.blackhole()
        started = time.monotonic()
        proxy.close()
        assert time.monotonic() - started < 2
        with pytest.raises(ConnectionError):
            wire.line()
    assert threading.active_count() == before
