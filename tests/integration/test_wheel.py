"""What is given away: the wheel has all of the package and nothing else, and works without this repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import django_natskv
from tests.fix_connections import ROOT
from tests.fix_servers import NatsServer

MANAGE = """
import os, sys
from django.conf import settings
from django.core.management import execute_from_command_line
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_natskv"],
    CACHES={"default": {"BACKEND": "django_natskv.cache.NatsKVCache", "LOCATION": os.environ["BUCKET"]}},
    NATSKV={"default": {"SERVERS": os.environ["NATS_URL"]}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    SECRET_KEY="x",
    USE_TZ=True,
)
execute_from_command_line(sys.argv)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling, of the extra dev, builds the wheel")
    place = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(place.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = Path(django_natskv.__file__).parent
    ours = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {name for name in ours if "__pycache__" not in name}
    assert "django_natskv/py.typed" in held


def test_the_wheel_works_outside_the_repository(
    wheel: Path, tmp_path: Path, nats_server: NatsServer, bucket_name: str
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)  # which is all that an installer does with this one
    (tmp_path / "manage.py").write_text(MANAGE)
    code = (
        "import django_natskv; from django.core.cache import cache; cache.set('a', 1);"
        "print(django_natskv.__file__); print(cache.get('a'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "NATS_URL": nats_server.url, "BUCKET": bucket_name}

    def manage(*arguments: str) -> str:
        command = [sys.executable, "-P", "manage.py", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=50
        )
        return done.stdout

    found, read = manage("shell", "--verbosity", "0", "--command", code).split()
    assert Path(found).is_relative_to(site)
    assert read == "1"
    listed = json.loads(manage("natskv_bucket", "list", "--format", "json"))
    assert bucket_name in [bucket["bucket"] for bucket in listed]
