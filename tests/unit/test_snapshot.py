"""The snapshot file beside other files: what it is written over, and what is cleared away with it."""

from __future__ import annotations

import os
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from django_natskv.kv import Entry, Operation, codecs
from django_natskv.kv._core import Core
from django_natskv.kv._kept import Clock, Keeper, weight
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._snapshot import SnapshotFile

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def written(path: Path) -> bool:
    """Write a file without entries, which takes no keeper of any."""
    keeper: Any = None
    return SnapshotFile(path, "this").write([], keeper, NOW)


@pytest.mark.parametrize("name", ["env", "*", "[a]"])
def test_what_a_killed_writer_left_is_cleared_away_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    seen: set[Path] = set()
    with monkeypatch.context() as patch:
        patch.setattr("django_natskv.kv._snapshot.os.fsync", lambda _: seen.update(tmp_path.iterdir()))
        assert written(path)
    (aside,) = seen
    others = [tmp_path / other for other in (".env.local", ".flags.natskv", f".{name}.backup", f".{name}.old.natskv")]
    for file in (aside, *others):
        file.write_text("half")
        os.utime(file, (time.time() - 3_600,) * 2)
    assert written(path)
    assert {*tmp_path.iterdir()} == {path, *others}


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flags"
    beside: list[int] = []

    def meanwhile(_: int) -> None:
        beside.append(len([*tmp_path.iterdir()]))
        if len(beside) == 1:
            assert written(path)

    monkeypatch.setattr("django_natskv.kv._snapshot.os.fsync", meanwhile)
    assert written(path)
    assert beside == [1, 2]
    assert [*tmp_path.iterdir()] == [path]


def test_it_is_written_part_by_part_and_read_again(tmp_path: Path) -> None:
    wire: Any = None
    info = BucketInfo("b", {}, NOW, 0, 0, 0, 0)
    keeper = Keeper(Core(wire, info, codecs.resolve("json")), Clock())
    count = 5_000
    entries = (
        Entry("b", f"key-{number}", "x" * 200, number, NOW, Operation.PUT, headers={"By": "me"})
        for number in range(1, count + 1)
    )
    path = tmp_path / "flags"
    file = SnapshotFile(path, "this")
    tracemalloc.start()
    try:
        assert file.write(entries, keeper, NOW)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4
    found = file.read(keeper, 10**9)
    assert found is not None
    assert found.taken == NOW
    assert len(found.entries) == count
    last = found.entries[f"key-{count}"]
    assert (last.value, last.revision, last.created, last.headers) == ("x" * 200, count, NOW, {"By": "me"})


@pytest.mark.parametrize("length", [900, 99_000])
def test_one_that_does_not_fit_is_ignored_with_a_line_and_not_even_read(
    length: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire: Any = None
    keeper = Keeper(Core(wire, BucketInfo("b", {}, NOW, 0, 0, 0, 0), codecs.resolve("json")), Clock())
    entries = [Entry("b", "a", "x" * length, 1, NOW, Operation.PUT), Entry("b", "b", "y", 2, NOW, Operation.PUT)]
    file = SnapshotFile(tmp_path / "flags", "this")
    assert file.write(entries, keeper, NOW)
    most = sum(map(weight, entries))
    assert file.read(keeper, most) is not None
    if length > 10_000:
        most = 2_000
        monkeypatch.setattr(file, "_parse", pytest.fail)
    assert file.read(keeper, most - 1) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is ignored: it takes more" in caplog.text


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    path = tmp_path / "flags"
    path.symlink_to(there)
    assert written(path)
    assert not path.is_symlink()
    assert there.read_text() == "precious"
