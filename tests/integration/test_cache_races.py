"""Writers of one key side by side, threads and processes: what was written last is there whole, and nothing is left."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache, backoff
from django_natskv.cache.chunks import Head
from django_natskv.exceptions import OperationTimedOut
from django_natskv.kv import Bucket
from tests.fix_cache import PROGRAM

SIZE = 1_200_000  # bytes: three chunks
SMALL = b"small"


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def chunks(bucket: Bucket) -> list[str]:
    return bucket.keys("==chunk._.>")


def race(*writers: Any) -> None:
    """Begin all at once, and wait for all."""
    start = threading.Barrier(len(writers), timeout=10)

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
