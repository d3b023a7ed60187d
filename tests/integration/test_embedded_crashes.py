"""The embedded server after something died, was left behind, or was not what it seemed (ADR 0006)."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from django_natskv import server
from django_natskv.exceptions import ConnectFailed
from django_natskv.server import _files
from tests.fix_embedded import GRACE, User, get, is_running, kill, put, state_of, stays
from tests.fix_waiting import eventually

MakeUser = Callable[..., User]


def test_it_outlives_its_starter_killed_while_another_uses_it(joiner: MakeUser):
    starter, other = joiner(), joiner()
    pid = starter.join()["pid"]
    other.join()
    starter.kill()
    stays(lambda: is_running(pid), 3 * GRACE)
    assert joiner().join()["pid"] == pid


def test_it_ends_when_its_only_user_was_killed(joiner: MakeUser):
    only = joiner()
    pid = only.join()["pid"]
    only.kill()
    eventually(lambda: not is_running(pid), 30)


def test_a_killed_server_in_use_comes_back_where_it_was_with_its_data(joiner: MakeUser, place: Path):
    before = joiner().join()
    put(before, b"kept")
    kill(before["pid"])
    eventually(lambda: server.running(place), 30)
    after = joiner().join()
    assert after["pid"] != before["pid"]
    assert (after["url"], after["password"]) == (before["url"], before["password"])
    assert get(after) == b"kept"


def test_a_killed_server_that_nobody_uses_stays_down(joiner: MakeUser, place: Path):
    only = joiner(NATSKV_EMBEDDED_GRACE="60")
    pid = only.join()["pid"]
    supervisor = state_of(place).supervisor
    only.leave()
    kill(pid)
    eventually(lambda: not is_running(supervisor), 30)
    assert server.running(place) is None


def test_after_server_and_supervisor_were_killed_the_next_user_starts_it_with_the_data(joiner: MakeUser, place: Path):
    before = joiner().join()
    put(before, b"kept")
    kill(state_of(place).supervisor)
    eventually(lambda: not is_running(before["pid"]), 30)
    after = joiner().join()
    assert after["url"] == before["url"]
    assert get(after) == b"kept"


def test_a_process_that_was_using_a_dead_server_can_ask_again(place: Path):
    before = server.ensure_running(place)
    kill(state_of(place).supervisor)
    after = server.ensure_running(place)
    assert after.pid != before.pid
    assert after.url == before.url


def test_a_server_without_its_supervisor_is_ended_before_another_writes_the_data(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where the kernel does not end a child with its parent; here the server is made to ignore that it did."""
    real = server.find_binary()
    wrapper = tmp_path / "nats-server"
    # A shell that ignores nothing but stands between: the kernel ends the shell, and the server goes on.
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\n{real} "$@" & wait\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("NATSKV_SERVER_BINARY", str(wrapper))
    before = server.ensure_running(place)
    children = Path(f"/proc/{before.pid}/task/{before.pid}/children")
    orphan = int(children.read_text().split()[0])
    state = state_of(place)
    kill(state.supervisor)
    eventually(lambda: not is_running(before.pid), 30)
    assert is_running(orphan)
    assert server.running(place) is None
    # The shell's pid was recorded; what greets is the orphan.
    _files.save_state(place, dataclasses.replace(state, pid=orphan))
    monkeypatch.delenv("NATSKV_SERVER_BINARY")
    after = server.ensure_running(place, timeout=30)
    assert not is_running(orphan)
    assert after.pid != orphan


def test_a_stale_state_of_a_dead_process_is_no_obstacle(place: Path):
    place.mkdir(parents=True, mode=0o700)
    _files.save_state(place, _stale(port=_closed_port()))
    for name in (_files.START, _files.SUPERVISOR, _files.SERVER, _files.LEASE):
        (place / name).write_text("999999")
    found = server.ensure_running(place)
    assert is_running(found.pid)
    assert found.password == "of-the-last-run"


def test_a_port_that_another_program_has_taken_is_left_to_it(place: Path):
    place.mkdir(parents=True, mode=0o700)
    with _listener(b"220 mail.example.com ESMTP\r\n") as port:
        _files.save_state(place, _stale(port=port))
        assert server.ensure_running(place).url != f"nats://127.0.0.1:{port}"


def test_another_nats_server_on_the_port_is_not_taken_for_ours(place: Path):
    place.mkdir(parents=True, mode=0o700)
    with _listener(b'INFO {"server_name": "somebody-else", "version": "2.15.1"}\r\n') as port:
        _files.save_state(place, _stale(port=port))
        assert server.ensure_running(place).url != f"nats://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "greeting",
    [b"", b"INFO ", b"INFO [1]\r\n", b"INFO {\r\n", b"\xff\xfe\r\n", b"x" * 70_000],
    ids=["closes", "stops", "not an object", "not json", "not text", "too long"],
)
def test_a_strange_greeting_is_no_server(greeting: bytes):
    with _listener(greeting) as port:
        assert _files.greeting(port, 0.5) == {}


@pytest.mark.parametrize("text", ['{"port": 4222, "na', "[]", "{}", "", '{"port": "4222"}', "\x00\x01"])
def test_a_damaged_state_file_is_ignored_with_a_log_line(place: Path, text: str, caplog: pytest.LogCaptureFixture):
    place.mkdir(parents=True, mode=0o700)
    (place / _files.STATE).write_text(text)
    with caplog.at_level(logging.WARNING, "django_natskv.server"):
        found = server.ensure_running(place)
    assert is_running(found.pid)
    assert "state.json cannot be read and is ignored" in caplog.text


def test_a_state_file_damaged_or_deleted_while_the_server_runs_is_written_again(place: Path):
    before = server.ensure_running(place)
    (place / _files.STATE).write_text('{"port": 1')
    assert server.ensure_running(place) == before
    (place / _files.STATE).unlink()
    assert server.ensure_running(place) == before


def test_a_deleted_directory_ends_its_server_and_a_new_one_starts(place: Path):
    before = server.ensure_running(place)
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    after = server.ensure_running(place)
    assert after.pid != before.pid
    eventually(lambda: not is_running(before.pid), 30)
    stays(lambda: is_running(after.pid), 2 * GRACE)


def test_a_server_that_keeps_dying_is_given_up(place: Path, joiner: MakeUser):
    joiner().join()
    supervisor = state_of(place).supervisor

    def killed_until_given_up() -> bool:
        state = state_of(place)
        if is_running(state.pid):
            kill(state.pid)
        return not is_running(supervisor)

    eventually(killed_until_given_up, 45)
    assert is_running(server.ensure_running(place).pid)


def test_a_starter_that_was_killed_amid_the_start_is_no_obstacle(place: Path, joiner: MakeUser):
    starter = joiner()
    starter.tell("")
    eventually((place / _files.START).exists, 30)
    starter.kill()
    found = joiner().join()
    assert is_running(found["pid"])


def test_a_start_lock_held_for_too_long_is_a_clear_error(place: Path):
    place.mkdir(parents=True, mode=0o700)
    lock = _files.take(place / _files.START)
    assert lock is not None
    try:
        with pytest.raises(ConnectFailed, match="did not start in time"):
            server.ensure_running(place, timeout=0.2)
    finally:
        _files.release(lock)


def test_a_long_log_is_put_aside(place: Path):
    place.mkdir(parents=True, mode=0o700)
    (place / _files.LOG).write_text("old\n" * 2**19)
    server.ensure_running(place)
    assert (place / "server.log.1").read_text().startswith("old")
    assert "old" not in (place / _files.LOG).read_text()


def _stale(port: int) -> _files.State:
    return _files.State(
        port=port,
        name="natskv-0000000000000000",
        version="2.15.1",
        pid=2**22 - 1,
        supervisor=2**22 - 2,
        user="natskv",
        password="of-the-last-run",
    )


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def _listener(greeting: bytes) -> Iterator[int]:
    """Some other program: greets whoever connects, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.sendall(greeting)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_what_is_not_a_state_is_said_precisely(tmp_path: Path):
    (tmp_path / _files.STATE).write_text(json.dumps({**dataclasses.asdict(_stale(1)), "pid": "7"}))
    with pytest.raises(ValueError, match="'pid' is missing or of the wrong type"):
        _files.load_state(tmp_path)
