"""Suite ``handover``: what it costs when the one who drives the connection's event loop changes (ADR 0007).

Owns the patterns of calls that make it change. Knows nothing of the driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from collections.abc import Iterator

from benchmarks import load, peers
from benchmarks.load import KEYS, Open, OpenAsync
from benchmarks.pairs import Batch, Contest, Sample
from benchmarks.request import VERBS, Work, fill
from benchmarks.servers import Servers

PAUSE = 0.03  # seconds between two calls of a process that is little used: more than the driver stays hot
CREWS = (2, 3, 4)
BURST = 4  # calls of each thread when all begin at once


def contests(servers: Servers, count: int | None) -> Iterator[Contest]:
    """Yield the contests, each ready to run. With a ``count``, for a quick look, only reading."""
    with peers.bridge(servers.nats) as bridge:
        for verb in VERBS[:1] if count else VERBS:
            work = Work(servers, verb, bytes(100), "memory")
            fill(work)
            found = work.sync(bridge)
            del found[peers.BUCKET_PICKLE]
            yield from each_alone(f"{verb} 100 B, memory", found, 3 if count else 20)
            with contextlib.ExitStack() as stack:
                yield from crews(f"{verb} 100 B, memory", found, stack, 3 if count else 20)
            with contextlib.ExitStack() as stack:
                others = {peer: opened for peer, opened in work.awaited(bridge).items() if peer != peers.NATS}
                yield beside_tasks(f"{verb} 100 B, memory", found, others, stack)


def each_alone(name: str, found: dict[str, Open], calls: int) -> Iterator[Contest]:
    spaced = {peer: every(opened, PAUSE) for peer, opened in found.items()}
    yield Contest(f"{name}, a call each {PAUSE * 1e3:.0f} ms", next(iter(found)), spaced, count=calls)


def crews(name: str, found: dict[str, Open], stack: contextlib.ExitStack, calls: int) -> Iterator[Contest]:
    baseline = next(iter(found))
    for number in CREWS:
        several = {peer: stack.enter_context(load.threads(opened, number)) for peer, opened in found.items()}
        yield Contest(f"{name}, {number} threads", baseline, several)
    bursts = {peer: stack.enter_context(load.threads(opened, 8, warm=0)) for peer, opened in found.items()}
    rested = {peer: after_rest(batch, calls) for peer, batch in bursts.items()}
    title = f"{name}, 8 threads at once after {PAUSE * 1e3:.0f} ms of rest"
    yield Contest(title, baseline, rested, count=8 * BURST)


def every(opened: Open, pause: float) -> Batch:
    """One call at a time with a pause between; the median."""
    do = opened()

    def batch(count: int) -> Sample:
        times = []
        for key in KEYS[:count]:
            time.sleep(pause)
            began = time.perf_counter()
            do(key)
            times.append(time.perf_counter() - began)
        return {"time": statistics.median(times)}

    return batch


def after_rest(batch: Batch, calls: int) -> Batch:
    """The median of several batches, each after a rest."""

    def rested(count: int) -> Sample:
        times = []
        for _ in range(max(1, calls // 4)):
            time.sleep(PAUSE)
            times.append(batch(count)["time"])
        return {"time": statistics.median(times)}

    return rested


def beside_tasks(
    name: str, found: dict[str, Open], others: dict[str, OpenAsync], stack: contextlib.ExitStack
) -> Contest:
    """One thread that blocks, while another one has an event loop with a task that awaits the same all the time."""
    baseline = next(iter(found))
    awaited = {peers.DJANGO: peers.REDIS_ASYNC, peers.REDIS: peers.REDIS_ASYNC}
    mixed = {}
    for peer, opened in found.items():
        other = stack.enter_context(_Loop(others[awaited.get(peer, peer)]))
        mixed[peer] = other.beside(load.alone(opened))
    return Contest(f"{name}, 1 thread beside a task of another's event loop", baseline, mixed)


class _Loop(contextlib.AbstractContextManager["_Loop"]):
    """A thread with an event loop whose only task repeats an operation while it is asked to."""

    def __init__(self, opened: OpenAsync) -> None:
        self._opened = opened
        self._wanted = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._repeat()), daemon=True)
        self._thread.start()

    async def _repeat(self) -> None:
        do = await self._opened()
        while not self._ended:
            if self._wanted.is_set():
                await do(KEYS[0])
            else:
                await asyncio.sleep(0.002)

    def beside(self, batch: Batch) -> Batch:
        def both(count: int) -> Sample:
            self._wanted.set()
            try:
                return batch(count)
            finally:
                self._wanted.clear()

        return both

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()
