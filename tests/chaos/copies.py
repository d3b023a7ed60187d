"""Local caches under chaos: a whole one, a part, one of what was read, and who looks at them all the while.

Owns what must hold of them at every moment of a run, and at its end. Knows nothing of the faults, but when one may undo
what was acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from django_natskv import kv
from django_natskv.exceptions import OperationalError
from django_natskv.kv.names import matcher
from tests.chaos.writers import KEYS, Held
from tests.fix_connections import Program
from tests.fix_local import held, run_of, stored
from tests.fix_waiting import eventually

BOUND = 3.0  # seconds after which a copy that the server does not reach may not be called live any more
PROBE = "probe"
BEAT = "beat"
OWN = [f"own.k{number}" for number in range(6)]
ALL = [*KEYS, *OWN, BEAT, PROBE]
FILTERED = ("a.>", "b.k1", "b.*", PROBE, BEAT, "own.>")
OWN_PAUSE, LOOK_PAUSE, BEAT_PAUSE = 0.02, 0.03, 0.05  # seconds
DOUBT = 10.0  # seconds in which a write that failed may still be carried out

OTHER_PROCESS = """
connection, name = connections["default"], os.environ["BUCKET"]
whole, lately = connection.local_cache(name), connection.local_cache(name, mode="invalidate")
whole.start()
lately.start()
def told(entries):
    return {key: [entry.value, entry.revision] for key, entry in entries.items() if entry is not None}
for line in sys.stdin:
    try:
        read = told({key: lately.get(key) for key in json.loads(line)})
    except exceptions.OperationalError:
        read = None
    live = whole.status().state == lately.status().state == "live"
    print(json.dumps([live, told(whole.items()), read]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that must be there: ``revision`` is None for one that removed its key."""

    at: float
    revision: int | None
    epoch: int


class Standing:
    """Which acknowledged writes must be there: those that no fault may have undone.

    ``epoch`` counts what begins or ends to undo writes; it is odd while that goes on.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.beats: list[Acknowledged] = []
        self.own: dict[str, Acknowledged] = {}

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Until the end of the block, acknowledged writes may vanish."""
        self.epoch += 1
        try:
            yield
        finally:
            self.epoch += 1

    def holds(self, epoch: int) -> bool:
        """Tell whether nothing has been undone since ``epoch``."""
        return epoch == self.epoch and not epoch % 2

    def due(self, epoch: int, now: float) -> Acknowledged | None:
        """Return the newest beat that may not be missing any more."""
        return next((beat for beat in reversed(self.beats) if beat.at < now - BOUND and beat.epoch == epoch), None)


class Copies:
    """Three local caches of ``connection``, whose writes come by ``bucket``; ``control`` is out of a fault's reach.

    Within a ``with`` block they are read, and their process writes. ``broken`` says what did not hold.
    """

    def __init__(self, connection: kv.Connection, control: Any, config: dict[str, Any], seed: int) -> None:
        name = config["bucket"]
        self.whole = connection.local_cache(name)
        self.part = connection.local_cache(name, keys=list(FILTERED))
        self.lately = connection.local_cache(name, mode="invalidate")
        self.mirrors = {"whole": self.whole, "part": self.part}
        self.caches = {**self.mirrors, "lately": self.lately}
        self.other: Program | None = None
        self.broken: list[str] = []
        self.checks = dict.fromkeys(("own", "beat", "forward", "lately"), 0)
        self.standing = Standing()
        self.bucket = connection.kv().open_bucket(name)
        self._beating = control.open_bucket(name)
        self._ttl = config.get("ttl_ms", 0) / 1_000
        # An older value comes back where one with a time to live expires above it: only where there is a history.
        self._forward = matcher((">",) if config.get("history", 1) == 1 else (PROBE, BEAT, "own.>"))
        self._newest: dict[str, tuple[Any, dict[str, int]]] = {}
        self._doubtful: dict[str, float] = {}
        self._random = random.Random(seed)
        # A value that vanished without a trace is believed for some seconds, for which the end of a run has to wait.
        self._read_keys = KEYS if seed % 2 else [*OWN, BEAT, PROBE]
        self._own_writes = threading.Lock()
        self._writing = [self._thread(self._write, OWN_PAUSE), self._thread(self._beat, BEAT_PAUSE)]
        self._reading = [self._thread(self._look, LOOK_PAUSE), self._thread(self._read, LOOK_PAUSE)]
        self._quiet, self._stopped = threading.Event(), threading.Event()

    def _thread(self, step: Callable[[], None], pause: float) -> threading.Thread:
        return threading.Thread(target=self._repeat, args=(step, pause), name=f"chaos-{step.__name__}", daemon=True)

    def __enter__(self) -> Self:
        for cache in self.caches.values():
            cache.start()
        for thread in [*self._writing, *self._reading]:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self.close()

    def quiet(self) -> None:
        """End what this process writes; it still reads."""
        self._end(self._quiet, self._writing)

    def stop(self) -> None:
        """End the reading too."""
        self.quiet()
        self._end(self._stopped, self._reading)

    def close(self) -> None:
        """Stop the local caches."""
        for cache in self.caches.values():
            cache.close()

    @staticmethod
    def _end(event: threading.Event, threads: list[threading.Thread]) -> None:
        event.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive(), f"{thread} hangs"

    def close_other(self) -> None:
        """End the other process."""
        if self.other is not None:
            _, errors = self.other.finish()
            assert "Traceback" not in errors, errors

    # --- at every moment ---

    def _repeat(self, step: Callable[[], None], pause: float) -> None:
        over = self._quiet if step in (self._write, self._beat) else self._stopped
        while not over.wait(pause):
            try:
                step()
            except OperationalError:
                continue  # an outage is what these tests are about
            except Exception as error:
                self.broken.append(f"{step.__name__}: {error!r}")
                raise

    def _insist(self, epoch: int, message: str, *, holds: bool) -> None:
        if not holds and self.standing.holds(epoch):
            self.broken.append(message)

    def _beat(self) -> None:
        """Write what everybody must have soon, past all faults of the network."""
        epoch = self.standing.epoch
        revision = self._beating.put(BEAT, time.monotonic())
        self.standing.beats.append(Acknowledged(time.monotonic(), revision, epoch))

    def _check_beat(self, name: str, *, only_live: bool) -> None:
        cache = self.caches[name]
        epoch, now = self.standing.epoch, time.monotonic()
        due = self.standing.due(epoch, now)
        status = cache.status()
        entry = cache.get(BEAT)
        if due is None or (only_live and status.state != "live") or (entry is None and self._may_be_over(due)):
            return
        self.checks["beat"] += 1
        found = 0 if entry is None else entry.revision
        message = f"{name} was {status} and had {BEAT} at {found}; {now - due.at} s before, {due} was acknowledged"
        self._insist(epoch, message, holds=found >= (due.revision or 0))

    def _may_be_over(self, write: Acknowledged) -> bool:
        return bool(self._ttl) and time.monotonic() - write.at > self._ttl - 0.5

    def _look(self) -> None:
        for name, cache in self.mirrors.items():
            self._check_beat(name, only_live=True)
            watch = run_of(cache)
            entries = cache.items()
            if watch is not run_of(cache):
                continue
            before, newest = self._newest.get(name, (None, {}))
            newest = newest if before is watch else {}
            for key, entry in entries.items():
                if entry.revision < newest.get(key, 0):
                    self.broken.append(f"{name} went back from {newest[key]} to {entry} within one watch")
                if self._forward(key):
                    newest[key] = entry.revision
            self.checks["forward"] += before is watch
            self._newest[name] = watch, newest

    def _read(self) -> None:
        self._check_beat("lately", only_live=False)
        for key in self._random.sample(self._read_keys, 8):
            self.lately.get(key)
            self.checks["lately"] += 1

    def _write(self) -> None:
        """Write what nobody else does, and read it."""
        key = random.choice(OWN)
        with self._own_writes:
            epoch = self.standing.epoch
            before = self.standing.own.pop(key, None)
            if before is not None:
                self._check_own(key, before, "some time after")
            try:
                revision = self._write_one(key)
            except OperationalError:
                self._doubtful[key] = time.monotonic()
                raise
            written = self.standing.own[key] = Acknowledged(time.monotonic(), revision, epoch)
            self._check_own(key, written, "right after")

    def _write_one(self, key: str) -> int | None:
        dice = random.random()
        if dice < 0.7:
            return self.bucket.put(key, time.monotonic())
        if dice < 0.9:
            self.bucket.delete(key)
        else:
            self.bucket.purge(key)
        return None

    def _check_own(self, key: str, write: Acknowledged, when: str) -> None:
        least = write.revision
        for name, cache in self.caches.items():
            with contextlib.suppress(OperationalError):
                entry = cache.get(key)
                if self._may_be_over(write) or (least is None and self._is_doubtful(key)):
                    continue
                self.checks["own"] += 1
                holds = entry is None if least is None else entry is not None and entry.revision >= least
                message = f"{name} had {entry} of {key} {when} this process wrote {write}: {cache.status()}"
                self._insist(write.epoch, message, holds=holds)

    def _is_doubtful(self, key: str) -> bool:
        return time.monotonic() - self._doubtful.get(key, -DOUBT) < DOUBT

    # --- after a fault ---

    def knows(self, token: str) -> bool:
        """Tell whether every local cache is live and has the probe ``token``."""
        try:
            return all(cache.status().state == "live" and cache.value(PROBE) == token for cache in self.caches.values())
        except OperationalError:
            return False

    def check_own_writes(self, timeout: float = 30.0) -> None:
        """While this process writes nothing, hold what it has written against what is there."""
        with self._own_writes:
            self._same_as_bucket(timeout)

    def _same_as_bucket(self, timeout: float) -> None:
        def same() -> bool:
            try:
                there = {key: found for key, found in stored(self._beating).items() if key in OWN}
                for name, cache in self.caches.items():
                    read = {key: cache.get(key) for key in OWN}
                    had = {key: (entry.value, entry.revision) for key, entry in read.items() if entry is not None}
                    assert had == there, f"{name}: {had} and not {there}"
            except OperationalError:
                return False
            return True

        eventually(same, timeout, "what this process wrote is read by it")

    # --- at the end ---

    def differences(self, there: Held) -> list[str]:
        """Return how the local caches differ from what is ``there``."""
        wanted = matcher(FILTERED)
        parts = {key: value for key, value in there.items() if wanted(key)}
        try:
            read = {key: self.lately.get(key) for key in ALL}
        except OperationalError as error:
            return [str(error)]
        found = {"whole": held(self.whole), "part": held(self.part)}
        found["lately"] = {key: (entry.value, entry.revision) for key, entry in read.items() if entry is not None}
        told = [f"{name} is {cache.status()}" for name, cache in self.caches.items() if cache.status().state != "live"]
        if self.other is not None:
            self.other.tell(json.dumps(ALL))
            live, whole, lately = self.other.read()
            told += [] if live else ["a copy of the other process is not live"]
            found["the other's whole"], found["the other's lately"] = _pairs(whole), _pairs(lately)
        for name, had in found.items():
            should = parts if name == "part" else there
            told += [
                f"{name}: {key} is {had.get(key)} and should be {should.get(key)}"
                for key in sorted(had.keys() | should.keys())
                if had.get(key) != should.get(key)
            ]
        return told


def _pairs(told: dict[str, list[Any]] | None) -> Held:
    return {key: (value, revision) for key, (value, revision) in (told or {}).items()}
