"""The front door of the package: what importing it does and does not do."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from django.apps import apps

import django_natskv

ROOT = Path(__file__).parents[2]


def run(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == django_natskv.__version__


def test_importing_the_package_imports_nothing_else():
    imported = run("import sys, django_natskv; print(*[name for name in sys.modules if 'nats' in name.lower()])")
    assert imported.split() == ["django_natskv"]


def test_importing_the_facade_does_not_import_django():
    assert run("import sys, django_natskv.kv; print('django' in sys.modules)").strip() == "False"


@pytest.mark.parametrize(
    "first",
    [
        "from django_natskv import connections",
        "import django_natskv.connections",
        "from django_natskv.connections import Connection",
    ],
)
def test_connections_are_the_connections_whoever_imports_the_module_first(first):
    then = "import django_natskv; from django_natskv import connections"
    show = "print(type(django_natskv.connections).__name__, django_natskv.connections is connections)"
    assert run(f"{first}; {then}; {show}").split() == ["Connections", "True"]


def test_another_name_is_missing():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        django_natskv.nothing  # noqa: B018


def test_other_attributes_can_be_set(monkeypatch):
    monkeypatch.setattr(django_natskv, "__version__", "9")
    assert django_natskv.__version__ == "9"


def test_the_application_is_installed_by_the_name_of_the_package():
    assert apps.get_app_config("django_natskv").verbose_name == "NATS key-value"
