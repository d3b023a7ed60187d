"""Servers that run the site of the suite ``flags``, a command that switches its flag, and who sees it when.

Owns the processes and the lines to each worker. Knows nothing of how ratios are formed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.pairs import TIME, Sample
from benchmarks.servers import HOST, free_port, process
from benchmarks.site import BUCKET
from django_natskv import connections

WORKERS = 4
LAST = "the last worker"
PAUSE = 0.005  # seconds between two questions to a worker: they shall not keep the machine busy
PATIENCE = 60.0  # seconds
STAY = "600"  # seconds for which a server keeps a connection that nothing is asked on
GUNICORN = ["gunicorn", "--worker-class", "gthread", "--threads", "2", "--keep-alive", STAY, "--workers", str(WORKERS)]
UVICORN = ["uvicorn", "--timeout-keep-alive", STAY, "--log-level", "warning", "--host", HOST]
SERVERS = (  # each with where it answers, and by how many workers
    ([*GUNICORN, "--bind", f"{HOST}:PORT", "django.core.wsgi:get_wsgi_application()"], "/", WORKERS),
    ([*UVICORN, "--port", "PORT", "--factory", "django.core.asgi:get_asgi_application"], "/awaited", 1),
)


class Line:
    """A connection that one worker answers, as long as it is kept."""

    def __init__(self, port: int, path: str) -> None:
        self._path = path
        self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
        self.worker, _ = self.ask()

    def ask(self) -> tuple[int, bool]:
        """Return who answers, and whether the flag is on."""
        self._connection.request("GET", self._path)
        told = json.loads(self._connection.getresponse().read())
        return told["worker"], told["on"]

    def first(self, on: bool) -> float:
        """Ask until the flag is as said; return the time of the first answer that says so."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            worker, found = self.ask()
            if worker != self.worker:
                message = "another worker has answered"
                raise RuntimeError(message)
            if found is on:
                return time.time()
            time.sleep(PAUSE)
        message = f"worker {self.worker} does not see the flag"
        raise RuntimeError(message)

    def close(self) -> None:
        self._connection.close()


class Workers:
    """All workers, each by a line of its own."""

    def __init__(self, lines: list[Line], environment: dict[str, str]) -> None:
        self._lines = lines
        self._environment = environment
        self._on = False
        self._pool = ThreadPoolExecutor(len(lines))

    def flip(self, _count: int) -> Sample:
        """Switch the flag by ``manage.py natskv_flag``; the seconds from the write until workers have answered so."""
        self._on = not self._on
        seen: list[Future[float]] = [self._pool.submit(line.first, self._on) for line in self._lines]
        command = [sys.executable, "-m", "django", "natskv_flag", "on" if self._on else "off", "flipped"]
        subprocess.run(command, env=self._environment, check=True, capture_output=True)
        moments = [each.result() for each in seen]
        entry = connections["default"].kv().open_bucket(BUCKET).get("flipped")
        assert entry is not None
        return _sample([moment - entry.created.timestamp() for moment in moments])

    def answer(self, _count: int) -> Sample:
        """The seconds that an answer takes, asked as above."""
        return _sample([each.result() for each in [self._pool.submit(_timed, line) for line in self._lines]])

    def close(self) -> None:
        self._pool.shutdown()
        for line in self._lines:
            line.close()


def _timed(line: Line) -> float:
    time.sleep(PAUSE)
    began = time.perf_counter()
    line.ask()
    return time.perf_counter() - began


def _sample(seconds: list[float]) -> Sample:
    return {TIME: statistics.median(seconds), LAST: max(seconds)}


@contextlib.contextmanager
def workers(nats: str) -> Iterator[Workers]:
    """Run gunicorn with four workers and uvicorn with one, on the site."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings", "BENCHMARK_NATS": nats}
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="natskv-bench-")))
        lines: dict[int, Line] = {}
        for command, path, number in SERVERS:
            port = free_port()
            parts = [sys.executable, "-m", *(part.replace("PORT", str(port)) for part in command)]
            stack.enter_context(process(parts, place / f"{command[0]}.log", port, environment))
            lines |= one_each(port, path, number)
        found = Workers(list(lines.values()), environment)
        stack.callback(found.close)
        yield found


def one_each(port: int, path: str, number: int) -> dict[int, Line]:
    """Return a line to each of so many workers, by its process."""
    found: dict[int, Line] = {}
    deadline = time.monotonic() + PATIENCE
    while len(found) < number:
        line = Line(port, path)
        if line.worker in found:
            line.close()
        else:
            found[line.worker] = line
        if time.monotonic() > deadline:
            message = f"{len(found)} of {number} workers have answered"
            raise RuntimeError(message)
    return found
