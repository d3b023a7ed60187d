"""``manage.py natskv_server``, run as a user runs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_natskv import server
from tests.fix_embedded import ROOT, User, is_running
from tests.fix_servers import HOST, free_port
from tests.fix_waiting import eventually

MakeUser = Callable[..., User]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(place: Path) -> Iterator[Start]:
    """Start the command in the project's directory; what still runs at the end is killed."""
    place.parent.mkdir(parents=True)
    made: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "django", "natskv_server", *arguments],
                cwd=place.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "tests.settings"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return made[-1]

    yield run
    for process in made:
        process.kill()
        process.communicate()


@pytest.fixture
def call(start: Start) -> Callable[..., tuple[int, str, str]]:
    """Run the command to its end."""

    def run(*arguments: str) -> tuple[int, str, str]:
        process = start(*arguments)
        out, err = process.communicate(timeout=50)
        return process.returncode, out, err

    return run


Call = Callable[..., tuple[int, str, str]]


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_it_runs_until_it_is_told_to_stop_and_ends_in_order(start: Start, place: Path, number: signal.Signals):
    process = start()
    line = _first_line(process)
    found = server.running(place)
    assert found is not None
    assert line.startswith(f"{found.url}  nats-server {found.version}")
    assert str(place) in line
    process.send_signal(number)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (0, "")
    assert "Server is ready" in err
    assert "Server Exiting" in err
    assert "Ctrl-C ends it" in err
    assert "Traceback" not in err
    assert found.password not in line + err
    assert not is_running(found.pid)
    assert server.running(place) is None


def test_with_verbosity_0_it_prints_the_url_alone(start: Start, place: Path):
    process = start("--verbosity", "0")
    assert _first_line(process).startswith("nats://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=50)[1] == ""


def test_others_join_it_and_it_outlives_them(start: Start, joiner: MakeUser, place: Path):
    url = _first_line(start()).split()[0]
    guest = joiner()
    assert guest.join()["url"] == url
    guest.leave()
    assert server.running(place) is not None


def test_a_second_start_is_refused_with_the_url_of_the_first(start: Start, call: Call):
    url = _first_line(start()).split()[0]
    code, out, err = call()
    assert (code, out) == (1, "")
    assert url in err
    assert "runs already" in err
    assert err.count("\n") == 1


def test_a_start_beside_the_background_server_is_refused(joiner: MakeUser, call: Call):
    url = joiner().join()["url"]
    code, _, err = call()
    assert code == 1
    assert url in err


def test_it_is_kept_up(start: Start, place: Path):
    _first_line(start())
    found = server.running(place)
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)

    def again() -> bool:
        now = server.running(place)
        return now is not None and now.pid != found.pid and now.url == found.url

    eventually(again)


def test_a_killed_command_leaves_no_server(start: Start, place: Path):
    process = start()
    _first_line(process)
    found = server.running(place)
    assert found is not None
    process.kill()
    eventually(lambda: not is_running(found.pid))


def test_the_port_can_be_chosen(start: Start, call: Call):
    port = free_port()  # which no outgoing connection of anybody takes meanwhile
    with socket.create_server((HOST, port)):
        code, out, err = call("--port", str(port))
        assert (code, out) == (1, "")
        assert err == f"CommandError: The embedded server could not be started: port {port} of 127.0.0.1 is in use.\n"
    assert _first_line(start("--port", str(port))).split()[0] == f"nats://127.0.0.1:{port}"


def test_the_directory_can_be_chosen(start: Start, tmp_path: Path):
    process = start("--directory", str(tmp_path / "data"))
    assert str(tmp_path / "data") in _first_line(process)
    assert server.running(tmp_path / "data") is not None


def test_status_tells_whether_it_runs(call: Call, joiner: MakeUser, place: Path):
    code, out, err = call("--status")
    assert (code, out, err) == (1, "", f"CommandError: No embedded server runs in {place}.\n")
    joined = joiner().join()
    code, out, err = call("--status")
    assert (code, err) == (0, "")
    assert out.split()[0] == joined["url"]


def test_stop_ends_the_background_server(call: Call, joiner: MakeUser, place: Path):
    joined = joiner().join()
    code, out, err = call("--stop")
    assert (code, out) == (0, "")
    assert "The data is kept" in err
    assert not is_running(joined["pid"])
    assert call("--stop") == (1, "", f"CommandError: No embedded server runs in {place}.\n")


def test_stop_ends_the_foreground_server(call: Call, start: Start):
    process = start()
    _first_line(process)
    assert call("--stop", "-v", "0") == (0, "", "")
    process.communicate(timeout=50)
    assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [("--port", "0"), ("--port", "65536"), ("--port", "http"), ("--status", "--stop"), ("extra",)],
    ids=" ".join,
)
def test_a_mistake_in_the_call_is_exit_status_2(call: Call, arguments: tuple[str, ...]):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_a_missing_binary_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NATSKV_SERVER_BINARY", "/nowhere/nats-server")
    code, out, err = call()
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "/nowhere/nats-server" in err


def test_help_has_an_example(call: Call):
    code, out, _ = call("--help")
    assert code == 0
    assert "manage.py natskv_server --port 4222" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "x"], "port"),
        (["--port", "0"], "port"),
        (["--nothing"], "--nothing"),
        (["--status", "--stop"], "--stop"),
    ],
)
def test_a_mistake_in_the_call_is_one_line(start: Start, arguments: list[str], word: str) -> None:
    process = start(*arguments)
    out, err = process.communicate(timeout=50)
    assert (process.returncode, out) == (2, "")
    [line] = err.splitlines()
    assert word in line
    assert line.endswith("natskv_server --help")
