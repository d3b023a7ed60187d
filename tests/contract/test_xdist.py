"""Workers of pytest-xdist that share a server and a bucket, as a project's own tests do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.faces import bucket
from tests.fix_connections import ROOT
from tests.fix_servers import NatsServer

SETTINGS = """
import json, os
from tests.settings import *
NATSKV = json.loads(os.environ["TEST_NATSKV"])
CACHES = {"default": {
    "BACKEND": "django_natskv.cache.NatsKVCache",
    "LOCATION": os.environ["TEST_BUCKET"],
    "KEY_PREFIX": os.environ.get("PYTEST_XDIST_WORKER", ""),
}}
"""
# Both workers write the same keys all the time, and clear.
TESTS = """
import os, pytest
from django.core.cache import cache

@pytest.mark.parametrize("number", range(20))
def test_what_a_test_wrote_is_there_until_it_clears(number):
    mine = os.environ["PYTEST_XDIST_WORKER"], number
    assert cache.get_many(["a", "b", "count"]) == {}
    cache.set_many({"a": mine, "b": mine})
    assert cache.add("count", 0)
    assert [cache.incr("count") for _ in range(10)] == list(range(1, 11))
    assert cache.get_many(["a", "b", "count"]) == {"a": mine, "b": mine, "count": 10}
    cache.clear()
"""


@pytest.mark.slow  # three interpreters start
@pytest.mark.timeout(180)
def test_workers_side_by_side_do_not_disturb_each_other(tmp_path: Path, nats_server: NatsServer):
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    (tmp_path / "test_cache.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:asyncio", "-p", "no:randomly"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", tmp_path, "-c", os.devnull, tmp_path],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
            "DJANGO_SETTINGS_MODULE": "project_settings",
            "TEST_NATSKV": json.dumps({"default": {"SERVERS": [nats_server.url]}}),
            "TEST_BUCKET": bucket("xdist"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[gw0]" in done.stdout, done.stdout
    assert "[gw1]" in done.stdout, done.stdout
