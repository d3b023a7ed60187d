"""What a mirror takes of a process: memory, and the interpreter while it is filled."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc

import pytest

from tests.fix_facade import fill
from tests.fix_local import live

KEYS = 8_000


@pytest.fixture(autouse=True)
def _unobserved():
    if sys.gettrace() is not None:
        pytest.skip("what measures coverage takes memory and time of its own")


@pytest.fixture
def cache(connect_kv, bucket_name):
    connection = connect_kv()
    context = connection.kv()
    bucket = context.create_bucket({"bucket": bucket_name, "storage": "memory"}, codec="bytes")

    class Plain:
        plain = bucket

    fill(Plain, [f"some.key-{number}" for number in range(KEYS)], bytes(100))
    yield connection.local_cache(bucket_name, codec="bytes")
    context.delete_bucket(bucket_name)


def test_an_entry_takes_at_most_300_bytes_beyond_its_value(cache):
    live(cache).close()  # whatever is made once is made
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        live(cache, 30)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    value = len(bytes(100)) + 33  # the object that any dict would hold
    assert (after - before) / KEYS - value <= 300
    assert after - before < cache.status().bytes * 1.2


def test_other_threads_go_on_while_a_replay_is_taken(cache):
    longest, stop = 0.0, threading.Event()

    def tick():
        nonlocal longest
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        for _ in range(3):
            live(cache).close()
    finally:
        stop.set()
        ticker.join()
    assert longest < 0.3  # of about a second altogether, on a machine with other things to do
