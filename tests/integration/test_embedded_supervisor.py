"""The supervisor's own rules, with supervisors in this process and servers that misbehave (ADR 0006)."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from django_natskv import server
from django_natskv.exceptions import ConnectFailed
from django_natskv.server import _files, _join, _supervisor
from django_natskv.server._supervisor import BusyError, StartError, Supervisor
from tests.fix_embedded import is_running, kill, opened_below, state_of
from tests.fix_servers import free_port
from tests.fix_waiting import eventually

Make = Callable[..., Supervisor]


@pytest.fixture
def make(place: Path) -> Iterator[Make]:
    """Make supervisors of ``place`` that write to its log, and close them at the end."""
    place.mkdir(parents=True, mode=0o700)
    made: list[Supervisor] = []
    with (place / _files.LOG).open("ab") as log:

        def build(binary: Path | None = None, grace: float | None = None, port: int = 0) -> Supervisor:
            made.append(Supervisor(place, binary or server.find_binary(), grace, log, port=port))
            return made[-1]

        yield build
        for supervisor in made:
            supervisor.close()


def test_a_second_supervisor_is_told_that_it_is_busy(make: Make):
    make().start()
    with pytest.raises(BusyError, match="another process looks after"):
        make().start()


def test_closing_twice_is_closing_once(make: Make, place: Path):
    supervisor = make()
    pid = supervisor.start().pid
    supervisor.close()
    supervisor.close()
    assert not is_running(pid)
    assert state_of(place).name == ""


def test_the_handlers_of_signals_are_given_back(make: Make):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    supervisor = make()
    supervisor.start()
    supervisor.close()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)]
    assert after == before


def test_a_signal_during_the_start_ends_it(make: Make, tmp_path: Path):
    silent = _script(tmp_path, "kill -TERM $PPID; exec sleep 60")
    with pytest.raises(StartError, match="told to stop while it started"):
        make(silent).start()


def test_a_store_that_takes_too_long_is_given_up(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_supervisor, "_START_SECONDS", 0.2)
    monkeypatch.setattr(_supervisor, "_ATTEMPTS", 1)
    with pytest.raises(StartError, match="did not start"):
        make(_script(tmp_path, "exec sleep 60")).start()


def test_a_server_that_ignores_the_order_to_end_is_killed(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    up = tmp_path / "up"
    end = Supervisor._end_child

    def end_once_it_ignores_that(supervisor: Supervisor) -> None:
        eventually(up.exists, 30)
        end(supervisor)

    monkeypatch.setattr(Supervisor, "_end_child", end_once_it_ignores_that)
    monkeypatch.setattr(_supervisor, "_START_SECONDS", 0.2)
    monkeypatch.setattr(_supervisor, "_STOP_SECONDS", 0.2)
    monkeypatch.setattr(_supervisor, "_ATTEMPTS", 1)
    with pytest.raises(StartError, match="exit status -9"):
        make(_script(tmp_path, f"trap '' TERM; touch {up}; while :; do sleep 0.05; done")).start()


def test_a_server_that_cannot_be_started_again_ends_the_supervisor(make: Make, place: Path, tmp_path: Path):
    binary = tmp_path / "nats-server"
    binary.symlink_to(server.find_binary())
    supervisor = make(binary)
    state = supervisor.start()
    binary.unlink()
    _script(tmp_path, "exit 7").rename(binary)
    kill(state.pid)
    supervisor.watch()
    assert "could not be started again: nats-server did not start (exit status 7)" in (place / _files.LOG).read_text()


def test_a_chosen_port_is_the_only_one_tried(make: Make, tmp_path: Path, place: Path):
    with pytest.raises(StartError, match="exit status 7"):
        make(_script(tmp_path, "echo tried >&2; exit 7"), port=free_port()).start()
    assert (place / _files.LOG).read_text().count("tried") == 1


def test_without_users_it_ends_after_its_grace(make: Make):
    supervisor = make(grace=0.3)
    pid = supervisor.start().pid
    supervisor.watch()
    assert is_running(pid)  # until close(): newcomers wait for the lease meanwhile
    supervisor.close()
    assert not is_running(pid)


def test_its_grace_begins_when_nobody_uses_it_and_not_at_the_last_look_before(
    make: Make, place: Path, monkeypatch: pytest.MonkeyPatch
):
    """However long it was held up between two looks."""
    supervisor = make(grace=5.0)
    supervisor.start()
    now = time.monotonic()
    monkeypatch.setattr(_supervisor, "time", SimpleNamespace(monotonic=lambda: now, strftime=time.strftime))
    lease = _files.take(place / _files.LEASE, shared=True)
    assert lease is not None
    assert not supervisor._is_unused()
    now += 10
    _files.release(lease)
    assert not supervisor._is_unused()
    now += 4.9
    assert not supervisor._is_unused()
    now += 0.2
    assert supervisor._is_unused()


def test_a_newcomer_waits_for_one_that_is_ending(make: Make, place: Path):
    supervisor = make(grace=0.0)
    supervisor.start()
    supervisor.watch()
    with pytest.raises(ConnectFailed, match="did not start in time"):
        server.ensure_running(place, timeout=0.1)
    supervisor.close()
    assert server.ensure_running(place).pid


@pytest.mark.parametrize("moment", ["while it looks", "before it looks"])
def test_a_deleted_directory_ends_it(make: Make, place: Path, monkeypatch: pytest.MonkeyPatch, moment: str):
    supervisor = make()
    supervisor.start()

    def delete() -> None:
        aside = place.with_name("aside")
        place.rename(aside)  # all of it at once, whatever the server is just writing there
        shutil.rmtree(aside, ignore_errors=True)

    def delete_late() -> NoReturn:
        delete()
        raise FileNotFoundError(errno.ENOENT, "gone")

    if moment == "before it looks":
        delete()
    else:
        monkeypatch.setattr(supervisor, "_heal_state", delete_late)
    supervisor.watch()
    supervisor.close()
    assert not place.exists()


def test_another_failure_of_the_file_system_is_not_hidden(make: Make, monkeypatch: pytest.MonkeyPatch):
    supervisor = make()
    supervisor.start()

    def full() -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(supervisor, "_heal_state", full)
    with pytest.raises(OSError, match="No space left"):
        supervisor.watch()


def test_a_data_lock_held_by_a_stranger_is_a_clear_error(make: Make, place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_supervisor, "_STOP_SECONDS", 0.2)
    lock = _files.take(place / _files.SERVER)
    assert lock is not None
    try:
        with pytest.raises(StartError, match=r"server\.lock locked but does not answer"):
            make().start()
    finally:
        _files.release(lock)


def test_a_file_system_without_locks_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", refuse)
        with pytest.raises(ConnectFailed, match="No locks available"):
            server.ensure_running(place)
    assert opened_below(place) == []


def test_a_thread_waits_no_longer_for_another_than_its_timeout(place: Path, monkeypatch: pytest.MonkeyPatch):
    joined = _join._Joined()
    joined.mutex.acquire()
    monkeypatch.setattr(_join, "_joined", joined)
    with pytest.raises(ConnectFailed, match="did not start in time"):
        server.ensure_running(place, timeout=0.05)


def test_a_start_that_is_already_too_late_says_so(make: Make, place: Path):
    busy = make()
    assert busy._lock(_files.SUPERVISOR)  # a supervisor that is about to start its server
    with pytest.raises(ConnectFailed, match="did not start in time"):
        server.ensure_running(place, timeout=0.1)


def test_stop_says_when_it_has_not_ended_in_time(place: Path):
    server.ensure_running(place)
    supervisor = state_of(place).supervisor
    os.kill(supervisor, signal.SIGSTOP)  # or it may have ended before anybody looked
    try:
        with pytest.raises(ConnectFailed, match="told to stop, but still runs"):
            server.stop(place, timeout=0)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    eventually(lambda: server.running(place) is None, 30)


def test_one_that_was_started_beside_another_leaves_it_the_directory(make: Make, place: Path):
    pid = make().start().pid
    _join._launch(place, time.monotonic() + 30)
    assert is_running(pid)
    assert state_of(place).pid == pid


def test_a_file_that_cannot_be_written_is_a_clear_error(place: Path):
    (place / _files.CONFIG).mkdir(parents=True)
    with pytest.raises(ConnectFailed, match=r"could not be started: .*server\.conf"):
        server.ensure_running(place)


def test_the_foreground_says_when_another_is_just_starting(make: Make, place: Path):
    busy = make()
    assert busy._lock(_files.SUPERVISOR)
    with pytest.raises(ConnectFailed, match="Another process is starting or ending"), (place / "log").open("wb") as log:
        server.serve(place, log=log, announce=lambda _found: None)


def test_a_pipe_that_nobody_reads_does_not_keep_the_server_from_running(make: Make):
    """A starter that gave up waiting has closed its end."""
    supervisor = make()
    supervisor.say("x")
    reader, writer = os.pipe()
    os.close(reader)
    with closing(os.fdopen(writer, "wb", buffering=0)) as closed:
        Supervisor(supervisor.directory, supervisor.binary, None, closed).say("unheard")


def test_the_candidates_lie_below_the_range_of_outgoing_connections():
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        assert all(1024 < port < low for port in Supervisor._candidates(0))


def _script(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "fake"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path
