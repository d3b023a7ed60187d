"""The process that looks after one nats-server: starts it, restarts it, and ends it when nobody uses it.

Owns the nats-server process, its configuration and the state file. Must not know who asked for the server: users are
seen only as holders of the lease.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from django_natskv.server import _files
from django_natskv.server._files import State

USER = "natskv"
READY = "ready"
BUSY = "busy"

_TICK = 0.25  # seconds between two looks at the users, the files and the server
_START_SECONDS = 60.0  # a store that has grown large is read through before the server answers
_STOP_SECONDS = 10.0
_QUICK_DEATH = 2.0  # seconds; a server that lives shorter than this, three times in a row, is given up
_ATTEMPTS = 3
# Below the range from which systems number outgoing connections (from 32768 on Linux, 49152 elsewhere): a client that
# redials a dead port of that range can be connected to itself, and then keeps the port from the server.
_PORTS = (20_000, 32_000)


class StartError(Exception):
    """The server could not be started. The message says why; nothing was left running."""


class BusyError(StartError):
    """Another supervisor looks after this directory."""


@dataclass
class Supervisor:
    """One run of a supervisor.

    ``grace`` is how many seconds the server outlives its last user; None: until it is told to stop. ``log`` receives
    the output of nats-server. ``start()``, then ``watch()``, then ``close()``, which is safe after either has failed.
    """

    directory: Path
    binary: Path
    grace: float | None
    log: IO[Any] | int
    port: int = 0  # 0: the port of the last run if it is free, else any
    state: State | None = None
    _child: subprocess.Popen[bytes] | None = None
    _locks: dict[str, int] = field(default_factory=dict)
    _handlers: dict[int, Any] = field(default_factory=dict)
    _pipe: tuple[int, int] | None = None
    _stopping: bool = False
    _lease_used: int = 0
    _idle_since: float | None = None  # when nobody was first seen to use it; None while somebody does
    _started: float = 0.0
    _quick_deaths: int = 0

    def start(self) -> State:
        """Start the server and return its state, which is then on disk. Raises ``StartError``, or ``BusyError``."""
        self._catch_signals()
        # A process that asks whether there is a supervisor holds the lock for an instant.
        if not self._lock(_files.SUPERVISOR, timeout=1.0):
            raise BusyError(f"another process looks after the server in {self.directory}")
        previous = self._previous()
        if not self._lock(_files.SERVER):
            self._end_orphan(previous)
        password = previous.password if previous else secrets.token_hex(16)
        self.state = self._launch_somewhere(self.port or (previous.port if previous else 0), password)
        self._lease_used, self._idle_since = self._last_use(), time.monotonic()
        return self.state

    def watch(self) -> None:
        """Return when the server is to end: told so, unused for ``grace`` seconds, deleted, or not to be kept up."""
        try:
            while not self._told_to_stop(_TICK):
                if self._is_deleted() or not self._keep_up() or self._is_unused():
                    return
                self._heal_state()
        except OSError as error:
            if not self._is_deleted():
                raise
            self.say(f"the directory was deleted meanwhile: {error}")

    def close(self) -> None:
        """End the server, wait for it, and give all locks back."""
        if self.state and not self._is_deleted():
            # Whoever looks now must wait for the locks, not trust a server that still greets.
            _files.save_state(self.directory, replace(self.state, name=""))
        self._end_child()
        for descriptor in self._locks.values():
            _files.release(descriptor)
        self._locks.clear()
        self._restore_signals()

    def say(self, text: str) -> None:
        """Write one line to the log."""
        line = f"[{os.getpid()}] {time.strftime('%Y/%m/%d %H:%M:%S')} natskv: {text}\n"
        descriptor = self.log if isinstance(self.log, int) else self.log.fileno()
        with suppress(OSError):
            os.write(descriptor, line.encode(errors="backslashreplace"))

    # ------------------------------------------------------------------ the server

    def _launch_somewhere(self, wanted: int, password: str) -> State:
        """Start the server on ``wanted`` if it can be had, else on another port, unless the port was asked for."""
        reason = f"port {wanted} of {_files.HOST} is in use"
        for port in [self.port] if self.port else self._candidates(wanted):
            if not _is_free(port):
                continue
            try:
                return self._launch(port, password)
            except StartError as error:
                reason = str(error)
            if self._stopping:
                break
        raise StartError(reason)

    @staticmethod
    def _candidates(wanted: int) -> Iterator[int]:
        """Yield the port of the last run first: clients of that server are still dialling it."""
        if wanted:
            yield wanted
        low, high = _PORTS
        yield from (low + secrets.randbelow(high - low) for _ in range(_ATTEMPTS))

    def _launch(self, port: int, password: str) -> State:
        name = f"natskv-{secrets.token_hex(8)}"
        config = (
            f"server_name: {name}\n"
            f'listen: "{_files.HOST}:{port}"\n'
            f'authorization {{ user: {USER}, password: "{password}" }}\n'
            # Relative to the working directory, so that no path has to be quoted and the directory can be moved.
            f'jetstream {{ store_dir: "{_files.STORE}" }}\n'
        )
        # A file and not arguments: every user of the machine can read those.
        _files.write_private(self.directory / _files.CONFIG, config)
        self._started = time.monotonic()
        self._child = subprocess.Popen(  # noqa: S603 - the executable that the project was told to use
            [self.binary, "-c", _files.CONFIG],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[self._locks[_files.SERVER]],  # the data stays locked while the server lives, whatever we do
            process_group=0,  # Ctrl-C is for us: we end the server, in order
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - this process has one thread
        )
        version = self._await_greeting(self._child, port, name)
        state = State(
            port=port,
            name=name,
            version=version,
            pid=self._child.pid,
            supervisor=os.getpid(),
            user=USER,
            password=password,
        )
        _files.save_state(self.directory, state)
        return state

    def _await_greeting(self, child: subprocess.Popen[bytes], port: int, name: str) -> str:
        """Return the server's version once it listens, which it does when the store is ready."""
        deadline = time.monotonic() + _START_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            info = _files.greeting(port)
            if info.get("server_name") == name:
                return str(info.get("version"))
            if self._told_to_stop(_files.POLL):
                break
        self._end_child()
        raise StartError(
            "it was told to stop while it started"
            if self._stopping
            else f"nats-server did not start (exit status {child.returncode})"
        )

    def _keep_up(self) -> bool:
        """Return whether the server runs; start it again when it has died while somebody uses it."""
        if self._child is None or self.state is None or self._child.poll() is None:
            return True
        quick = time.monotonic() - self._started < _QUICK_DEATH
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        self.say(f"nats-server has died, exit status {self._child.returncode}")
        if self._quick_deaths >= _ATTEMPTS or not self._is_used():
            return False
        try:
            self.state = self._launch_somewhere(self.state.port, self.state.password)
        except StartError as error:
            self.say(f"it could not be started again: {error}")
            return False
        self.say("nats-server was started again")
        return True

    def _end_child(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _end_orphan(self, previous: State | None) -> None:
        """End a server whose supervisor was killed, and which the system did not end with it."""
        if previous is not None and _files.is_alive(previous):
            with suppress(ProcessLookupError):
                os.kill(previous.pid, signal.SIGTERM)
        if not self._lock(_files.SERVER, timeout=_STOP_SECONDS):
            raise StartError(
                f"another process has {self.directory / _files.SERVER} locked but does not answer; "
                f"find it (lsof names it) and end it"
            )

    # ------------------------------------------------------------------ files and users

    def _lock(self, name: str, timeout: float = 0.0) -> bool:
        descriptor = _files.take(self.directory / name, timeout=timeout)
        if descriptor is not None:
            self._locks[name] = descriptor
        return descriptor is not None

    def _previous(self) -> State | None:
        try:
            return _files.load_state(self.directory)
        except ValueError as error:
            self.say(f"{_files.STATE} cannot be read and is made anew: {error}")
            return None

    def _heal_state(self) -> None:
        try:
            intact = _files.load_state(self.directory) == self.state
        except ValueError:
            intact = False
        if not intact and self.state is not None:
            _files.save_state(self.directory, self.state)

    def _is_deleted(self) -> bool:
        mine = self._locks.get(_files.SUPERVISOR)
        return mine is None or not _files.is_same_file(mine, self.directory / _files.SUPERVISOR)

    def _last_use(self) -> int:
        path = self.directory / _files.LEASE
        return path.stat().st_mtime_ns if path.exists() else 0

    def _is_used(self) -> bool:
        lease = None if self.grace is None else _files.take(self.directory / _files.LEASE)
        if lease is not None:
            _files.release(lease)
        return lease is None

    def _is_unused(self) -> bool:
        """Return whether nobody used the server for ``grace`` seconds; then the lease is ours, and newcomers wait."""
        if self.grace is None:
            return False
        used = self._last_use()  # users touch the lease: one that came and went between two looks counts too
        lease = _files.take(self.directory / _files.LEASE)
        now = time.monotonic()
        # Not since the last look that saw a user: this process may have been held up for long between two looks.
        if self._idle_since is None or used != self._lease_used:
            self._idle_since = now
        self._lease_used = used
        if lease is None:
            self._idle_since = None
            return False
        if now - self._idle_since < self.grace:
            _files.release(lease)
            return False
        self._locks[_files.LEASE] = lease
        self.say(f"nobody used the server for {self.grace:g} s")
        return True

    # ------------------------------------------------------------------ signals

    def _catch_signals(self) -> None:
        self._pipe = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True
        if self._pipe is not None:
            os.write(self._pipe[1], b".")  # wakes the select below; a death of the server is noticed at once

    def _told_to_stop(self, timeout: float) -> bool:
        """Wait for ``timeout`` seconds or a signal, and return whether it was one that ends us."""
        if self._pipe is not None and not self._stopping:
            ready, _, _ = select.select([self._pipe[0]], [], [], timeout)
            if ready:
                os.read(self._pipe[0], 512)
        return self._stopping


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: closed connections linger
        try:
            probe.bind((_files.HOST, port))
        except OSError:
            return False
    return True


def _die_with_parent() -> Any:
    """Return what a child calls to be ended by the kernel when its parent is killed, where the kernel can."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent, terminate, pr_set_pdeathsig = os.getpid(), int(signal.SIGTERM), 1

    def in_child() -> None:  # pragma: no cover - between fork and exec nothing is measured
        libc.prctl(pr_set_pdeathsig, terminate, 0, 0, 0)
        if os.getppid() != parent:  # it was killed before the line above
            os._exit(1)

    return in_child
