"""How Django's own tests are come by."""

from __future__ import annotations

import tarfile
from pathlib import Path

import django
import pytest

from tests.contract import django_sdist

FILES = ("tests/cache/tests.py", "tests/sessions_tests/tests.py", "tests/template_tests/utils.py", "tests/other.py")


def packed(directory: Path) -> None:
    """Write an archive as the package index has it."""
    root = directory / f"django-{django.get_version()}"
    for name in (*FILES, "django/core/cache/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    with tarfile.open(directory / f"{root.name}.tar.gz", "w:gz") as archive:
        archive.add(root, root.name)


def test_they_are_of_the_django_that_is_installed():
    assert Path(str(django_sdist.load("cache.tests").__file__)).parent.parent.name == django.get_version()


def test_they_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(project: str, version: str, directory: Path) -> None:
        assert project == "django"
        asked.append(version)
        packed(directory)

    monkeypatch.setattr(django_sdist, "CACHE", tmp_path)
    monkeypatch.setattr(django_sdist, "download_sdist", download)
    place = django_sdist.fetched()
    assert django_sdist.fetched() == place
    assert asked == [django.get_version()]
    found = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    assert found == {name.removeprefix("tests/") for name in FILES[:3]}


def test_a_failed_fetch_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(django_sdist, "CACHE", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(RuntimeError, match="a network is needed"):
        django_sdist.fetched()
    assert list((tmp_path / "django-sdist").iterdir()) == []
