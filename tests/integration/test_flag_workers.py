"""Flags in servers that are really running: what the command line switches, every worker says."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fix_commands import ROOT, Manage
from tests.fix_servers import HOST, free_port
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET

APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", "shop"]
CONFIG = "from tests.flag_classes import Features\n"
URLS = """
import os
from django.http import JsonResponse
from django.urls import path
from tests.flag_classes import Features

def told(on, theme):
    return JsonResponse({"worker": os.getpid(), "on": on, "theme": theme})

def view(request):
    return told(Features.new_checkout.on(request), Features.theme.value(request, key=request.GET.get("key")))

async def aview(request):
    key = request.GET.get("key")
    return told(await Features.new_checkout.aon(request), await Features.theme.avalue(request, key=key))

urlpatterns = [path("", view), path("awaited", aview)]
"""
# A worker that a busy machine holds up is not to be replaced by another one.
GUNICORN = [
    "gunicorn",
    "--workers",
    "4",
    "--timeout",
    "120",
    "--bind",
    f"{HOST}:PORT",
    "django.core.wsgi:get_wsgi_application()",
]
UVICORN = ["uvicorn", "--host", HOST, "--port", "PORT", "--factory", "django.core.asgi:get_asgi_application"]


class Site:
    """A server that runs the project of a ``Manage``."""

    def __init__(self, manage: Manage, command: list[str], path: str) -> None:
        self.port = free_port()
        self.path = path
        self.log = (manage.directory / f"{command[0]}-{self.port}.log").open("w+")
        paths = os.pathsep.join([str(ROOT), str(manage.directory)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(part.replace("PORT", str(self.port)) for part in command)],
            cwd=manage.directory,
            env={**os.environ, "PYTHONPATH": paths, "DJANGO_SETTINGS_MODULE": "project_settings"},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def ask(self, key: str = "") -> tuple[int, bool, str]:
        """Return which worker answers on a new connection, and what it says of both flags."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=30)
        try:
            connection.request("GET", f"{self.path}?key={key}")
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        assert response.status == 200, body[-2000:]
        told = json.loads(body)
        return told["worker"], told["on"], told["theme"]

    def workers(self, number: int) -> set[int]:
        """Return its workers, when all of ``number`` have answered."""
        found: set[int] = set()

        def all_of_them() -> bool:
            if self.process.poll() is not None:
                pytest.fail(self.written())
            with contextlib.suppress(OSError), ThreadPoolExecutor(8) as pool:
                found.update(worker for worker, _, _ in pool.map(lambda _: self.ask(), range(16)))
            return len(found) == number

        eventually(all_of_them, 60)
        return found

    def written(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def shop(manage: Manage, flags, nats_server) -> Manage:
    """A project with the flags of the tests, and a view that asks two of them."""
    (manage.directory / "shop").mkdir()
    for name, text in (("__init__", ""), ("config", CONFIG), ("urls", URLS)):
        (manage.directory / "shop" / f"{name}.py").write_text(text)
    more = {"INSTALLED_APPS": APPS, "ROOT_URLCONF": "shop.urls", "ALLOWED_HOSTS": [HOST]}
    manage.configure({"default": {"SERVERS": [nats_server.url], "NAME": BUCKET}}, **more)
    return manage


@pytest.fixture
def sites(shop: Manage) -> Iterator[list[Site]]:
    """gunicorn with four workers, whose view blocks, and uvicorn with one, whose view awaits."""
    with contextlib.ExitStack() as stack:
        made = []
        for command, path in ((GUNICORN, "/"), (UVICORN, "/awaited")):
            made.append(Site(shop, command, path))
            stack.callback(made[-1].end)
        yield made


def until_all_say(sites: list[Site], workers: set[int], *wanted: object) -> None:
    """Wait until every worker says so; one that has said so once says so each time."""
    said: set[int] = set()
    went_back = []

    def everyone() -> bool:
        for site in sites * 8:
            worker, *found = site.ask("7")
            if found == [*wanted]:
                said.add(worker)
            elif worker in said:
                went_back.append((worker, found))
        return said == workers

    eventually(everyone, 30)
    assert went_back == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_command_line_switches_is_seen_by_every_worker_of_every_server(shop, sites):
    gunicorn, uvicorn = sites
    workers = gunicorn.workers(4) | uvicorn.workers(1)
    assert len(workers) == 5
    until_all_say(sites, workers, False, "old")
    for arguments, on, theme in (
        (["on", "new_checkout"], True, "old"),
        (["off", "new_checkout"], False, "old"),
        (["rollout", "theme", "100", "--value", "new"], False, "new"),
        (["target", "theme", "--users", "8", "--value", "new"], False, "old"),
    ):
        done = shop("natskv_flag", *arguments)
        assert done.code == 0, done.err
        until_all_say(sites, workers, on, theme)
    assert [site.ask("8")[2] for site in sites] == ["new", "new"]
    assert not any("Traceback" in site.written() for site in sites)
