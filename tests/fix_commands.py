"""``manage.py`` run as a user runs it: in a pipe, or on a terminal.

Owns the project that it is run in and its processes; knows nothing of any command.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_natskv import connections
from django_natskv.kv import KVContext
from tests.fix_servers import PATIENT, NatsServer

ROOT = Path(__file__).resolve().parent.parent
_MINUTES = 180  # seconds
PROMPT = "[y/N] "
CTRL_C = "\x03"  # not typed but sent, as the terminal that a process belongs to would
CTRL_D = "\x04"

_SETTINGS = "from tests.settings import *\nNATSKV = {!r}\n"
_MANAGE = """
import os, pkgutil, signal, sys
# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "project_settings"

def stop_at(place, name, number):
    owner = pkgutil.resolve_name(place)
    real, calls = getattr(owner, name), []
    def stopping(*arguments, **options):
        calls.append(name)
        if len(calls) == int(number):
            os.kill(os.getpid(), signal.SIGSTOP)
        return real(*arguments, **options)
    setattr(owner, name, stopping)

if "STOP_AT" in os.environ:
    stop_at(*os.environ["STOP_AT"].split())
execute_from_command_line(sys.argv)
"""


@dataclass(frozen=True)
class Finished:
    """How a command ended. On a terminal, ``screen`` is all that was to be seen, and ``out`` what was piped away."""

    code: int
    out: str = ""
    err: str = ""
    screen: str = ""

    @property
    def error(self) -> str:
        """What it said on stderr, which is exactly one line."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        return self.err.strip()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that run commands the time for several processes, each of which a busy machine starts in seconds."""
    for item in items:
        if "manage" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_MINUTES), append=False)


class Manage:
    """A project with a ``manage.py`` and a setting NATSKV."""

    def __init__(self, directory: Path, natskv: Mapping[str, Any]) -> None:
        self.directory = directory
        self._stopped: list[subprocess.Popen[str]] = []
        directory.mkdir(parents=True)
        (directory / "manage.py").write_text(_MANAGE)
        self.configure(natskv)

    def configure(self, natskv: Mapping[str, Any], **others: Any) -> None:
        """Set NATSKV, and other settings, for the runs to come: with time enough, unless a timeout is among them."""
        natskv = {alias: {**PATIENT, **options} for alias, options in natskv.items()}
        more = "".join(f"{name} = {value!r}\n" for name, value in others.items())
        (self.directory / "project_settings.py").write_text(_SETTINGS.format(natskv) + more)

    def __call__(self, *arguments: str) -> Finished:
        """Run it in pipes, without input, to its end."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=100)
        return Finished(process.returncode, out, err)

    def start(self, *arguments: str, stop_at: str = "", **options: Any) -> subprocess.Popen[str]:
        """Start it, in pipes and without input unless ``options`` say otherwise."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_COLORS"}
        if stop_at:
            environment["STOP_AT"] = stop_at
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=self.directory,
            env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            text=True,
            **{**pipes, **options},
        )

    def stopped_at(self, place: str, name: str, number: int, *arguments: str) -> subprocess.Popen[str]:
        """Start it and return when it is stopped, where it calls ``place.name`` the so many-th time."""
        process = self.start(*arguments, stop_at=f"{place} {name} {number}")
        self._stopped.append(process)
        told = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert told is not None
        assert told.si_code == os.CLD_STOPPED, process.communicate()
        return process

    def end(self) -> None:
        """Kill what was stopped and never went on."""
        for process in self._stopped:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def on_terminal(
        self,
        *arguments: str,
        answer: str = "",
        meanwhile: Callable[[], object] | None = None,
        columns: int = 80,
        **options: Any,
    ) -> Finished:
        """Run it on a terminal, but for the streams that ``options`` lead elsewhere, and ``answer`` its question.

        ``meanwhile`` is called when it has asked, before it is answered. The terminal is ``columns`` wide.
        """
        terminal, side = pty.openpty()
        termios.tcsetwinsize(side, (24, columns))
        process = self.start(*arguments, **{"stdin": side, "stdout": side, "stderr": side, **options})
        os.close(side)
        screen = ""
        answered = False
        while seen := _read(terminal):
            screen += seen
            if PROMPT in screen and not answered:
                answered = True
                if meanwhile is not None:
                    meanwhile()
                if answer == CTRL_C:
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(terminal, answer.encode())
        os.close(terminal)
        out, _ = process.communicate(timeout=100)
        return Finished(process.returncode, out or "", "", screen.replace("\r\n", "\n"))


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # what Linux says when the other side is closed
        return ""


@pytest.fixture
def manage(tmp_path: Path, nats_server: NatsServer) -> Iterator[Manage]:
    """A project whose connection "default" is the shared server; nothing listens where "down" points."""
    natskv = {"default": {"SERVERS": [nats_server.url]}, "down": {"SERVERS": ["nats://127.0.0.1:1"]}}
    made = Manage(tmp_path / "project", natskv)
    yield made
    made.end()


@pytest.fixture
def kv(natskv: Mapping[str, Any]) -> KVContext:
    """The same server, looked at from this process."""
    return connections["default"].kv()


@pytest.fixture
def stocked(kv: KVContext, bucket_name: str) -> Iterator[str]:
    """A bucket with two live entries, and a deleted key of which history is kept."""
    made = kv.create_bucket({"bucket": bucket_name, "history": 4, "metadata": {"team": "shop"}})
    for key in ("a", "b", "gone"):
        made.put(key, 1)
    made.delete("gone")
    yield bucket_name
    if bucket_name in kv.bucket_names():
        kv.delete_bucket(bucket_name)
