"""Writers of one key side by side, threads and processes: what was written last is there whole, and nothing is left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, backoff
from django_natskv.cache.chunks import CHUNKS, GRACE, Head
from django_natskv.cache.steps import run
from django_natskv.cache.store import Store
from django_natskv.connections import connections
from django_natskv.exceptions import OperationalError, OperationTimedOut, PermissionsViolation
from django_natskv.kv import Bucket
from tests.fix_cache import PROGRAM
from tests.fix_waiting import eventually

SIZE = 1_200_000  # bytes: three chunks
SMALL = b"small"
OLD = -60.0  # seconds of grace with which everything is old, however well the server's time is known


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def chunks(bucket: Bucket) -> list[str]:
    return bucket.keys("==chunk._.>")


def race(*writers: Any) -> None:
    """Begin all at once, and wait for all."""
    start = threading.Barrier(len(writers), timeout=30)

    def run(write: Any) -> None:
        start.wait()
        write()

    threads = [threading.Thread(target=run, args=(write,)) for write in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_write_large_values_leave_one_of_them(plain, stored):
    values = [bytes([number]) * SIZE for number in range(4)]
    for _ in range(10):
        race(*(lambda value=value: plain.set("k", value) for value in values))
        assert plain.get("k") in values
        assert len(chunks(stored())) == 3


def test_a_small_value_that_is_overwritten_by_a_large_one_takes_no_chunks_with_it(plain, stored, monkeypatch):
    """One thread writes a small value; before it goes on, another has written a large one."""
    large = b"x" * SIZE
    put = Bucket.put

    def overtaken(bucket: Bucket, key: str, *args: Any, **options: Any) -> int:
        revision = put(bucket, key, *args, **options)
        monkeypatch.setattr(Bucket, "put", put)
        plain.set("k", large)
        return revision

    plain.set("k", large[::-1])
    monkeypatch.setattr(Bucket, "put", overtaken)
    plain.set("k", SMALL)
    assert plain.get("k") == large
    plain.set("k", SMALL)
    assert chunks(stored()) == []


def test_a_large_value_removes_the_chunks_that_another_process_wrote(plain, stored, natskv, bucket_name, program):
    code = PROGRAM + 'cache.set("k", b"x" * 1_200_000)\nprint(json.dumps(True), flush=True)'
    plain.set("k", 1)
    assert program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name).read()
    plain.set("k", b"y" * SIZE)
    assert plain.get("k") == b"y" * SIZE
    assert len(chunks(stored())) == 3


def test_several_values_remove_the_chunks_of_what_was_there(plain, stored):
    plain.set("k", b"x" * SIZE)
    assert plain.set_many({"k": 1, "l": 2}) == []
    assert chunks(stored()) == []


def overtaken(monkeypatch: pytest.MonkeyPatch, name: str, do: Any) -> None:
    """Do something just before the next call of the operation ``name`` of a bucket."""
    operation = getattr(Bucket, name)

    def later(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(Bucket, name, operation)
        do()
        return operation(*args, **options)

    monkeypatch.setattr(Bucket, name, later)


def test_what_is_written_while_several_are_deleted_leaves_no_chunks(plain, stored, monkeypatch):
    plain.set("k", 1)
    overtaken(monkeypatch, "write_many", lambda: plain.set("k", b"x" * SIZE))
    plain.delete_many(["k"])
    assert plain.get("k") is None
    assert chunks(stored()) == []


def test_what_is_written_to_a_file_bucket_while_several_are_is_written_over(natskv, bucket_name, monkeypatch):
    file = NatsKVCache(bucket_name, {"OPTIONS": {"BUCKET": {"storage": "file"}}})  # looks first at what is there (F1)
    file.set("k", 1)
    overtaken(monkeypatch, "write_many", lambda: file.set_many({"k": 2, "l": 2}))
    assert file.set_many({"k": 3, "l": 3}) == []
    assert file.get_many(["k", "l"]) == {"k": 3, "l": 3}


def test_what_is_written_while_a_version_goes_up_goes_up_too(plain, monkeypatch):
    plain.set("k", 1)
    overtaken(monkeypatch, "delete", lambda: plain.set("k", 2))
    assert plain.incr_version("k") == 2
    assert plain.get("k") is None
    assert plain.get("k", version=2) == 2


def test_chunks_that_others_left_go_when_who_wrote_them_reads_what_came_after(plain, stored, bucket_name):
    other = NatsKVCache(bucket_name, {"OPTIONS": {"ON_ERROR": "miss"}})  # shares nothing, as if in another process
    plain.set("k", b"x" * SIZE)
    other.set("k", 1)
    other.set("k", b"y" * SIZE)
    assert plain.get("k") == b"y" * SIZE
    assert len(chunks(stored())) == 3
    plain.set("k", 1)
    assert chunks(stored()) == []


@pytest.mark.slow  # three interpreters start
def test_processes_that_write_large_values_each_read_one_whole(natskv, bucket_name, program, stored, plain):
    code = (
        PROGRAM
        + """
sys.stdin.readline()
for _ in range(15):
    cache.set("k", os.environ["TEST_LETTER"].encode() * 1_200_000)
    value = cache.get("k")
    assert len(value) == 1_200_000 and len(set(value)) == 1
print(json.dumps(True), flush=True)
"""
    )
    common = {"default": dict(natskv)}
    programs = [program(code, common, TEST_BUCKET=bucket_name, TEST_LETTER=letter) for letter in "abc"]
    for each in programs:
        each.tell()
    assert [each.read() for each in programs] == [True] * 3
    assert len(plain.get("k")) == SIZE
    assert len(chunks(stored())) == 3


def test_a_large_value_that_others_overwrite_all_the_time_is_given_up_and_leaves_nothing(plain, stored, monkeypatch):
    plain.set("k", 1)
    monkeypatch.setattr(backoff, "TRIES", 3)
    get, tries = Bucket.get, []

    def overtaken(bucket: Bucket, key: str, **options: Any) -> Any:
        entry = get(bucket, key, **options)
        if key == "_.1.k":
            tries.append(bucket.put(key, b"2"))
        return entry

    monkeypatch.setattr(Bucket, "get", overtaken)
    with pytest.raises(OperationTimedOut, match="given up"):
        plain.set("k", b"x" * SIZE)
    monkeypatch.undo()
    assert len(tries) == 3
    assert plain.get("k") == 2
    assert chunks(stored()) == []


# ---------------------------------------------------------------------- what is left


@pytest.fixture
def proxied(nats_server, make_proxy, settings, bucket_name):
    """A cache whose answers can be held back, and the proxy that does it."""
    proxy = make_proxy(nats_server.url)
    settings.NATSKV = {"default": {"SERVERS": [proxy.url], "REQUEST_TIMEOUT": 0.5}}
    return NatsKVCache(bucket_name, {}), proxy


@pytest.mark.parametrize("write", ["set", "add", "touch", "incr_version"])
def test_a_large_value_whose_head_was_written_unheard_of_is_there_whole(proxied, monkeypatch, write):
    cache, proxy = proxied
    value = b"x" * SIZE
    if write in ("touch", "incr_version"):
        insist(cache.set, "k", value)
    written = Store._write
    came = threading.Event()

    def unheard(store: Store, stored: str, data: bytes, headers: Any, *rest: Any) -> Any:
        if CHUNKS in headers:
            proxy.pause("replies")
            came.set()
        return written(store, stored, data, headers, *rest)

    monkeypatch.setattr(Store, "_write", unheard)
    args = () if write in ("touch", "incr_version") else (value,)
    error = fails(came, getattr(cache, write), "k", *args)
    assert error.may_have_been_applied
    monkeypatch.undo()
    proxy.heal()
    eventually(lambda: reads(cache, "k", 2 if write == "incr_version" else 1, value), 30)


def insist(operation: Callable[..., Any], *args: Any) -> None:
    """Carry an operation out, however often the server is too slow for the test's timeout."""

    def done() -> bool:
        with contextlib.suppress(OperationalError):
            operation(*args)
            return True
        return False

    eventually(done, 30)


def fails(came: threading.Event, operation: Callable[..., Any], *args: Any) -> OperationTimedOut:
    """Return how an operation fails that comes as far as ``came``; what is too slow before that is done again."""

    def attempt() -> OperationTimedOut | None:
        with pytest.raises(OperationTimedOut) as caught:
            operation(*args)
        return caught.value if came.is_set() else None

    error = eventually(attempt, 30)
    assert error is not None
    return error


def reads(cache: NatsKVCache, key: str, version: int, value: bytes) -> bool:
    with contextlib.suppress(OperationalError):
        return bool(cache.get(key, version=version) == value)
    return False


def test_a_large_value_that_is_overwritten_unheard_of_is_the_old_or_the_new_one(proxied, monkeypatch, nats_server):
    cache, proxy = proxied
    old, new = b"o" * SIZE, b"n" * SIZE
    insist(cache.set, "k", old)
    written = Store._write
    came = threading.Event()

    def lost(store: Store, stored: str, data: bytes, headers: Any, *rest: Any) -> Any:
        if CHUNKS in headers:
            proxy.blackhole()
            came.set()
        return written(store, stored, data, headers, *rest)

    monkeypatch.setattr(Store, "_write", lost)
    fails(came, cache.set, "k", new)
    monkeypatch.undo()
    assert NatsKVCache(f"{nats_server.url}/{cache._location}", {}).get("k") in (old, new)
    proxy.heal()  # what TCP held back arrives now
    eventually(lambda: reads(cache, "k", 1, new), 30)
    cache._store.chunks.grace = OLD

    def swept() -> bool:
        with contextlib.suppress(OperationalError):
            run(cache._store.chunks.sweep())
            return len(chunks(connections["default"].kv().open_bucket(cache._location, codec="bytes"))) == 3
        return False

    eventually(swept, 30)
    assert reads(cache, "k", 1, new)


def test_the_chunks_of_a_writer_that_was_killed_go_with_the_next_large_value(
    plain, stored, natskv, bucket_name, program, monkeypatch
):
    code = (
        PROGRAM
        + """
from django_natskv.cache.store import Store
Store._write_head = lambda *args: os.kill(os.getpid(), 9)
print(json.dumps(True), flush=True)
cache.set("lost", b"x" * 1_200_000, None)
"""
    )
    started = program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name)
    assert started.read()
    started.process.wait(40)
    assert len(chunks(stored())) == 3
    plain.set("k", 1)
    assert len(chunks(stored())) == 3  # its head might yet come
    monkeypatch.setattr("django_natskv.cache.chunks.GRACE", OLD)
    other = NatsKVCache(bucket_name, {"OPTIONS": {"COMPRESS_MIN": 2048}})  # as another process would be
    other.set("k", b"y" * SIZE)
    assert [name.rpartition(".")[2] for name in chunks(stored())] == ["k"] * 3


def test_the_chunks_of_a_writer_that_was_killed_go_though_nobody_writes_large_values(plain, stored):
    plain.set("k", 1)
    stored().put("==chunk._.0123456789.0.1.lost", b"x")
    chunked = plain._store.chunks
    chunked.grace, chunked._sweep_at = OLD, 0.0  # the time between two sweeps is over
    plain.set("k", 2)
    assert chunks(stored()) == []


def test_chunks_that_a_sweep_left_for_their_head_are_looked_at_again_when_that_is_late(plain, stored):
    plain.set("k", 1)
    stored().put("==chunk._.0123456789.0.1.coming", b"x")
    chunked = plain._store.chunks
    run(chunked.sweep())
    assert chunked._sweep_at <= time.monotonic() + GRACE


def test_a_writer_that_takes_long_is_not_swept_before_its_last_chunk_is_old(plain, stored, monkeypatch):
    plain.set("k", 1)
    bucket = stored()
    bucket.put("==chunk._.0123456789.0.1.coming", b"x")
    first = bucket.get("==chunk._.0123456789.0.1.coming").created.timestamp()
    bucket.put("==chunk._.0123456789.1.1.coming", b"x")
    last = bucket.get("==chunk._.0123456789.1.1.coming").created.timestamp()
    chunked = plain._store.chunks
    chunked.grace = (last - first) / 2
    monkeypatch.setattr(plain._place.clock, "now", lambda: last)
    run(chunked.sweep())
    assert len(chunks(bucket)) == 2


def test_a_value_that_was_written_is_written_though_the_chunks_before_it_cannot_be_erased(plain, stored, monkeypatch):
    plain.set("k", b"x" * SIZE)

    def refused(*_: Any, **__: Any) -> int:
        raise PermissionsViolation("not allowed", subject="$JS.API.STREAM.PURGE")

    monkeypatch.setattr(Bucket, "erase", refused)
    plain.set("k", 1)
    assert plain.get("k") == 1
    plain.set("k", b"y" * SIZE)
    assert plain.delete("k") is True
    monkeypatch.undo()
    plain._store.chunks.grace = OLD
    run(plain._store.chunks.sweep())
    assert chunks(stored()) == []


def test_a_user_who_may_not_list_keys_writes_values_all_the_same(plain, monkeypatch):
    def refused(*_: Any, **__: Any) -> list[str]:
        raise PermissionsViolation("not allowed", subject="$JS.API.STREAM.INFO")

    monkeypatch.setattr(Bucket, "keys", refused)
    plain.set("k", b"x" * SIZE)
    assert plain.get("k") == b"x" * SIZE


def test_a_large_value_is_not_added_over_one_that_is_there(plain, stored):
    plain.set("k", 1)
    assert not plain.add("k", b"x" * SIZE)
    assert plain.get("k") == 1
    assert chunks(stored()) == []


def test_what_is_known_of_a_key_only_gets_newer(plain):
    known = plain._store.chunks
    older, newer = Head("a", 1, 1), Head("b", 1, 1)
    known._remember("k", 6, newer)
    known._remember("k", 5, older)
    assert known._heads == {"k": (6, newer)}
    assert not known._take("k", (5, older))  # which another thread has just replaced
    assert known._heads == {"k": (6, newer)}
