"""Django's own tests, taken from the source distribution of exactly the Django that is installed.

Owns how they are fetched, unpacked and imported; knows nothing of the cache that they are run on.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from types import ModuleType

import django
from django.conf import settings
from django.test import override_settings

from tests.fix_servers import CACHE

SUITES = ("cache", "sessions_tests", "template_tests")
# What has to be installed for their models to be imported and used.
INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.sessions", "cache", "sessions_tests"]


def fetched() -> Path:
    """Return a directory with ``SUITES`` of the installed Django as packages; fetched once, into ``.cache``."""
    version = django.get_version()
    place = CACHE / "django-sdist" / version
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed, so that neither an interrupted nor a simultaneous run leaves half of it.
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{version}-"))
    try:
        with tempfile.TemporaryDirectory() as download:
            download_sdist("django", version, Path(download))
            [archive] = Path(download).glob("*.tar.gz")
            _unpack(archive, aside)
        aside.rename(place)
    except OSError:
        if not place.exists():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return place


def download_sdist(project: str, version: str, directory: Path) -> None:
    """Fetch the source distribution of exactly this release."""
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
    # The pip on PATH may belong to an older Python than this Django asks for.
    options = [
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-binary",
        project,
        "--ignore-requires-python",
    ]
    command = [*pip, "download", *options, "--dest", str(directory), f"{project}=={version}"]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        failed = f"{' '.join(command)} failed"
        msg = f"The tests of {project} could not be fetched, for which a network is needed once: {failed}"
        raise RuntimeError(msg) from error


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as packed:
        for member in packed:
            _, _, path = member.name.partition("/tests/")
            if path.split("/")[0] in SUITES:
                member.name = path
                packed.extract(member, directory, filter="data")


def make_importable() -> None:
    """Have them found under the names by which they know themselves, after everything else."""
    place = str(fetched())
    if place not in sys.path:
        sys.path.append(place)


def load(name: str) -> ModuleType:
    """Import one module of them, such as ``"cache.tests"``."""
    make_importable()
    with override_settings(INSTALLED_APPS=INSTALLED_APPS):
        return importlib.import_module(name)
