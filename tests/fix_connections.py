"""Connections of a test's own, from settings in the words of ``settings.NATSKV``, and programs that use them.

Owns their end; knows nothing of what a test does with them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from django_natskv import conf
from django_natskv.kv import Connection, ConnectionSettings
from django_natskv.kv._nats import dial
from tests.fix_servers import PATIENT

ROOT = Path(__file__).resolve().parent.parent

PREAMBLE = """
import json, os, sys, time, threading
import django
from django.conf import settings
settings.configure(NATSKV=json.loads(os.environ["TEST_NATSKV"]), INSTALLED_APPS=["django_natskv"], USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()
from django_natskv import connections, exceptions
"""


class Connect(Protocol):
    """What the fixture ``connect`` gives: connections, as ``Any`` for tests that look behind the face."""

    def __call__(self, servers: Any, **options: Any) -> Any: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make connections to ``servers`` with further keys of an alias of ``settings.NATSKV``; closed after the test.

    They have time enough for everything, unless a timeout is among those keys. ``servers`` may also be whole
    ``ConnectionSettings``, which nothing has checked.
    """
    made: list[Connection] = []

    def make(servers: Any, **options: Any) -> Connection:
        if not isinstance(servers, ConnectionSettings):
            servers = conf.settings_from({**PATIENT, "SERVERS": servers, **options}, "the test")
        made.append(Connection(servers))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def lines_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connections to come outlast a pause, however long a busy machine makes it: they send no pings."""
    monkeypatch.setattr(dial, "PING_INTERVAL", 600)


class Program:
    """A Python process with Django set up and ``connections`` imported, running ``code``; lines in, JSON lines out.

    Its connections have time enough for everything, unless ``natskv`` says otherwise.
    """

    def __init__(self, code: str, natskv: Any, *flags: str, **environment: str) -> None:
        natskv = {alias: {**PATIENT, **options} for alias, options in natskv.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *flags, "-c", PREAMBLE + code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_NATSKV": json.dumps(natskv), **environment},
        )

    def read(self) -> Any:
        """Return the next line that it prints, as JSON."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return json.loads(line)

    def tell(self, line: str = "") -> None:
        """Send a line to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self, timeout: float = 30) -> tuple[list[Any], str]:
        """Wait for its end; return the JSON lines not read yet and what it wrote on stderr."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill(signal.SIGABRT)  # faulthandler shows where it hangs
            raise AssertionError(self.process.communicate()[1]) from None
        return [json.loads(line) for line in out.splitlines()], err

    def kill(self, how: int = signal.SIGKILL) -> None:
        """Kill it with all its children, who hold its pipes open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, how)


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    """Start programs; those still running after the test are killed."""
    made: list[Program] = []

    def start(code: str, natskv: Any, *flags: str, **environment: str) -> Program:
        made.append(Program(code, natskv, *flags, **environment))
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.process.communicate()
