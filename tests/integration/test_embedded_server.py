"""What the embedded server promises to those who use it (ADR 0006)."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_natskv import server
from django_natskv.exceptions import ConnectFailed
from django_natskv.server import _files
from tests.fix_embedded import GRACE, User, get, is_running, opened_below, put, state_of, stays
from tests.fix_waiting import eventually

MakeUser = Callable[..., User]


def test_the_second_process_joins_the_server_of_the_first(joiner: MakeUser, place: Path):
    first, second = joiner(), joiner()
    one, other = first.join(), second.join()
    assert one == other
    assert one["directory"] == str(place)
    assert tuple(int(part) for part in one["version"].split(".")[:2]) >= server.MINIMUM_VERSION
    put(one, b"shared")
    assert get(other) == b"shared"


def test_ten_simultaneous_starters_end_with_one_server(joiner: MakeUser, place: Path):
    users = [joiner() for _ in range(10)]
    for one in users:
        one.tell("")
    joined = [one.joined() for one in users]
    assert {found.get("error") for found in joined} == {None}
    assert len({found["pid"] for found in joined}) == 1
    log = (place / _files.LOG).read_text()
    assert log.count("Starting nats-server") == 1


def test_threads_of_one_process_get_one_server(place: Path):
    found: list[server.EmbeddedServer] = []
    threads = [threading.Thread(target=lambda: found.append(server.ensure_running(place))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert opened_below(place) == [place / _files.LEASE]


def test_it_ends_when_its_last_user_is_gone_and_not_before(joiner: MakeUser, place: Path):
    first, second = joiner(), joiner()
    pid = first.join()["pid"]
    second.join()
    first.leave()
    stays(lambda: is_running(pid), 3 * GRACE)
    leaving = time.monotonic()
    second.leave()
    eventually(lambda: not is_running(pid), 30)
    assert time.monotonic() - leaving >= GRACE
    assert "nobody used the server" in (place / _files.LOG).read_text()
    assert server.running(place) is None


def test_users_that_come_and_go_keep_it_running(joiner: MakeUser):
    pid = joiner().join()["pid"]
    until = time.monotonic() + 4 * GRACE
    while time.monotonic() < until:
        passing = joiner()
        assert passing.join()["pid"] == pid
        passing.leave()


def test_a_user_that_comes_while_it_ends_gets_a_server(joiner: MakeUser, place: Path):
    first = joiner(NATSKV_EMBEDDED_GRACE="0")
    pid = first.join()["pid"]
    second = joiner()
    first.leave()
    eventually(lambda: not is_running(pid) or not state_of(place).name, 30)
    assert second.join()["pid"] != pid


def test_what_was_stored_is_there_at_the_next_start_and_the_port_and_password_stay(joiner: MakeUser):
    first = joiner()
    before = first.join()
    put(before, b"kept")
    first.leave()
    eventually(lambda: not is_running(before["pid"]), 30)
    after = joiner().join()
    assert get(after) == b"kept"
    assert after["pid"] != before["pid"]
    assert (after["url"], after["password"]) == (before["url"], before["password"])


def test_a_forked_child_that_goes_on_is_a_user(joiner: MakeUser, place: Path):
    parent = joiner()
    pid = parent.join()["pid"]
    # The child closes the pipes that it shares with its parent, or the parent would seem to be there still.
    parent.tell("import os, signal; child = os.fork(); child or (os.closerange(0, 3), signal.pause())")
    children = Path(f"/proc/{parent.process.pid}/task/{parent.process.pid}/children")
    child = int(eventually(lambda: children.read_text().split(), 30, "the child")[0])
    parent.kill()
    stays(lambda: is_running(pid), 3 * GRACE)
    os.kill(child, 9)
    eventually(lambda: not is_running(pid), 30)


def test_a_forked_child_can_ask_for_the_server_itself(joiner: MakeUser, place: Path):
    parent = joiner()
    joined = parent.join()
    parent.tell(
        "import os; os.fork() or (print(server.ensure_running(Path(sys.argv[1])).pid, flush=True), os._exit(0))",
    )
    assert parent._read() == str(joined["pid"])


def test_a_fork_amid_a_start_leaves_neither_mutex_nor_start_lock_behind(place: Path):
    place.mkdir(parents=True)
    joined = server._join._Joined()
    joined.starting = os.open(place, os.O_RDONLY)
    joined.mutex.acquire()
    joined.after_fork_in_child()
    assert vars(joined)["starting"] is None
    assert joined.mutex.acquire(blocking=False)
    assert opened_below(place) == []


def test_it_listens_on_the_loopback_only(joiner: MakeUser):
    joined = joiner().join()
    ours = [("127.0.0.1", int(joined["url"].rpartition(":")[2]))]
    eventually(lambda: _listening(joined["pid"]) == ours)  # while connections come and go, the tables may leave one out


def _listening(pid: int) -> list[tuple[str, int]]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kind, _, inode = str(descriptor.readlink()).partition(":")
        except FileNotFoundError:  # of a connection that has ended meanwhile
            continue
        if kind == "socket":
            inodes.add(inode.strip("[]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            local, listens, inode = line.split()[1], line.split()[3] == "0A", line.split()[9]
            if listens and inode in inodes:
                address, _, port = local.partition(":")
                found.append(
                    (socket.inet_ntoa(bytes.fromhex(address)[::-1]) if len(address) == 8 else address, int(port, 16))
                )
    return found


@pytest.mark.parametrize("login", [{}, {"user": "natskv", "pass": "guess"}], ids=["none", "wrong"])
def test_nobody_gets_in_without_the_password(place: Path, login: dict[str, str]):
    found = server.ensure_running(place)
    assert found.password not in repr(found)
    assert found.password not in found.url
    with socket.create_connection(("127.0.0.1", state_of(place).port), 30) as connection:
        connection.sendall(f"CONNECT {json.dumps({'verbose': False, **login})}\r\nPING\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b"-ERR 'Authorization Violation'" in answer
    assert b"PONG" not in answer


def test_its_files_are_its_owners_alone(place: Path):
    found = server.ensure_running(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    for name in (_files.STATE, _files.CONFIG, _files.LOG):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    assert (place / ".gitignore").read_text() == "*\n"
    assert found.password not in Path(f"/proc/{found.pid}/cmdline").read_text()
    assert found.password not in Path(f"/proc/{state_of(place).supervisor}/cmdline").read_text()


def test_a_directory_that_others_can_read_is_closed_when_it_is_ours(place: Path):
    place.mkdir(parents=True, mode=0o755)
    (place / ".gitkeep").touch()
    server.ensure_running(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_directory_that_holds_other_things_is_left_alone(tmp_path: Path):
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(ConnectFailed, match="holds other files"):
        server.ensure_running(tmp_path / "home")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o755


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ConnectFailed, match=r"cannot be started: .*file"):
        server.ensure_running(tmp_path / "file" / ".natskv")


def test_a_directory_that_cannot_be_found_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for directory in ("~nobody-of-this-name/data", str(tmp_path / "circle")):
        monkeypatch.setenv("NATSKV_EMBEDDED_DIR", directory)
        for call in (server.ensure_running, lambda: server.ensure_running(server.default_directory())):
            with pytest.raises(ConnectFailed, match=directory):
                call()


def test_a_moved_directory_is_another_project(place: Path, joiner: MakeUser):
    first = joiner()
    before = first.join()
    put(before, b"moved")
    first.leave()
    eventually(lambda: not is_running(before["pid"]), 30)
    place.parent.rename(place.parent.with_name("elsewhere"))
    moved = place.parent.with_name("elsewhere") / ".natskv"
    mover = User(moved)
    try:
        assert get(mover.join()) == b"moved"
        server.stop(moved)
    finally:
        mover.kill()


def test_the_environment_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert server.default_directory(tmp_path) == tmp_path / ".natskv"
    monkeypatch.chdir(tmp_path)
    assert server.default_directory() == tmp_path / ".natskv"
    monkeypatch.setenv("NATSKV_EMBEDDED_DIR", str(tmp_path / "data"))
    assert server.default_directory(tmp_path) == tmp_path / "data"


def test_stop_ends_it_though_it_is_used(joiner: MakeUser, place: Path):
    joined = joiner().join()
    assert server.stop(place) is True
    assert not is_running(joined["pid"])
    assert server.stop(place) is False


def test_looking_whether_it_runs_makes_and_starts_nothing(place: Path):
    assert server.running(place) is None
    assert not place.exists()


def test_the_starter_leaves_no_zombie_and_no_warning(place: Path):
    start = f"server.ensure_running(Path({str(place)!r}), timeout=30)"
    script = f"from pathlib import Path; from django_natskv import server; {start}"
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_state_file_is_plain_json(place: Path):
    found = server.ensure_running(place)
    state = json.loads((place / _files.STATE).read_text())
    assert f"nats://127.0.0.1:{state['port']}" == found.url
    assert (state["user"], state["password"]) == (found.user, found.password)
