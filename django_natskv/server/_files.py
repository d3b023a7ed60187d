"""What processes that share one embedded server meet in: locks, the state file, and the server's greeting.

Owns the names and formats in the data directory. Must not know who starts or ends anything.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

if sys.platform != "win32":
    import fcntl

# Locks. The kernel drops a lock with the last process that holds it, however that process ends: none can be stale.
LEASE = "lease"  # shared: held by every process that uses the server; exclusive: the supervisor is shutting down
START = "start.lock"  # held by the one process that is starting a supervisor
SUPERVISOR = "supervisor.lock"  # held by the supervisor, as long as it lives
SERVER = "server.lock"  # held by the supervisor and its nats-server: whoever holds it may write the data

STATE = "state.json"
CONFIG = "server.conf"
LOG = "server.log"
STORE = "jetstream"

HOST = "127.0.0.1"
POLL = 0.02  # seconds between two looks at something that another process is about to change


@dataclass(frozen=True, slots=True)
class State:
    """What the supervisor says of its server. An empty ``name`` says that the server is being stopped.

    ``name`` is made anew with each start: a server that greets with it on ``port`` is the one described here, whatever
    else was started, killed or renumbered since.
    """

    port: int
    name: str
    version: str
    pid: int
    supervisor: int
    user: str
    password: str = field(repr=False)


def load_state(directory: Path) -> State | None:
    """Return the state, or None when there is none. Raises ``ValueError`` for a file that holds something else."""
    try:
        text = (directory / STATE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    raw: Any = json.loads(text)  # JSONDecodeError and UnicodeDecodeError are ValueErrors
    if not isinstance(raw, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for whatever is wrong in the file
    integers = {"port", "pid", "supervisor"}
    for name in (part.name for part in fields(State)):
        wanted = int if name in integers else str
        if type(raw.get(name)) is not wanted:
            raise ValueError(f"{name!r} is missing or of the wrong type")
    return State(**{part.name: raw[part.name] for part in fields(State)})


def save_state(directory: Path, state: State) -> None:
    """Replace the state file in one step: a reader sees the old one or the new one, never a part."""
    write_private(directory / STATE, json.dumps(asdict(state), indent=1))


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` in one step by a file that only its owner can read."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with suppress(FileNotFoundError):
        aside.unlink()  # of a process that had this pid and was killed while it wrote
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    aside.replace(path)


def take(path: Path, *, shared: bool = False, timeout: float = 0.0) -> int | None:
    """Lock ``path`` and return the descriptor that holds the lock, or None when others hold it after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if _try_lock(descriptor, shared=shared) and is_same_file(descriptor, path):
            return descriptor
        os.close(descriptor)
        if time.monotonic() >= deadline:
            return None
        time.sleep(POLL)


def release(descriptor: int) -> None:
    """Give the lock back, also for a child that was forked meanwhile and still has the descriptor open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_taken(path: Path) -> bool:
    """Return whether a process holds the exclusive lock on ``path``."""
    descriptor = take(path, shared=True)
    if descriptor is None:
        return True
    release(descriptor)
    return False


def is_same_file(descriptor: int, path: Path) -> bool:
    """Return whether ``descriptor`` is open on what ``path`` names now: the directory may have been deleted since."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def greeting(port: int, timeout: float = 1.0) -> dict[str, Any]:
    """Return what the NATS server on this loopback port says of itself; {} when none answers in ``timeout`` s."""
    deadline = time.monotonic() + timeout
    data = b""
    try:
        with socket.create_connection((HOST, port), timeout) as connection:
            while b"\r\n" not in data and len(data) < 2**16:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                received = connection.recv(4096)
                if not received:
                    return {}
                data += received
        verb, _, info = data.partition(b"\r\n")[0].partition(b" ")
        found: Any = json.loads(info) if verb == b"INFO" else {}
    except (OSError, ValueError, OverflowError):
        return {}
    return found if isinstance(found, dict) else {}


def is_alive(state: State) -> bool:
    """Return whether the very server that ``state`` describes is listening."""
    return bool(state.name) and greeting(state.port).get("server_name") == state.name


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        os.close(descriptor)
        raise
    return True
