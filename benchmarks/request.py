"""Suite ``request``: get and put, blocking and awaited.

Owns which peers meet over which work. Knows nothing of how they are timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from types import FrameType

from benchmarks import load, peers
from benchmarks.load import Open
from benchmarks.pairs import Contest
from benchmarks.servers import Servers
from django_natskv import connections

SIZES = {"100 B": 100, "10 KB": 10_000}
VERBS = ("get", "put")
STORAGES = ("memory", "file")
THREADS = 8
TASKS = 32

SLOWER = 1.3  # what a get or a put may take, in times of RedisCache
EQUAL = 1.0
BOUNDS = {peers.BUCKET: SLOWER, peers.BUCKET_PICKLE: SLOWER}


@dataclass(frozen=True)
class Work:
    """One cell of the suite."""

    servers: Servers
    verb: str
    value: bytes
    storage: str

    @property
    def bucket(self) -> str:
        return f"bench-{self.storage}"

    def sync(self, bridge: peers.Bridge) -> dict[str, Open]:
        """Return the peers that block, as far as they are there."""
        verb, value = self.verb, self.value
        url = self.servers.redis.get(self.storage)
        redis = {}
        if url:
            redis = {
                peers.DJANGO: peers.django_cache(self.storage, verb, value),
                peers.REDIS: peers.redis_sync(url, verb, value),
            }
        return {
            **redis,
            peers.BUCKET: peers.bucket(self.bucket, verb, value),
            peers.BUCKET_PICKLE: peers.bucket(f"{self.bucket}-pickled", verb, value, peers.PickleCodec()),
            peers.BRIDGE: bridge.sync(self.bucket, verb, value),
        }

    def awaited(self, bridge: peers.Bridge) -> dict[str, load.OpenAsync]:
        """Return the peers that are awaited, as far as they are there."""
        verb, value = self.verb, self.value
        url = self.servers.redis.get(self.storage)
        redis = {}
        if url:
            redis = {
                peers.REDIS_ASYNC: peers.redis_async(url, verb, value),
                f"{peers.DJANGO}, awaited": peers.django_cache_async(self.storage, verb, value),
            }
        return {
            **redis,
            peers.BUCKET: peers.bucket_async(self.bucket, verb, value),
            peers.NATS: peers.nats_on_its_loop(self.servers.nats, self.bucket, verb, value),
            peers.BRIDGE: bridge.awaited(self.bucket, verb, value),
        }


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. With a ``count``, for a quick look, only some of them."""
    storages, sizes = (STORAGES[:1], ("100 B",)) if count else (STORAGES, tuple(SIZES))
    loop = asyncio.new_event_loop()
    with peers.bridge(servers.nats) as bridge:
        for storage, size, verb in product(storages, sizes, VERBS):
            work = Work(servers, verb, bytes(SIZES[size]), storage)
            fill(work)
            name = f"{verb} {size}, {storage}"
            yield from blocking(name, work.sync(bridge))
            yield from awaiting(name, loop, work.awaited(bridge))
    loop.run_until_complete(loop.shutdown_asyncgens())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def fill(work: Work) -> None:
    """Make the buckets, and write every key wherever it will be read."""
    context = connections["default"].kv()
    for bucket, codec in ((work.bucket, "bytes"), (f"{work.bucket}-pickled", peers.PickleCodec())):
        made = context.create_bucket({"bucket": bucket, "storage": work.storage}, codec=codec)
        for key in load.KEYS:
            made.put(key, work.value)
    url = work.servers.redis.get(work.storage)
    if url:
        fillers = (peers.django_cache(work.storage, "put", work.value), peers.redis_sync(url, "put", work.value))
        for filler in fillers:
            do = filler()
            for key in load.KEYS:
                do(key)


def blocking(name: str, found: dict[str, Open]) -> Iterator[Contest]:
    baseline = next(iter(found))
    alone = {peer: load.alone(opened) for peer, opened in found.items()}
    yield Contest(f"{name}, 1 thread", baseline, alone, BOUNDS)
    with handled_signals():
        yield Contest(f"{name}, 1 main thread with handlers of signals", baseline, alone, BOUNDS)
    with contextlib.ExitStack() as stack:
        several = {
            peer: stack.enter_context(load.threads(opened, THREADS))
            for peer, opened in found.items()
            if peer != peers.BUCKET_PICKLE
        }
        yield Contest(f"{name}, {THREADS} threads", baseline, several, {peers.BUCKET: EQUAL})
    computing = {peer: load.beside_computing(opened) for peer, opened in found.items() if peer != peers.BUCKET_PICKLE}
    yield Contest(f"{name}, 1 thread beside one that computes", baseline, computing, BOUNDS)


def awaiting(name: str, loop: asyncio.AbstractEventLoop, found: dict[str, load.OpenAsync]) -> Iterator[Contest]:
    baseline = next(iter(found))
    for number in (1, TASKS):
        several = {peer: load.tasks(loop, opened, number) for peer, opened in found.items()}
        yield Contest(f"{name}, {number} task{'s' * (number > 1)}", baseline, several)


@contextlib.contextmanager
def handled_signals() -> Iterator[None]:
    """As in a worker of gunicorn, or of Celery: the main thread has a handler of SIGTERM."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Do nothing: it is enough that it is there."""

    before = signal.signal(signal.SIGTERM, ignore)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
