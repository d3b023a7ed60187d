"""django-constance's own tests, from its source distribution, with our backend in the place of its own."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.contract.django_sdist import download_sdist
from tests.fix_servers import CACHE

ROOT = Path(__file__).resolve().parents[2]

SETTINGS = """
import os
from tests.settings import *
CONSTANCE_BACKEND = "django_natskv.contrib.constance.NatsKVBackend"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # their users log in for each test
NATSKV = {"default": {"SERVERS": [os.environ["TEST_NATS_URL"]]}}
"""

CONFTEST = """
import contextlib
import pytest
from django_natskv import connections
from django_natskv.exceptions import BucketNotFound

@pytest.fixture(autouse=True)
def nothing_is_stored():
    yield
    with contextlib.suppress(BucketNotFound):
        bucket = connections["default"].kv().open_bucket("constance")
        for key in bucket.keys():
            bucket.delete(key)
"""


def fetched() -> Path:
    """Return a directory with the tests of the installed constance; fetched once, into ``.cache``."""
    version = importlib.metadata.version("django-constance")
    place = CACHE / "constance-sdist" / version
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}-"))
    try:
        download_sdist("django-constance", version, aside)
        [archive] = aside.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(aside, filter="data")
        [inside] = [found for found in aside.iterdir() if found.is_dir()]
        inside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_constances_own_tests_pass_with_our_backend(nats_server: Any, tmp_path: Path) -> None:
    shutil.copytree(fetched() / "tests", tmp_path / "tests")
    (tmp_path / "ours.py").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # ours would be found above, or theirs
    memory = (tmp_path / "tests" / "backends" / "test_memory.py").read_text()
    ours = memory.replace("constance.backends.memory.MemoryBackend", "django_natskv.contrib.constance.NatsKVBackend")
    assert ours != memory
    (tmp_path / "tests" / "backends" / "test_natskv.py").write_text(ours)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--ds=ours", "tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "TEST_NATS_URL": nats_server.url},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 150
