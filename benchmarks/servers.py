"""The servers that are measured against: started here on free loopback ports, and ended with the benchmark.

Owns their processes and directories. Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from django_natskv.server import binary_version, find_binary

HOST = "127.0.0.1"
START_SECONDS = 10.0

NO_REDIS = """\
redis-server is not on PATH, and it is what everything here is compared with. Install it (Debian and Ubuntu:
apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis). Only --smoke, which measures
nothing worth reading, goes without."""


NO_MEMCACHED = """\
memcached is not on PATH (Debian and Ubuntu: apt-get install memcached): PyMemcacheCache is not measured."""


class Missing(Exception):  # noqa: N818 - reads as what it says
    """Something that the benchmark needs is not installed."""


@dataclass(frozen=True)
class Servers:
    """Where the servers listen. A Redis that keeps nothing stands beside memory storage, one that appends to a file
    every second beside file storage: nats-server flushes to disk in the background too."""

    nats: str
    redis: dict[str, str]  # by storage; empty without Redis
    memcached: str  # empty without memcached
    versions: dict[str, str]
    missing: tuple[str, ...] = ()  # what could not be started, as text


@contextlib.contextmanager
def running(*, redis: bool) -> Iterator[Servers]:
    """Start the servers, and end them at the end."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="natskv-bench-")))
        binary = find_binary()
        versions = {"nats-server": binary_version(binary)}
        port = free_port()
        config = place / "nats.conf"
        config.write_text(
            f"listen: {HOST}:{port}\n"
            f'jetstream: {{store_dir: "{place}/nats", max_memory_store: 2GB, max_file_store: 4GB}}\n'
        )
        stack.enter_context(process([str(binary), "-c", str(config)], place / "nats.log", port))
        found = {}
        if redis:
            versions["redis-server"] = redis_version()
            for storage, append in (("memory", "no"), ("file", "yes")):
                found[storage] = stack.enter_context(redis_server(place / f"redis-{storage}", append))
        memcached, missing = "", [] if redis else [NO_REDIS]
        if shutil.which("memcached"):
            versions["memcached"] = memcached_version()
            memcached = stack.enter_context(memcached_server(place / "memcached.log"))
        else:
            missing.append(NO_MEMCACHED)
        yield Servers(f"nats://{HOST}:{port}", found, memcached, versions, tuple(missing))


@contextlib.contextmanager
def redis_server(directory: Path, append: str) -> Iterator[str]:
    directory.mkdir()
    port = free_port()
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(directory),
        "save": "",
        "appendonly": append,
        "appendfsync": "everysec",
    }
    command = ["redis-server", *(part for name, value in options.items() for part in (f"--{name}", value))]
    with process(command, directory / "redis.log", port):
        yield f"redis://{HOST}:{port}/0"


@contextlib.contextmanager
def memcached_server(log: Path) -> Iterator[str]:
    port = free_port()
    command = ["memcached", "-l", HOST, "-p", str(port), "-U", "0", "-m", "1024"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command += ["-u", "root"]  # it does not run as root otherwise
    with process(command, log, port):
        yield f"{HOST}:{port}"


@contextlib.contextmanager
def process(command: list[str], log: Path, port: int, environment: dict[str, str] | None = None) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdin=quiet, stdout=output, stderr=subprocess.STDOUT, env=environment) as started,
    ):
        try:
            wait_for(port, started, log)
            yield
        finally:
            started.terminate()
            try:
                started.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                started.kill()


def wait_for(port: int, started: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        if started.poll() is not None or time.monotonic() > deadline:
            message = f"{started.args!r} does not listen on port {port}:\n{log.read_text(errors='replace')[-2000:]}"
            raise RuntimeError(message)
        time.sleep(0.02)


def redis_version() -> str:
    """Return the version of redis-server; ``Missing`` when there is none."""
    if shutil.which("redis-server") is None:
        raise Missing(NO_REDIS)
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"v=(\S+)", said)
    return match[1] if match else said.strip()


def memcached_version() -> str:
    said = subprocess.run(["memcached", "-V"], capture_output=True, text=True, check=True).stdout
    return said.split()[-1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
