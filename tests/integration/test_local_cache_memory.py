"""What a mirror takes of a process: memory, and the interpreter while it is filled."""

from __future__ import annotations

import gc
import sys
import threading
import time
import tracemalloc

import pytest

from django_natskv.kv._breath import requested
from tests.fix_facade import fill
from tests.fix_local import feed, live
from tests.fix_waiting import eventually

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
        value = len(bytes(100)) + 33  # the object that any dict would hold

        def small() -> bool:  # once the watch, which goes on, has let go of the replay
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
            assert (after - before) / KEYS - value <= 300
            return after - before < cache.status().bytes * 1.2

        eventually(small)
    finally:
        tracemalloc.stop()


def test_a_replay_lets_other_threads_go_on_in_the_middle_of_it(cache):
    """A thread that ticks beside a replay of 24,000 keys: counted in ticks, not in seconds, which are the machine's."""
    ticks, stop = 0, threading.Event()

    def tick():
        nonlocal ticks
        seen = None
        while not stop.is_set():
            requested(time.monotonic())  # as a view that asks for something
            time.sleep(0.0001)
            run = feed(cache)
            came = run.mirror._next if run is not None else None
            position = len(came.entries) if came is not None else 0
            if position not in (0, seen):
                ticks += 1
                seen = position

    ticker = threading.Thread(target=tick)
    ticker.start()
    usual = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is made to let go of the interpreter lock
    try:
        for _ in range(3):
            live(cache, 30).close()
    finally:
        sys.setswitchinterval(usual)
        stop.set()
        ticker.join()
    assert ticks > 100  # some 50 where it lets go of the lock only to read on; 180 where it pauses
