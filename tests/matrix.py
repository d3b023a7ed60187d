"""Runs the suite on every supported Python, Django and nats-server: ``python -m tests.matrix``.

Owns the list of what is supported; knows nothing of what the tests test.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import django

from tests.fix_servers import CACHE, SERVER_VERSIONS

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
DJANGOS = ("5.2", "6.0", "6.1")
# What could depend on the server.
SERVER_TESTS = (
    "tests/contract/test_backend.py",
    "tests/contract/test_native.py",
    *(
        f"tests/integration/test_{name}.py"
        for name in (
            "facade_buckets", "facade_config", "facade_codecs", "facade_create", "facade_history", "facade_keys",
            "facade_many", "facade_reading", "facade_writing", "connection_alias", "connection_callers",
            "connection_library", "connection_login", "command_bucket", "example_shop", "watch_delivery",
        )
    ),
)  # fmt: skip
# What could depend on any version, and so what the corners run. The rest tells the same everywhere.
CORNER_TESTS = ("tests/unit", "tests/contract", *SERVER_TESTS[2:])


@dataclass(frozen=True)
class Cell:
    """One combination of versions."""

    python: str
    django: str
    server: str

    def __str__(self) -> str:
        return f"Python {self.python}, Django {self.django}, nats-server {self.server}"


def exists(python: str, django: str) -> bool:
    """Say whether this Django runs on this Python."""
    return django == "5.2" or python != "3.11"


EVERY = [
    Cell(python, django, server)
    for python, django, server in itertools.product(PYTHONS, DJANGOS, SERVER_VERSIONS)
    if exists(python, django)
]


def corner_tests(cell: Cell) -> tuple[str, ...]:
    """Return what a corner runs: of the Python and the Django that `make test` has, only what depends on the server."""
    running = (".".join(platform.python_version_tuple()[:2]), django.get_version()[:3])
    ours = (cell.python, cell.django) == running
    return SERVER_TESTS if ours else CORNER_TESTS


def find_python(version: str) -> str | None:
    """Return the path of an interpreter of this version, or None: from PATH, else one that pyenv has installed."""
    candidates = [f"python{version}", "python3"]
    root = os.environ.get("PYENV_ROOT") or _output(["pyenv", "root"])
    if root:
        installed = Path(root, "versions").glob(f"{version}.*/bin/python")
        candidates += [str(path) for path in sorted(installed, reverse=True)]
    # Asked, not believed: a shim of pyenv is on PATH for versions that are not switched on.
    probe = "import sys, venv; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for candidate in candidates:
        found, _, executable = _output([candidate, "-c", probe]).partition(" ")
        if found == version:
            return executable
    return None


def _output(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(interpreter: str, python: str, django: str) -> str:
    """Return the python of a virtual environment with the project and this Django; made once, then brought up to date.

    Raises ``CalledProcessError`` when it cannot be installed.
    """
    place = CACHE / "matrix" / f"python-{python}-django-{django}"
    executable = str(place / "bin" / "python")
    stamp = place / ".installed"
    pyproject = ROOT / "pyproject.toml"
    if not stamp.exists() or stamp.stat().st_mtime < pyproject.stat().st_mtime:
        subprocess.run([interpreter, "-m", "venv", "--clear", place], check=True)
        install = [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--editable", f"{ROOT}[test]", f"Django=={django}.*"], check=True, cwd=ROOT)
        stamp.touch()
    return executable


def run(cell: Cell, interpreter: str, arguments: list[str]) -> bool:
    """Run pytest in one cell; return whether it passed."""
    print(f"\n=== {cell}", flush=True)
    try:
        executable = environment(interpreter, cell.python, cell.django)
    except subprocess.CalledProcessError as error:
        print(f"cannot install: {error}", flush=True)
        return False
    surroundings = {**os.environ, "NATSKV_TEST_SERVER_VERSION": cell.server}
    command = [executable, "-m", "pytest", "-n", "4", "--dist", "worksteal", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, env=surroundings).returncode == 0


def main() -> int:
    """Run the cells, report at the end, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description="Run the tests on every combination.")
    parser.add_argument("--corners", action="store_true", help="only the oldest and the newest")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="only this one (may be repeated)")
    parser.add_argument("--django", action="append", choices=DJANGOS, help="only this one (may be repeated)")
    parser.add_argument("--server", action="append", choices=SERVER_VERSIONS, help="only this one (may be repeated)")
    parser.add_argument("pytest", nargs="*", help="arguments of pytest, after --")
    options = parser.parse_args()

    cells = [EVERY[0], EVERY[-1]] if options.corners else EVERY
    cells = [
        cell
        for cell in cells
        if cell.python in (options.python or PYTHONS)
        and cell.django in (options.django or DJANGOS)
        and cell.server in (options.server or SERVER_VERSIONS)
    ]
    interpreters = {python: find_python(python) for python in PYTHONS}
    results: dict[Cell, str] = {}
    for cell in cells:
        interpreter = interpreters[cell.python]
        if interpreter is None:
            results[cell] = f"SKIPPED: no Python {cell.python} on PATH or in pyenv"
        else:
            arguments = options.pytest
            if options.corners:
                arguments = ["-m", "not slow and not versions", *arguments, *corner_tests(cell)]
            results[cell] = "passed" if run(cell, interpreter, arguments) else "FAILED"
    print("\n=== matrix")
    for cell, result in results.items():
        print(f"{cell}: {result}")
    return int("FAILED" in results.values())


if __name__ == "__main__":
    sys.exit(main())
