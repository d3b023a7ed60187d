"""Who does the operations: one thread, several, one beside a thread that computes, tasks of an event loop.

Owns the timing. Knows nothing of what the operations are.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle, islice
from typing import Any

from benchmarks.pairs import Batch, Sample

KEYS = [f"bench.key-{number}" for number in range(100)]
AT_ONCE = 100  # keys that are prepared in one call
WARM = 5  # operations before the clock starts: a peer that was idle while the others had their turn

Do = Callable[[str], Any]  # one operation on a key
Open = Callable[[], Do]  # called in the thread that will do them
DoAsync = Callable[[str], Awaitable[Any]]
OpenAsync = Callable[[], Awaitable[DoAsync]]


class Consuming:
    """An operation that uses up its keys, ``each`` at a time: they are written before the clock starts."""

    def __init__(self, write: Callable[[list[str]], Any], do: Callable[[list[str]], Any], each: int) -> None:
        self._write = write
        self._do = do
        self._each = each
        self._ready: deque[list[str]] = deque()

    def prepare(self, count: int) -> None:
        """Write the keys of so many operations."""
        fresh = [f"used.{next(_numbers)}" for _ in range(count * self._each)]
        for start in range(0, len(fresh), AT_ONCE):
            self._write(fresh[start : start + AT_ONCE])
        self._ready.extend(fresh[start : start + self._each] for start in range(0, len(fresh), self._each))

    def __call__(self, _key: str) -> Any:
        return self._do(self._ready.popleft())


_numbers = itertools.count()


def prepare(do: Any, count: int) -> None:
    """Make what so many operations use up, if they do."""
    if isinstance(do, Consuming):
        do.prepare(count)


def timed(do: Do, count: int, warm: int = WARM) -> tuple[float, float]:
    """Return when ``count`` operations began and ended."""
    for key in KEYS[:warm]:
        do(key)
    keys = list(islice(cycle(KEYS), count))
    began = time.perf_counter()
    for key in keys:
        do(key)
    return began, time.perf_counter()


def alone(opened: Open) -> Batch:
    """One thread: this one."""
    do = opened()

    def batch(count: int) -> Sample:
        prepare(do, WARM + count)
        began, ended = timed(do, count)
        return {"time": (ended - began) / count}

    return batch


class Crew:
    """``number`` threads that live as long as a contest; the time is that of all of them, by operation."""

    def __init__(self, opened: Open, number: int, warm: int) -> None:
        self._opened = opened
        self._warm = warm
        self._number = number
        self._jobs: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[float, float] | BaseException] = queue.SimpleQueue()
        self._together = threading.Barrier(number)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        do = self._opened()
        while count := self._jobs.get():
            try:
                prepare(do, self._warm + count)
                self._together.wait()
                self._results.put(timed(do, count, self._warm))
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
                self._results.put(error)

    def batch(self, count: int) -> Sample:
        each = max(1, count // self._number)
        for _ in self._threads:
            self._jobs.put(each)
        spans = [self._span() for _ in self._threads]
        took = max(span[1] for span in spans) - min(span[0] for span in spans)
        return {"time": took / (each * self._number)}

    def _span(self) -> tuple[float, float]:
        result = self._results.get()
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        for _ in self._threads:
            self._jobs.put(0)
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def threads(opened: Open, number: int, warm: int = WARM) -> Iterator[Batch]:
    """Let ``number`` threads do the operations."""
    crew = Crew(opened, number, warm)
    try:
        yield crew.batch
    finally:
        crew.close()


def beside_computing(opened: Open) -> Batch:
    """One thread, this one, while another one computes without ever waiting."""
    do = opened()

    def batch(count: int) -> Sample:
        over = threading.Event()

        def compute() -> None:
            while not over.is_set():
                sum(number * number for number in range(1000))

        other = threading.Thread(target=compute, daemon=True)
        other.start()
        try:
            began, ended = timed(do, count)
        finally:
            over.set()
            other.join()
        return {"time": (ended - began) / count}

    return batch


def tasks(loop: asyncio.AbstractEventLoop, opened: OpenAsync, number: int) -> Batch:
    """``number`` tasks of one event loop in this thread; the time is that of all of them, by operation."""
    do = loop.run_until_complete(opened())

    async def work(keys: list[str]) -> None:
        for key in keys:
            await do(key)

    async def all_of(count: int) -> Sample:
        each = max(1, count // number)
        keys = list(islice(cycle(KEYS), each))
        await asyncio.gather(*(work(KEYS[:WARM]) for _ in range(number)))
        began = time.perf_counter()
        await asyncio.gather(*(work(keys) for _ in range(number)))
        return {"time": (time.perf_counter() - began) / (each * number)}

    def batch(count: int) -> Sample:
        prepare(do, number * (WARM + max(1, count // number)))
        return loop.run_until_complete(all_of(count))

    return batch
