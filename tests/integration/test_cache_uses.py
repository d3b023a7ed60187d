"""The cache in real use: a site in two processes, and a browser that meets now the one, now the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from tests.fix_connections import ROOT
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SITES = [("cache", None), ("cached_db", "invalidate"), ("cache", "mirror")]


class Browser:
    """Keeps cookies, and asks the processes of a site in turn."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self._asked = 0
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))

    def get(self, path: str, process: int | None = None) -> Any:
        if process is None:
            self._asked += 1
            process = self._asked % len(self.ports)
        # As behind a balancer, both have one name.
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[process]}/{path}", headers={"Host": "127.0.0.1"}
        )
        with self._opener.open(request, timeout=20) as response:
            return json.load(response)

    def sees(self, path: str, expected: Any) -> None:
        """Wait until each process answers as expected: with a local cache that takes milliseconds."""
        for process in range(len(self.ports)):
            eventually(partial(self._answers, path, process, expected))

    def _answers(self, path: str, process: int, expected: Any) -> bool:
        return bool(self.get(path, process) == expected)

    def status(self, path: str) -> int:
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200


@pytest.fixture(scope="module", params=SITES, ids=lambda site: "-".join(map(str, site)))
def ports(
    request: pytest.FixtureRequest, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[int]]:
    sessions, local_cache = request.param
    directory: Path = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TEST_SERVER": nats_server.url,
        "TEST_BUCKET": f"uses-{directory.parent.name}-{directory.name}",
        "TEST_DATABASE": str(directory / "site.sqlite3"),
        "TEST_SESSIONS": sessions,
        **({} if local_cache is None else {"TEST_LOCAL_CACHE": local_cache}),
    }
    site = [sys.executable, "-m", "tests.integration.site_of_uses"]
    subprocess.run([*site, "migrate"], env=environment, cwd=ROOT, check=True, timeout=60)
    processes = [
        subprocess.Popen([*site, "serve"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        yield [int(process.stdout.readline()) for process in processes if process.stdout]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture
def browser(ports: list[int]) -> Browser:
    return Browser(ports)


def test_who_logs_in_is_known_to_each_process_and_who_logs_out_to_none(browser, ports):
    assert browser.get("who/") == {"user": None}
    assert browser.get("in/ann/") == {"user": "ann"}
    browser.sees("who/", {"user": "ann"})
    assert Browser(ports).get("who/") == {"user": None}
    assert browser.get("out/") == {"user": None}
    browser.sees("who/", {"user": None})


def test_a_session_goes_on_from_process_to_process(browser):
    assert [browser.get("count/", process=0)["count"] for _ in range(3)] == [1, 2, 3]
    eventually(lambda: browser.get("count/", process=1)["count"] > 3)


def test_a_page_is_made_once(ports, request):
    def made() -> list[Any]:
        return [Browser(ports).get("page/", process) for process in range(len(ports))]

    first = made()
    if request.node.callspec.params["ports"][1] is None:
        assert first[0] == first[1]
    # With a local cache, a process that has not heard yet of the page makes one too, which then is everybody's.
    one, other = eventually(lambda: (pages := made())[0] == pages[1] and pages, 30)
    assert one == other
    assert made() == [one, one]


def test_a_rate_limit_is_exact_over_all_processes(ports):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: Browser(ports).status("limited/"), range(30)))
    assert sorted(answers) == [200] * 10 + [403] * 20


def test_a_switch_of_waffle_is_read_from_the_cache_and_changed_for_each_process(browser):
    for to, active in (("on", True), ("off", False)):
        browser.get(f"switch/{to}/", process=0)
        browser.sees("switch/", {"active": active, "queries": 0})


def test_a_setting_of_constance_is_read_from_the_cache_and_changed_for_each_process(browser):
    for text in ("sale", "closed"):
        browser.get(f"banner/{text}/", process=0)
        browser.sees("banner/", {"banner": text, "queries": 0})
