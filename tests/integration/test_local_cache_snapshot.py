"""The snapshot file: what a process serves that starts while NATS is down."""

from __future__ import annotations

import signal
import stat
import threading

import pytest

from django_natskv.kv import LocalCacheSettings
from tests.fix_local import equal, feed, held, insist, live
from tests.fix_waiting import eventually


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def bucket(server, connect_kv):
    bucket = connect_kv(server).kv().create_bucket({"bucket": "b"})
    for number in range(20):
        bucket.put(f"k.{number}", {"n": number})
    bucket.put("text", "some")
    bucket.create("short", 1, ttl_ms=600_000, headers={"By": "me"})
    return bucket


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "snapshots" / "here"


def cache_of(connect_kv, server, directory, **options):
    # The first attempt, which fails at once, ends the wait.
    settings = LocalCacheSettings(wait=1_000, snapshot_dir=None if directory is None else str(directory))
    return connect_kv(server, name="shop", local_cache=settings).local_cache("b", **options)


def close_written(cache, path):
    """Close a copy while it is live, which writes its file: on a machine that hangs it may become stale just before."""

    def written() -> bool:
        live(cache).close()
        return path.exists()

    eventually(written, 30)


@pytest.fixture
def file(bucket, server, connect_kv, directory):
    """The file of a copy that was closed; the server is down."""
    close_written(cache_of(connect_kv, server, directory), directory)
    server.stop()
    [path] = directory.glob("*.natskv")
    return path


def test_it_is_served_as_stale_and_the_copy_goes_live_by_itself(file, bucket, server, connect_kv, directory):
    cache = cache_of(connect_kv, server, directory)
    assert cache.value("k.7") == {"n": 7}
    assert cache.get("short").headers == {"By": "me"}
    status = cache.status()
    assert (status.state, status.entries) == ("stale", 22)
    assert 0 < status.age < 60
    assert cache.value("short") == 1
    cache.value("k.7")["n"] = 8
    assert cache.value("k.7") == {"n": 7}
    assert not cache.wait_ready(0)
    server.start()
    equal(cache, bucket)


def test_it_is_for_the_owners_eyes(file, directory):
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0
    assert file.name.startswith("b-")


def test_it_follows_the_changes(bucket, server, connect_kv, directory, monkeypatch):
    monkeypatch.setattr("django_natskv.kv._mirroring.SAVE", 0.1)
    cache = live(cache_of(connect_kv, server, directory))
    eventually(lambda: list(directory.glob("*.natskv")))
    [path] = directory.glob("*.natskv")
    bucket.put("k.1", "changed")
    eventually(lambda: b'"changed"' in path.read_bytes())
    expected = held(cache)
    feed(cache).stop()  # without a last word
    server.stop()
    other = cache_of(connect_kv, server, directory)
    eventually(lambda: held(other) == expected)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def empty(path):
    path.write_bytes(b"")


def other_version(path):
    path.write_bytes(path.read_bytes().replace(b"cache 2\n", b"cache 1\n"))


def others_may_write(path):
    path.chmod(0o666)


def directory_instead(path):
    path.unlink()
    path.mkdir()


def link_instead(path):
    path.rename(path.with_suffix(".there"))
    path.symlink_to(path.with_suffix(".there"))


@pytest.mark.parametrize("damage", [flip, cut, empty, other_version, others_may_write, directory_instead, link_instead])
def test_what_cannot_be_relied_on_is_ignored_with_one_line(damage, file, server, connect_kv, directory, caplog, bucket):
    damage(file)
    caplog.clear()
    cache = cache_of(connect_kv, server, directory)
    assert cache.get("k.7") is None
    assert cache.status().state == "stale"
    lines = [record for record in caplog.records if "snapshot" in record.getMessage()]
    assert len(lines) == 1
    assert "is ignored" in lines[0].getMessage()
    server.start()
    equal(cache, bucket)


def test_what_is_of_something_else_is_ignored(file, server, connect_kv, directory, caplog):
    cache = cache_of(connect_kv, server, None, keys="k.*", snapshot=file)
    assert cache.get("k.7") is None
    assert "holds something else" in caplog.text


def test_no_file_is_no_news(server, connect_kv, directory, caplog):
    server.stop()
    assert cache_of(connect_kv, server, directory).get("k.7") is None
    assert "snapshot" not in caplog.text


def test_of_a_bucket_that_is_gone_nothing_is_served(file, server, connect_kv, directory):
    server.start()
    context = connect_kv(server).kv()
    context.delete_bucket("b")
    server.stop()
    early = cache_of(connect_kv, server, directory)
    assert early.value("k.7") == {"n": 7}
    server.start()
    eventually(lambda: early.get("k.7") is None)
    late = cache_of(connect_kv, server, directory)
    assert late.get("k.7") is None
    for cache in (early, late):
        status = cache.status()
        assert (status.state, status.age, status.entries) == ("stale", None, 0)
        assert "no bucket" in status.reason.lower()
    insist(context.create_bucket, {"bucket": "b"})  # on a connection that comes back by itself too
    bucket = context.open_bucket("b")
    bucket.put("a", 1)
    for cache in (early, late):
        equal(cache, bucket)


def test_a_path_can_be_given(bucket, server, connect_kv, tmp_path):
    path = tmp_path / "mine"
    close_written(cache_of(connect_kv, server, None, snapshot=path), path)
    server.stop()
    assert cache_of(connect_kv, server, None, snapshot=str(path)).value("text") == "some"


def test_a_place_that_cannot_be_written_is_told_and_harms_nothing(bucket, server, connect_kv, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = live(cache_of(connect_kv, server, tmp_path / "file"))
    eventually(lambda: "could not be written" in caplog.text)
    assert cache.value("text") == "some"


def test_values_that_have_expired_meanwhile_are_not_served(bucket, server, connect_kv, directory):
    close_written(cache_of(connect_kv, server, directory), directory)
    server.stop()
    later = cache_of(connect_kv, server, directory)
    assert later.value("short") == 1
    told = feed(later).clock.local
    feed(later).clock.local = lambda: told().replace(year=told().year + 1)
    assert later.value("short") is None
    assert later.value("text") == "some"


WRITER = """
from django_natskv.kv import _mirroring
_mirroring.SAVE = 0.0
cache = connections["default"].local_cache("b")
assert cache.wait_ready(30)
bucket = connections["default"].kv().open_bucket("b")
print(json.dumps("go"), flush=True)
while True:
    bucket.put("k.1", "x" * 50_000)
    bucket.put("k.2", "y" * 50_000)
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_writer_that_is_killed_leaves_a_whole_file(bucket, server, program, directory, connect_kv, caplog):
    natskv = {"default": {"SERVERS": server.url, "NAME": "shop", "LOCAL_CACHE": {"SNAPSHOT_DIR": str(directory)}}}
    for _ in range(4):
        writer = program(WRITER, natskv)
        assert writer.read() == "go"
        eventually(lambda: list(directory.glob("*.natskv")))
        writer.kill(signal.SIGKILL)
        writer.process.communicate()
    server.stop()
    cache = cache_of(connect_kv, server, directory)
    assert cache.value("text") == "some"
    assert len(cache.keys()) == 22
    assert "ignored" not in caplog.text


def test_a_stale_copy_is_not_written(bucket, server, connect_kv, directory):
    cache = live(cache_of(connect_kv, server, directory))
    eventually(lambda: list(directory.glob("*.natskv")))
    [path] = directory.glob("*.natskv")
    server.stop()
    eventually(lambda: cache.status().state == "stale")
    before = path.stat().st_mtime_ns
    feed(cache)._mark(0)
    cache.close()
    assert path.stat().st_mtime_ns == before


def test_no_thread_is_left(bucket, server, connect_kv, directory):
    before = set(threading.enumerate())
    cache = live(cache_of(connect_kv, server, directory))
    bucket.put("a", 1)
    eventually(lambda: cache.value("a") == 1)
    cache.close()
    eventually(lambda: not [one for one in set(threading.enumerate()) - before if one.name == "natskv-snapshot"])
