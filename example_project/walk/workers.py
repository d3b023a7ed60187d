"""The shop on real servers: gunicorn with two workers, and uvicorn with one; and a line to each worker.

Owns the servers and how a worker is asked. Knows nothing of what is asked.
"""

from __future__ import annotations

import http.client
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from example_project.transcript import Transcript, WalkFailed
from example_project.walk.processes import PATIENCE, started

HOST = "127.0.0.1"
WORKERS = 2  # of gunicorn
AT_ONCE = 8  # connections that are opened together, so that no worker takes them all
PAUSE = 0.003  # seconds between two questions: a worker is to have time for more than us
# A connection is to stay with its worker, however long the other ones take on a busy machine.
STAY = "120"  # seconds
GUNICORN = ["--workers", str(WORKERS), "--threads", str(AT_ONCE), "--keep-alive", STAY, "--timeout", "0"]
UVICORN = ["--timeout-keep-alive", STAY]


@dataclass
class Answer:
    """What a worker answered, the seconds that it took, and when it was there, by the clock of this machine."""

    status: int
    text: str
    seconds: float
    at: float

    def find(self, pattern: str) -> str:
        """Return the group of ``pattern`` in the page; ``WalkFailed`` when that is another page."""
        found = re.search(pattern, self.text)
        if found is None:
            raise WalkFailed(f"The shop answered with status {self.status}, and without {pattern!r}.")
        return found[1]


@dataclass
class Worker:
    """A worker, over a connection that stays with it."""

    server: str
    checkout: str
    connection: http.client.HTTPConnection
    pid: int = field(default=0)

    @property
    def name(self) -> str:
        return f"{self.server} worker {self.pid}"

    def ask(self, path: str) -> Answer:
        """Ask for a page."""
        began = time.perf_counter()
        try:
            self.connection.request("GET", path)
            response = self.connection.getresponse()
            text = response.read().decode()
        except OSError as error:
            raise WalkFailed(f"The {self.server} of the shop does not answer: {error}.") from error
        return Answer(response.status, text, time.perf_counter() - began, time.time())

    def meet(self) -> None:
        """Learn which process it is."""
        self.pid = int(self.ask(self.checkout).find(r'data-process="(\d+)"'))


@contextmanager
def running(transcript: Transcript) -> Iterator[list[Worker]]:
    """Run the shop on both servers while the block does; give all their workers. What they log is shown on failure."""
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile("w+"))
        try:
            options = [*GUNICORN, "--log-level", "warning", "example_project.wsgi"]
            wsgi = _serve(transcript, stack, log, "gunicorn", ["--bind", "fd://{}"], options)
            options = [*UVICORN, "--log-level", "warning", "example_project.asgi:application"]
            asgi = _serve(transcript, stack, log, "uvicorn", ["--fd", "{}"], options)
            workers = _workers("gunicorn", wsgi, "/checkout/", WORKERS)
            workers += _workers("uvicorn", asgi, "/async/checkout/", 1)
            for worker in workers:
                stack.callback(worker.connection.close)  # first of all, for the servers would wait for them
            yield workers
        except WalkFailed:
            log.seek(0)
            transcript.output(log.read())
            raise


def _serve(
    transcript: Transcript, stack: ExitStack, log: IO[str], name: str, bind: list[str], options: list[str]
) -> int:
    """Run a server until the end of ``stack``, on a port that is ours already: connections wait until it takes them.

    Returns the port.
    """
    with socket.create_server((HOST, 0)) as listener:
        # As those who make the socket themselves do: else answers wait 40 ms for an acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fd = listener.fileno()
        arguments = ["-m", name, *(word.format(fd) for word in bind), *options]
        stack.enter_context(started(transcript, arguments, out=log, fd=fd))
        port: int = listener.getsockname()[1]
    return port


def _workers(server: str, port: int, checkout: str, count: int) -> list[Worker]:
    """Open connections until there is one to each of ``count`` workers."""
    found: dict[int, Worker] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < count:
        lines = [
            Worker(server, checkout, http.client.HTTPConnection(HOST, port, timeout=PATIENCE)) for _ in range(AT_ONCE)
        ]
        try:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(Worker.meet, lines))
            for worker in lines:
                found.setdefault(worker.pid, worker)
        finally:
            for worker in lines:
                if worker is not found.get(worker.pid):
                    worker.connection.close()
        if time.monotonic() > until:
            raise WalkFailed(f"Of {count} workers of {server} {len(found)} answered within {PATIENCE:.0f} s.")
    return list(found.values())


def wait(workers: Sequence[Worker], holds: Callable[[Answer], bool]) -> None:
    """Ask every worker for its checkout until it shows what ``holds``."""
    until = time.monotonic() + PATIENCE
    for worker in workers:
        while not holds(worker.ask(worker.checkout)):
            if time.monotonic() > until:
                raise WalkFailed(f"{worker.name} does not show it within {PATIENCE:.0f} s.")
            time.sleep(PAUSE)


def seen(workers: Sequence[Worker], holds: Callable[[Answer], bool], change: Callable[[], float]) -> list[float]:
    """Ask every worker for its checkout over and over, make a change, and wait until each shows what ``holds``.

    ``change`` returns the time of the write, by the clock of this machine. Returns the seconds from then until the
    first answer that held was here, worker by worker.
    """
    begun, over = threading.Barrier(len(workers) + 1), threading.Event()

    def follow(worker: Worker) -> float:
        if holds(worker.ask(worker.checkout)):
            raise WalkFailed(f"{worker.name} shows the change before it was made.")
        begun.wait(PATIENCE)
        while not over.wait(PAUSE):
            answer = worker.ask(worker.checkout)
            if holds(answer):
                return answer.at
        raise WalkFailed(f"{worker.name} has not seen the change within {PATIENCE:.0f} s.")

    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            following = [pool.submit(follow, worker) for worker in workers]
            with suppress(threading.BrokenBarrierError):  # whoever broke it says why
                begun.wait(PATIENCE)
            written = change()
            limit = threading.Timer(PATIENCE, over.set)
            try:
                limit.start()  # within, or a Ctrl-C right behind it would leave the timer to be waited for
                return [told.result() - written for told in following]
            finally:
                limit.cancel()
        finally:
            begun.abort()
            over.set()
