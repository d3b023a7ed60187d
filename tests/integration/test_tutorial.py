"""The tutorials and the README, done word for word: files, commands, sessions, and what they print."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_natskv import connections
from tests.fix_embedded import ROOT
from tests.fix_servers import free_port
from tests.fix_waiting import eventually

TUTORIAL = ROOT / "docs" / "tutorial" / "first-steps.md"
SHOP = ROOT / "docs" / "tutorial" / "shop.md"
README = ROOT / "README.md"
NOT_TESTED = "<!-- not tested: "
_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:# (?P<path>\S+\.py)(?P<appended>, at the end)?|\{# (?P<template>\S+\.html) #\})\n")


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, less those of which it says that they are not tested."""
    return [
        Block(found["language"], found["text"])
        for found in _BLOCK.finditer(text)
        if not text[: found.start()].rstrip().rpartition("\n")[2].startswith(NOT_TESTED)
    ]


class Reader:
    """Somebody who does what the page says, in a directory of their own."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.server: subprocess.Popen[str] | None = None

    def do(self, block: Block) -> None:
        if block.language == "console":
            for command, printed in _commands(block.text):
                self._command(command, printed)
        elif block.language == "pycon":
            self._session(block.text)
        else:
            self._file(block.text)

    def _command(self, command: str, printed: str) -> None:
        words = shlex.split(command)
        if words[0] == "cd":
            self.directory /= words[1]
        elif words[0] == "curl":
            url = words[1].replace(":8000/", f":{self.port}/")
            # What was changed just before is there in moments, and not at once: whoever is too early looks again.
            eventually(lambda: self._matches(command, self._fetch(url), printed), 50)
        elif words[-1] == "runserver":
            assert not printed
            self.server = self._start([*words, f"127.0.0.1:{self.port}", "--noreload"])
        else:
            process = self._start(words)
            out, _ = process.communicate(timeout=50)
            assert process.returncode == 0, out
            assert self._matches(command, out, printed)

    def _start(self, words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            words,
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NATSKV_EMBEDDED_GRACE": "2",  # from one command to the next
        }
        kept = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        return {**kept, **own}

    def _fetch(self, url: str) -> str:
        def answer() -> str:
            try:
                with urllib.request.urlopen(url, timeout=30) as response:
                    return str(response.read().decode())
            except urllib.error.HTTPError:
                raise
            except OSError:
                return ""  # it is not up yet

        return eventually(answer, 50, f"an answer from {url}")

    def _session(self, text: str) -> None:
        """Do one session for all ``pycon`` blocks up to here: names live on from block to block."""
        page = self.directory / "session.txt"
        page.write_text(text)
        flags = doctest.ELLIPSIS
        code = f"import doctest; print(doctest.testfile({str(page)!r}, module_relative=False, optionflags={flags}))"
        process = self._start(["python", "manage.py", "shell", "-v0", "-c", code])
        out, _ = process.communicate(timeout=50)
        assert re.fullmatch(r"TestResults\(failed=0, attempted=[1-9]\d*\)\n", out), out

    def _file(self, text: str) -> None:
        found = _FILE.match(text)
        assert found, f"a block of code begins with the path of its file:\n{text}"
        path = self.directory / (found["path"] or found["template"])
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() + "\n" if found["appended"] else ""
        path.write_text(before + text[found.end() :])

    def _matches(self, command: str, got: str, printed: str) -> bool:
        """Hold what was printed against what the page says, if it says anything; ``...`` is anything."""
        pattern = ".*".join(re.escape(part) for part in printed.rstrip("\n").split("..."))
        assert not printed or re.fullmatch(pattern, got.strip("\n"), re.DOTALL), f"$ {command}\n{got}"
        return True


def _commands(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


@contextmanager
def _reader(directory: Path) -> Iterator[Reader]:
    reader = Reader(directory, free_port())
    try:
        yield reader
    finally:
        if reader.server is not None:
            reader.server.send_signal(signal.SIGINT)
            try:
                reader.server.communicate(timeout=50)
            finally:
                reader.server.kill()
                reader.server.communicate()


@pytest.mark.slow
@pytest.mark.timeout(240)  # half a dozen commands, each a process
def test_the_first_steps_can_be_taken_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NATSKV_EMBEDDED_DIR", raising=False)
    page = blocks(TUTORIAL.read_text())
    # All that is typed into the one shell, where the first of it is.
    session = Block("pycon", "\n".join(block.text for block in page if block.language == "pycon"))
    first = next(number for number, block in enumerate(page) if block.language == "pycon")
    rest = [block for block in page[first:] if block.language != "pycon"]
    with _reader(tmp_path) as reader:
        for block in [*page[:first], session, *rest]:
            reader.do(block)
        assert reader.server is not None


@pytest.mark.slow
@pytest.mark.timeout(240)  # more than a dozen commands, each a process
def test_the_shop_can_be_built_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NATSKV_EMBEDDED_DIR", raising=False)
    with _reader(tmp_path) as reader:
        for block in blocks(SHOP.read_text()):
            reader.do(block)
        url = f"http://127.0.0.1:{reader.port}/orders/events/"
        with urllib.request.urlopen(url, timeout=50) as stream:
            lines = [stream.readline().decode() for _ in range(4)]
    assert [json.loads(line.removeprefix("data: "))["name"] for line in lines[::2]] == ["Ann", "Ben"]


@pytest.mark.parametrize("page", [TUTORIAL, SHOP], ids=lambda page: page.stem)
def test_only_what_needs_the_package_index_is_left_out(page: Path):
    text = page.read_text()
    assert text.count(NOT_TESTED) == 1
    assert len(blocks(text)) == len(_BLOCK.findall(text)) - 1


@pytest.mark.parametrize("page", [TUTORIAL, SHOP, README], ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in link]
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []


async def test_the_code_of_the_readme_does_what_its_comments_say(natskv: Any, bucket_name: str):
    text = README.read_text().partition("\n## Use\n")[2].partition("\n## ")[0]
    code = [block.text.replace('"orders"', repr(bucket_name)) for block in blocks(text) if block.language == "python"]
    assert len(code) == 3
    names: dict[str, Any] = {}
    try:
        for source in code:
            compiled = compile(source, README, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(compiled, names)
            if inspect.isawaitable(result):
                await result
        assert names["entry"].value == {"state": "paid"}
        assert [old.revision for old in names["bucket"].history("order.17")] == [1, 2]
    finally:
        connections["default"].kv().delete_bucket(bucket_name)
