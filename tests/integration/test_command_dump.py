"""``manage.py natskv_bucket dump``, run as a user runs it, on a real server."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import signal
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from django.core.management import CommandError, call_command

from django_natskv.kv import Bucket, Change, KVContext
from tests.fix_commands import Manage
from tests.fix_servers import NatsServer

LINE = ("django_natskv.management.dumps.lines", "_line")  # a call for each line of a dump


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def written(kv: KVContext, bucket_name: str) -> Bucket:
    made = kv.create_bucket({"bucket": bucket_name, "history": 4, "metadata": {"team": "shop"}}, codec="bytes")
    made.put("a", b"one", headers={"By": "ann%20b"})
    made.put("a", '{"text": "zwei\u2028\u00e9"}\n'.encode())
    made.put("bytes", b"\xff\x00")
    made.put("gone", b"x")
    made.delete("gone")
    made.put("empty", b"", ttl_ms=3_600_000)
    made.purge("empty")
    made.put("empty", b"", ttl_ms=3_600_000)
    return made


def fill(bucket: Bucket, count: int, size: int = 40) -> None:
    for start in range(0, count, 2_000):
        changes = [Change.put(f"key.{n}", b"%d" % n * size) for n in range(start, min(count, start + 2_000))]
        assert [result for result in bucket.write_many(changes) if not isinstance(result, int)] == []


def size(file: Path) -> int:
    """Return the bytes of a file, none for one that is not there yet."""
    return file.stat().st_size if file.exists() else 0


def publish(url: str, subject: str, data: bytes, headers: dict[str, str]) -> None:
    """Write as another program might, which knows no rule for keys."""

    async def send() -> None:
        client = await nats.connect(url)
        await client.jetstream().publish(subject, data, headers=headers)
        await client.close()

    asyncio.run(send())


def test_a_dump_has_a_header_an_entry_a_line_and_their_count(manage: Manage, written: Bucket):
    done = manage("natskv_bucket", "dump", written.name)
    assert (done.code, done.err) == (0, "")
    header, *entries, trailer = lines(done.out)
    assert header["bucket"] == written.name
    assert (header["format"], header["version"], header["history"], header["keys"]) == ("natskv-dump", 1, False, None)
    assert header["config"]["history"] == 4
    assert header["config"]["metadata"] == {"team": "shop"}
    assert abs(datetime.fromisoformat(header["time"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert header["revision"] == 8
    assert trailer == {"entries": 3}
    newest = written.get("a")
    assert newest is not None
    assert entries[0] == {
        "key": "a",
        "operation": "put",
        "revision": 2,
        "created": newest.created.isoformat(),
        "headers": {},
        "value": '{"text": "zwei\u2028\u00e9"}\n',
    }
    assert {"key": "bytes", "base64": "/wA="}.items() <= entries[1].items()
    assert "value" not in entries[1]
    assert {"key": "empty", "value": "", "ttl_ms": 3_600_000}.items() <= entries[2].items()


def test_history_has_all_that_is_kept_in_order(manage: Manage, written: Bucket):
    header, *entries, trailer = lines(manage("natskv_bucket", "dump", written.name, "--history").out)
    assert header["history"] is True
    assert trailer == {"entries": 7}
    assert [(entry["key"], entry["operation"], entry["revision"]) for entry in entries] == [
        ("a", "put", 1),
        ("a", "put", 2),
        ("bytes", "put", 3),
        ("gone", "put", 4),
        ("gone", "delete", 5),
        ("empty", "purge", 7),
        ("empty", "put", 8),
    ]
    assert entries[0]["headers"] == {"By": "ann%20b"}
    assert not {"value", "base64"} & entries[4].keys()


def test_patterns_restrict_it(manage: Manage, written: Bucket):
    done = manage("natskv_bucket", "dump", written.name, "--keys", "a", "--keys", "bytes")
    header, *entries, _ = lines(done.out)
    assert header["keys"] == ["a", "bytes"]
    assert [entry["key"] for entry in entries] == ["a", "bytes"]


def test_a_file_is_its_owners_and_takes_the_place_of_another(manage: Manage, written: Bucket, tmp_path: Path):
    file = tmp_path / "dump.jsonl"
    file.write_text("old")
    file.chmod(0o644)
    (tmp_path / "dump.jsonl.part").write_text("what a killed one left " * 1_000)
    (tmp_path / "dump.jsonl.part").chmod(0o666)
    done = manage("natskv_bucket", "dump", written.name, str(file), "--format", "json")
    assert (done.code, done.error) == (0, f"Wrote 3 entries of the bucket {written.name!r} to {file}.")
    assert json.loads(done.out) == {"bucket": written.name, "file": str(file), "entries": 3}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert lines(file.read_text())[1:] == lines(manage("natskv_bucket", "dump", written.name, "-").out)[1:]
    assert [path.name for path in tmp_path.iterdir() if "dump" in path.name] == ["dump.jsonl"]


def test_a_link_stays_and_what_it_leads_to_is_written(manage: Manage, written: Bucket, tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert manage("natskv_bucket", "dump", written.name, str(tmp_path / "link")).code == 0
    assert (tmp_path / "link").is_symlink()
    assert len(lines((tmp_path / "target").read_text())) == 5


def test_a_dump_that_fails_leaves_what_was_there(manage: Manage, bucket_name: str, tmp_path: Path):
    file = tmp_path / "dump.jsonl"
    file.write_text("old")
    done = manage("natskv_bucket", "dump", bucket_name, str(file))
    assert done.code == 3
    assert repr(bucket_name) in done.error
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if "dump" in path.name] == ["dump.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("no/such/directory/file",), 1, "cannot be written: No such file or directory"),
        (("/dev/null",), 1, "is no regular file"),
        (("-", "--keys", "a..b"), 2, "'a..b' cannot be a key pattern"),
        (("-", "more"), 2, "unrecognized arguments"),
        (("-", "--using", "down"), 1, "Is the server up?"),
    ],
    ids=str,
)
def test_an_error_is_one_line(manage: Manage, written: Bucket, arguments: tuple[str, ...], status: int, said: str):
    done = manage("natskv_bucket", "dump", written.name, *arguments)
    assert (done.code, done.out) == (status, "")
    assert said in done.error


def test_two_at_once_do_not_write_to_one_file(manage: Manage, written: Bucket, tmp_path: Path):
    file = tmp_path / "dump.jsonl"
    with (tmp_path / "dump.jsonl.part").open("wb") as first:
        first.write(b"what another dump has written")
        first.flush()
        fcntl.flock(first, fcntl.LOCK_EX)
        done = manage("natskv_bucket", "dump", written.name, str(file))
        assert (done.code, "Another dump" in done.error) == (1, True)
        assert size(tmp_path / "dump.jsonl.part") == 29
    assert not file.exists()
    assert manage("natskv_bucket", "dump", written.name, str(file)).code == 0
    assert lines(file.read_text())[-1] == {"entries": 3}


def test_killed_in_the_middle_it_leaves_nothing_that_a_rerun_does_not_finish(
    manage: Manage, kv: KVContext, bucket_name: str, tmp_path: Path
):
    fill(kv.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes"), 5_000)
    file = tmp_path / "dump.jsonl"
    aside = tmp_path / "dump.jsonl.part"
    for line in (1, 2_500, 5_001):
        process = manage.stopped_at(*LINE, line, "natskv_bucket", "dump", bucket_name, str(file))
        process.kill()
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
        assert not file.exists()
        assert aside.exists()
    assert manage("natskv_bucket", "dump", bucket_name, str(file)).code == 0
    assert lines(file.read_text())[-1] == {"entries": 5_000}
    assert not aside.exists()


def test_ctrl_c_leaves_nothing_behind(manage: Manage, kv: KVContext, bucket_name: str, tmp_path: Path):
    fill(kv.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes"), 5_000)
    process = manage.stopped_at(*LINE, 2_500, "natskv_bucket", "dump", bucket_name, str(tmp_path / "dump.jsonl"))
    assert size(tmp_path / "dump.jsonl.part") > 0
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err.count("\n")) == (1, 1)
    assert [path.name for path in tmp_path.iterdir() if "dump" in path.name] == []


def test_a_reader_that_leaves_ends_it_in_silence(manage: Manage, kv: KVContext, bucket_name: str):
    fill(kv.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes"), 20_000)
    process = manage.start("natskv_bucket", "dump", bucket_name)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 1
    process.stderr.close()


def test_progress_is_for_terminals(manage: Manage, kv: KVContext, bucket_name: str, tmp_path: Path):
    fill(kv.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes"), 20_000)
    file = str(tmp_path / "dump.jsonl")
    seen = manage.on_terminal("natskv_bucket", "dump", bucket_name, file)
    assert seen.code == 0
    looks = [look for look in seen.screen.split("\r") if look.strip()]
    assert all(look.startswith("Reading: ") and "entries" in look for look in looks[:-1])
    assert any("%|" in look for look in looks)
    narrow = manage.on_terminal("natskv_bucket", "dump", bucket_name, file, columns=40).screen.split("Wrote")[0]
    assert 0 < max(map(len, narrow.split("\r"))) <= 40
    assert f"Wrote 20,000 entries of the bucket {bucket_name!r} to {file}." in looks[-1]
    assert "Reading" not in manage.on_terminal("natskv_bucket", "dump", bucket_name, file, "-v", "0").screen
    assert "Reading" not in manage("natskv_bucket", "dump", bucket_name, file).err
    with (tmp_path / "out").open("w") as out:
        assert "Reading" in manage.on_terminal("natskv_bucket", "dump", bucket_name, stdout=out).screen
    assert lines((tmp_path / "out").read_text())[-1] == {"entries": 20_000}


def test_without_tqdm_progress_is_a_line_for_each_tenth(
    manage: Manage, kv: KVContext, bucket_name: str, tmp_path: Path
):
    fill(kv.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes"), 100)
    settings = manage.directory / "project_settings.py"
    settings.write_text(f"{settings.read_text()}import sys\nsys.modules['tqdm'] = None\n")
    command = ("natskv_bucket", "dump", bucket_name, str(tmp_path / "dump.jsonl"))
    seen = manage.on_terminal(*command, "--no-color").screen.splitlines()
    assert [line.split(",")[0] for line in seen[:-1]] == [f"Reading: {tenth * 10} %" for tenth in range(1, 11)]
    assert seen[-2] == "Reading: 100 %, 100 entries."


def test_what_another_program_wrote_is_dumped_as_it_is(manage: Manage, written: Bucket, nats_server: NatsServer):
    publish(nats_server.url, f"$KV.{written.name}.k:1", b"x", {"Note": "\u00e9"})
    _, *entries, _ = lines(manage("natskv_bucket", "dump", written.name).out)
    assert {"key": "k:1", "value": "x", "headers": {"Note": "\u00e9"}}.items() <= entries[-1].items()


def test_call_command_gives_text(written: Bucket):
    out = io.StringIO()
    call_command("natskv_bucket", "dump", written.name, stdout=out, stderr=io.StringIO())
    assert lines(out.getvalue())[-1] == {"entries": 3}
    with pytest.raises(CommandError) as caught:
        call_command("natskv_bucket", "dump", "nosuch", os.devnull, stdout=out, stderr=io.StringIO())
    assert caught.value.returncode == 1
