"""Suite ``watch``: how fast a copy is warm, how soon another process sees a change, and what a replay costs requests.

Owns which peers meet over which work. Knows nothing of how ratios are formed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from benchmarks import peers
from benchmarks.load import WARM
from benchmarks.pairs import Batch, Contest, Sample
from benchmarks.servers import Servers
from django_natskv import connections

KEYS = 100_000
SCANNED = 1_000  # keys asked of Redis at once
BUCKET = "bench-watch"
ALONE = "bench-watch-alone"  # has nothing to do with the replay, but for the connection
SEEN = 100  # puts a batch
PAUSE = 0.002  # seconds between two puts: each finds both processes waiting, as a change twice a day does
QUIET = "quiet"
WATCH = "watch"
COPY = "local cache"
SCAN = "SCAN + MGET"
PUBSUB = "Redis pub/sub"
ROUNDS = 15  # a round takes seconds
EMPTY_LOAD = 300  # gets while nothing is replayed

WARM_UP_TARGET = 3.0
SEEN_TARGET = 1.2
REPLAY_TARGET = 3.0


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. ``count`` keys instead of 100,000, for a quick look."""
    keys = count or KEYS
    fill(servers, keys)
    yield warm_up(servers, keys)
    with contextlib.ExitStack() as stack:
        yield seen_elsewhere(servers, stack, count or SEEN)
    yield get_during_replay(keys, count or EMPTY_LOAD)


def fill(servers: Servers, count: int) -> None:
    context = connections["default"].kv()
    entries = ((f"warm.key-{number}", bytes(100)) for number in range(count))
    redis = peers.library("redis").Redis.from_url(servers.redis["memory"]) if servers.redis else None
    if redis is not None:
        redis.flushdb()
    # With one revision a key, a value that is overwritten before it was delivered is not delivered.
    context.create_bucket({"bucket": ALONE, "storage": "memory", "history": 64}, codec="bytes").put("key", bytes(100))
    bucket = context.create_bucket({"bucket": BUCKET, "storage": "memory"}, codec="bytes")
    threads = []
    while chunk := list(islice(entries, SCANNED * 25)):
        if redis is not None:
            redis.mset(dict(chunk))
        threads.append(threading.Thread(target=put_all, args=(bucket, chunk)))
        threads[-1].start()
    for thread in threads:
        thread.join()


def put_all(bucket: Any, entries: list[tuple[str, bytes]]) -> None:
    for key, value in entries:
        bucket.put(key, value)


# --- warm-up ---


def warm_up(servers: Servers, keys: int) -> Contest:
    """Everything in a dict: by a watch, by reading Redis. The aim for a copy is the local cache's: suite ``local``."""
    found: dict[str, Batch] = {}
    if servers.redis:
        found[SCAN] = once(lambda: scan(servers.redis["memory"]), keys)
    found[WATCH] = once(replay, keys)
    return Contest(f"{keys:,} keys of 100 B into a dict", next(iter(found)), found, {}, 1, ROUNDS)


def once(warm: Callable[[], int], keys: int) -> Batch:
    def batch(_count: int) -> Sample:
        began = time.perf_counter()
        got = warm()
        took = time.perf_counter() - began
        if got != keys:
            message = f"{got} of {keys} keys arrived"
            raise RuntimeError(message)
        return {"time": took}

    return batch


def replay() -> int:
    copy: dict[str, Any] = {}
    bucket = connections["default"].kv().open_bucket(BUCKET, codec="bytes")

    def keep(entry: Any) -> None:
        copy[entry.key] = entry.value

    watch = bucket.watch(keep)
    watch.initialized.result(120)
    watch.stop()
    return len(copy)


def scan(url: str) -> int:
    copy: dict[bytes, bytes] = {}
    client = peers.library("redis").Redis.from_url(url)
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, count=SCANNED)
        copy.update(zip(keys, client.mget(keys), strict=True))
        if not cursor:
            return len(copy)


# --- another process ---


class Listener:
    """A process that waits for changes. See ``benchmarks.listener``."""

    def __init__(self, kind: str, url: str, name: str) -> None:
        command = [sys.executable, "-m", "benchmarks.listener", kind, url, name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            message = "the listening process has ended"
            raise RuntimeError(message)
        return line

    def batch(self, send: Callable[[bytes], Any]) -> Batch:
        def batch(count: int) -> Sample:
            for _ in range(count):
                send(str(time.monotonic_ns()).encode())
                time.sleep(PAUSE)
            assert self._process.stdin is not None
            print(count, file=self._process.stdin, flush=True)
            delays = json.loads(self._read())
            if len(delays) != count:
                message = f"{len(delays)} of {count} changes were seen"
                raise RuntimeError(message)
            return spread(delays)

        return batch

    def close(self) -> None:
        with self._process as process:
            if process.stdin is not None:
                process.stdin.close()
            process.wait(10)


def seen_elsewhere(servers: Servers, stack: contextlib.ExitStack, count: int) -> Contest:
    """A put here until the handler of a watch in another process is called, beside a message of Redis."""
    found: dict[str, Batch] = {}
    bucket = connections["default"].kv().open_bucket(ALONE, codec="bytes")
    if servers.redis:
        url = servers.redis["memory"]
        redis = peers.library("redis").Redis.from_url(url)
        subscriber = Listener("redis", url, ALONE)
        stack.callback(subscriber.close)
        found[PUBSUB] = subscriber.batch(lambda value: redis.publish(ALONE, value))
    for peer, kind, key in ((COPY, "local", "copied"), (WATCH, "nats", "watched")):
        listener = Listener(kind, servers.nats, ALONE)
        stack.callback(listener.close)
        found[peer] = listener.batch(each_elsewhere(bucket, key))
    title = "a put until another process sees it"
    return Contest(title, next(iter(found)), found, {COPY: SEEN_TARGET}, count)


def each_elsewhere(bucket: Any, name: str) -> Callable[[bytes], Any]:
    """Put one key after another: of two changes of one that come together, a copy may take the newer alone."""
    keys = itertools.cycle(f"{name}.{number}" for number in range(64))
    return lambda value: bucket.put(next(keys), value)


# --- requests beside a replay ---


def get_during_replay(keys: int, count: int) -> Contest:
    """Gets on a connection on which a local cache, or a watch, replays a bucket, beside the same when it is quiet."""
    connection = connections["default"]
    context = connection.kv()
    alone = context.open_bucket(ALONE, codec="bytes")
    replayed = context.open_bucket(BUCKET, codec="bytes")
    cache = connection.local_cache(BUCKET, codec="bytes")

    def quiet(count: int) -> Sample:
        return spread([one_get(alone) for _ in range(count + WARM)][WARM:])

    def copied(_count: int) -> Sample:
        cache.close()
        cache.start()
        times = gets_until(alone, lambda: cache.is_live)
        cache.close()
        return times

    def watched(_count: int) -> Sample:
        watch = replayed.watch(lambda _entry: None)
        times = gets_until(alone, watch.initialized.done)
        watch.stop()
        return times

    title = f"get while {keys:,} keys are replayed"
    found = {QUIET: quiet, COPY: copied, WATCH: watched}
    return Contest(title, QUIET, found, {COPY: REPLAY_TARGET, WATCH: REPLAY_TARGET}, count, ROUNDS)


def gets_until(bucket: Any, is_over: Callable[[], bool]) -> Sample:
    times = []
    while not is_over():
        times.append(one_get(bucket))
    return spread(times or [one_get(bucket)])


def one_get(bucket: Any) -> float:
    began = time.perf_counter()
    bucket.get("key")
    return time.perf_counter() - began


def spread(values: list[float]) -> Sample:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]}
