"""A process's side of the embedded server: find it, have it started, and be counted among its users.

Owns this process's leases and the search for a running server. Must not know how the server is configured or kept up.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from django_natskv.exceptions import ConnectFailed
from django_natskv.server import _files
from django_natskv.server._binary import binary_version, find_binary
from django_natskv.server._directory import failures_named, prepare, resolve
from django_natskv.server._supervisor import BUSY, READY

GRACE_ENV = "NATSKV_EMBEDDED_GRACE"
DEFAULT_GRACE = 10.0

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from django_natskv.server._daemon import main; main()"

logger = logging.getLogger("django_natskv.server")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running embedded server. ``url`` holds no credentials; ``directory`` is where its data is."""

    url: str
    user: str
    password: str = field(repr=False)
    pid: int
    version: str
    directory: Path


class _Joined:
    """What this process holds: a lease a directory, as long as it lives, and one lock while it starts a server."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.leases: dict[Path, int] = {}
        self.starting: int | None = None

    def after_fork_in_child(self) -> None:
        """Keep the leases, for the child is a user too; drop what a thread that is not here was in the middle of."""
        self.mutex = threading.Lock()
        if self.starting is not None:
            os.close(self.starting)  # closing leaves the parent's lock alone, and keeping it open could outlive it
            self.starting = None


_joined = _Joined()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_joined.after_fork_in_child)


def ensure_running(directory: Path | None = None, *, timeout: float = 10.0) -> EmbeddedServer:
    """Return the embedded server that keeps its data in ``directory``, started if need be, and use it from now on.

    ``directory`` is ``default_directory()`` unless given, and is made, for its owner alone. ``timeout`` is in seconds.
    Blocks; any thread may call it, and calling it again checks again: it is what to do when the server was lost. The
    server then runs at least as long as this process and the children that it forks, whether they call it or not.

    Raises ``ConnectFailed`` when there is no nats-server to run, it is too old, it does not start in time (it may
    still come up, and a second call then finds it), or the directory cannot be used.
    """
    deadline = time.monotonic() + timeout
    with failures_named("be started"):
        place = prepare(directory)
        mutex = _joined.mutex  # a fork replaces the attribute
        if not mutex.acquire(timeout=max(timeout, 0)):
            raise _too_late(place)
        try:
            _hold_lease(place, deadline)
            return describe(place, _find(place) or _start(place, deadline))
        finally:
            mutex.release()


def running(directory: Path | None = None) -> EmbeddedServer | None:
    """Return the embedded server of ``directory`` if it runs now, without starting it or counting as a user of it."""
    with failures_named("be looked up"):
        place = resolve(directory)
        state = _find(place)
    return describe(place, state) if state else None


def stop(directory: Path | None = None, *, timeout: float = 15.0) -> bool:
    """End the embedded server of ``directory``, used or not, and return whether there was one. Its data stays.

    Raises ``ConnectFailed`` when it has not ended after ``timeout`` seconds, or belongs to another user.
    """
    with failures_named("be stopped"):
        place = resolve(directory)
        state = _find(place)
        if state is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.supervisor, signal.SIGTERM)
        deadline = time.monotonic() + timeout
        while _is_supervised_by(place, state.supervisor):
            if time.monotonic() >= deadline:
                raise ConnectFailed(f"The embedded server in {place} was told to stop, but still runs.")
            time.sleep(_files.POLL)
    return True


def _is_supervised_by(place: Path, supervisor: int) -> bool:
    """Return whether this supervisor still has the directory, and not another that was started meanwhile."""
    if not _files.is_taken(place / _files.SUPERVISOR):
        return False
    state = _load(place)
    return state is None or state.supervisor == supervisor


def _hold_lease(place: Path, deadline: float) -> None:
    path = place / _files.LEASE
    held = _joined.leases.get(place)
    if held is None or not _files.is_same_file(held, path):
        # A lease of a directory that was deleted is forgotten and not closed: if this process has closed all its
        # descriptors, as daemons do, then the number belongs to something else by now.
        lease = _files.take(path, shared=True, timeout=deadline - time.monotonic())
        if lease is None:
            raise _too_late(place)
        _joined.leases[place] = lease
    os.utime(path)


def describe(place: Path, state: _files.State) -> EmbeddedServer:
    """Return the server that ``state`` speaks of, for its users."""
    return EmbeddedServer(
        url=f"nats://{_files.HOST}:{state.port}",
        user=state.user,
        password=state.password,
        pid=state.pid,
        version=state.version,
        directory=place,
    )


def _find(place: Path) -> _files.State | None:
    """Return the running server, trusting no file: its supervisor holds a lock, and the server greets by its name."""
    state = _load(place)
    known = state is not None and _files.is_taken(place / _files.SUPERVISOR) and _files.is_alive(state)
    return state if known else None


def _load(place: Path) -> _files.State | None:
    try:
        return _files.load_state(place)
    except ValueError as error:
        logger.warning("%s cannot be read and is ignored: %s", place / _files.STATE, error)
        return None


def _start(place: Path, deadline: float) -> _files.State:
    """Have a supervisor started, by one process at a time, and wait until its server answers."""
    lock = _files.take(place / _files.START, timeout=deadline - time.monotonic())
    if lock is None:
        raise _too_late(place)
    _joined.starting = lock
    try:
        while (found := _find(place)) is None:
            if time.monotonic() >= deadline:
                raise _too_late(place)
            if _files.is_taken(place / _files.SUPERVISOR):
                time.sleep(_files.POLL)  # one is coming up, or going down
            else:
                _launch(place, deadline)
        return found
    finally:
        _joined.starting = None
        _files.release(lock)


def _launch(place: Path, deadline: float) -> None:
    """Start a supervisor and wait for its report."""
    binary = find_binary()
    binary_version(binary)
    package_root = Path(__file__).resolve().parent.parent.parent
    command = [sys.executable, "-I", "-c", _BOOT, str(package_root), str(place), str(binary), str(_grace())]
    with subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C in the starter's terminal, or closing it, is not for the server
        cwd="/",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        report = _read_report(process.stdout.fileno(), deadline)
    if report is None:
        raise _too_late(place)
    if report not in {READY, BUSY}:
        raise ConnectFailed(f"The embedded server could not be started: {report or 'no report'}")


def _read_report(descriptor: int, deadline: float) -> str | None:
    """Return what the supervisor wrote until it closed the pipe; None when it has not by the deadline."""
    data = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return None
        received = os.read(descriptor, 4096)
        if not received:
            return data.decode(errors="replace").strip()
        data += received


def _grace() -> float:
    given = os.environ.get(GRACE_ENV, "") or str(DEFAULT_GRACE)
    try:
        grace = float(given)
    except ValueError:
        grace = math.nan
    if not 0 <= grace < math.inf:
        raise ConnectFailed(f"{GRACE_ENV} is {given!r}; it is a number of seconds, for instance 10.")
    return grace


def _too_late(place: Path) -> ConnectFailed:
    return ConnectFailed(f"The embedded server did not start in time. Its log is {place / _files.LOG}.")
