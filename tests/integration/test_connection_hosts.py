"""The servers and workers that Django runs under, each with one connection a process, made where it is first used."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fix_connections import PREAMBLE, ROOT
from tests.fix_servers import HOST, PATIENT, NatsServer, free_port
from tests.fix_waiting import eventually

SITE = (
    PREAMBLE.replace("settings.configure(", 'settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], ')
    + """
import os, threading
from django.http import JsonResponse
from django.urls import path

NAME = settings.NATSKV["default"]["NAME"]
# At import: with --preload in the master, whose children then go on with the same objects.
bucket = connections["default"].kv().create_bucket({"bucket": NAME})
made_in = os.getpid()

def answer(entry, revision):
    return JsonResponse({
        "right": entry.revision == revision, "process": os.getpid(), "forked": os.getpid() != made_in,
        "threads": sum("natskv" in thread.name for thread in threading.enumerate()),
    })

def view(request, number):
    revision = bucket.put(f"key.{number}", number)
    return answer(bucket.get(f"key.{number}"), revision)

async def aview(request, number):
    revision = await bucket.aput(f"key.{number}", number)
    return answer(await bucket.aget(f"key.{number}"), revision)

async def mixed(request, number):
    revision = bucket.put(f"key.{number}", number)  # blocking, on the thread of the event loop
    return answer(await bucket.aget(f"key.{number}"), revision)

urlpatterns = [path("<int:number>", view), path("a/<int:number>", aview), path("mixed/<int:number>", mixed)]
"""
)
WSGI = SITE + "\nfrom django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
ASGI = SITE + "\nfrom django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"


class Host:
    """A server of a Django site."""

    def __init__(self, command: list[str], port: int, directory: Path, natskv: Any) -> None:
        self.port = port
        self.log = (directory / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=directory,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(directory)]),
                "TEST_NATSKV": json.dumps(natskv),
            },
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body[-2000:]
            return json.loads(body)
        finally:
            connection.close()

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(self.end())
        with contextlib.suppress(OSError):
            return bool(self.get("/0"))
        return False

    def end(self) -> str:
        """End it and its workers; return what it wrote."""
        self.process.terminate()
        try:
            self.process.wait(30)
        finally:
            self.kill()
        self.log.seek(0)
        return self.log.read()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Host]


@pytest.fixture
def start(tmp_path: Path, nats_server: NatsServer, bucket_name: str) -> Iterator[Start]:
    made: list[Host] = []

    def make(site: str, *command: str) -> Host:
        (tmp_path / "site_of_the_test.py").write_text(site)
        port = free_port()
        natskv = {"default": {**PATIENT, "SERVERS": nats_server.url, "NAME": bucket_name}}
        made.append(Host([part.replace("PORT", str(port)) for part in command], port, tmp_path, natskv))
        eventually(made[-1].is_up, 30)
        return made[-1]

    yield make
    for host in made:
        host.kill()
        host.log.close()


def ask(host: Host, paths: list[str]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(host.get, paths))
    assert all(answer["right"] for answer in answers)
    assert {answer["threads"] for answer in answers} == {1}
    return answers


@pytest.mark.parametrize(
    "workers",
    [["--worker-class", "sync", "--workers", "3"], ["--worker-class", "gthread", "--workers", "2", "--threads", "4"]],
    ids=["sync", "gthread"],
)
@pytest.mark.parametrize("preload", [True, False], ids=["preload", "plain"])
def test_gunicorn(start: Start, nats_server: NatsServer, bucket_name: str, workers: list[str], preload: bool) -> None:
    options = ["--bind", f"{HOST}:PORT", *workers, *(["--preload"] if preload else [])]
    host = start(WSGI, "gunicorn", "site_of_the_test:application", *options)
    answers = ask(host, [f"/{number}" for number in range(200)])
    assert {answer["forked"] for answer in answers} == {preload}
    processes = {answer["process"] for answer in answers}
    # A worker that got no request has not connected since the fork.
    served = len(nats_server.connections(bucket_name)) - preload
    assert len(processes) <= served <= int(workers[3])
    log = host.end()
    assert "Traceback" not in log
    assert "natskv" not in log
    eventually(lambda: nats_server.connections(bucket_name) == [])


def test_uvicorn(start: Start, nats_server: NatsServer, bucket_name: str) -> None:
    host = start(ASGI, "uvicorn", "--host", HOST, "--port", "PORT", "site_of_the_test:application")
    ask(host, [f"/{('', 'a/', 'mixed/')[number % 3]}{number}" for number in range(180)])
    assert len(nats_server.connections(bucket_name)) == 1
    log = host.end()
    assert "Traceback" not in log
    eventually(lambda: nats_server.connections(bucket_name) == [])


TASKS = (
    PREAMBLE
    + """
from celery import Celery
NAME = settings.NATSKV["default"]["NAME"]
bucket = connections["default"].kv().create_bucket({"bucket": NAME})
made_in = os.getpid()
folder = os.environ["CELERY_FOLDER"]
app = Celery("tasks", broker="filesystem://", backend="file://" + folder)
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
app.conf.worker_hijack_root_logger = False

@app.task(soft_time_limit=20)
def task(number):
    revision = bucket.put(f"key.{number}", number)
    entry = bucket.get(f"key.{number}")
    return [entry.revision == revision, os.getpid() != made_in]
"""
)

SEND = """
import json
from site_of_the_test import task
results = [task.delay(number) for number in range(20)]
print(json.dumps([result.get(timeout=40) for result in results]))
"""


@pytest.mark.slow
def test_a_celery_worker_that_forks(nats_server: NatsServer, bucket_name: str, tmp_path: Path) -> None:
    (tmp_path / "site_of_the_test.py").write_text(TASKS)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
        "TEST_NATSKV": json.dumps({"default": {**PATIENT, "SERVERS": nats_server.url, "NAME": bucket_name}}),
        "CELERY_FOLDER": str(tmp_path / "queue"),
    }
    (tmp_path / "queue").mkdir()
    options = ["--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "site_of_the_test", "worker", *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log = ""
    try:
        sent = subprocess.run(
            [sys.executable, "-c", SEND],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        worker.terminate()
        log = worker.communicate(timeout=15)[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.communicate()
    assert sent.returncode == 0, sent.stderr + log
    assert json.loads(sent.stdout.splitlines()[-1]) == [[True, True]] * 20
    assert "Traceback" not in log
