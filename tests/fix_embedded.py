"""Users of an embedded server: processes that join it and stay until they are told to go, or are killed.

Owns those processes and the end of the server after a test; knows nothing of what a test does with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from django_natskv import server
from django_natskv.server import _files
from tests.fix_waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
GRACE = 0.5  # seconds

_USER = """
import dataclasses, json, sys
from pathlib import Path
from django_natskv import server
print("up", flush=True)
sys.stdin.readline()
try:
    print(json.dumps(dataclasses.asdict(server.ensure_running(Path(sys.argv[1]), timeout=30)), default=str), flush=True)
except Exception as error:
    print(json.dumps({"error": str(error), "type": type(error).__name__}), flush=True)
exec(sys.stdin.readline())
sys.stdin.readline()
"""


class User:
    """A process that joins the server of ``directory`` when told to, and stays until ``leave()`` or ``kill()``."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        assert self._read() == "up"

    def join(self) -> dict[str, Any]:
        self.tell("")
        return self.joined()

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def joined(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._read())
        return found

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=30)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory that does not exist yet. Whatever runs in it after the test is ended."""
    monkeypatch.setenv("NATSKV_EMBEDDED_GRACE", str(GRACE))
    monkeypatch.delenv("NATSKV_EMBEDDED_DIR", raising=False)
    directory = tmp_path / "project" / ".natskv"
    yield directory
    server.stop(directory)
    # The lease of this very process: given back, or the next server here would find a user.
    lease = server._join._joined.leases.pop(directory, None)
    if lease is not None:
        os.close(lease)
    if directory.exists():
        eventually(lambda: not _files.is_taken(directory / _files.SERVER), 30, "the server to end")


@pytest.fixture
def joiner(place: Path) -> Iterator[Callable[..., User]]:
    """Make users of ``place``; those still there at the end leave."""
    made: list[User] = []

    def make(**environment: str) -> User:
        made.append(User(place, **environment))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.kill()


def is_running(pid: int) -> bool:
    """Return whether the process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), 30, "a killed process to be gone")


def opened_below(directory: Path) -> list[Path]:
    """Return the files below ``directory`` that this process has open, once for each time."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # another thread has closed it meanwhile
            found.append(descriptor.readlink())
    return [path for path in found if path.is_relative_to(directory)]


def stays(condition: Callable[[], object], seconds: float) -> None:
    """Assert that ``condition`` holds for ``seconds``."""
    until = time.monotonic() + seconds
    broken = False

    def over() -> bool:
        nonlocal broken
        broken = broken or not condition()
        return broken or time.monotonic() >= until

    eventually(over, seconds + 10)
    assert not broken


def state_of(directory: Path) -> _files.State:
    state = _files.load_state(directory)
    assert state is not None
    return state


def put(joined: dict[str, Any], value: bytes) -> None:
    """Keep ``value`` in a bucket on file, under the one key of these tests."""

    async def work() -> None:
        client = await nats.connect(joined["url"], user=joined["user"], password=joined["password"])
        bucket = await client.jetstream().create_key_value(bucket="kept")
        await bucket.put("key", value)
        await client.close()

    asyncio.run(work())


def get(joined: dict[str, Any]) -> bytes | None:
    """Return what ``put`` kept."""

    async def work() -> bytes | None:
        client = await nats.connect(joined["url"], user=joined["user"], password=joined["password"])
        bucket = await client.jetstream().key_value("kept")
        entry = await bucket.get("key")
        await client.close()
        return entry.value

    return asyncio.run(work())
