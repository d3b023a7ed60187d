"""Writers of one key side by side, threads and processes: what was written last is there whole, and nothing is left."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.kv import Bucket
from tests.fix_cache import PROGRAM

SIZE = 1_200_000  # bytes: three chunks
SMALL = b"small"


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {})


def chunks(bucket: Bucket) -> list[str]:
    return bucket.keys("_.==chunk.>")


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
