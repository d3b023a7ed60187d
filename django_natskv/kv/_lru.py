"""The store of a local cache in mode "invalidate": what was read lately, until somebody changes it.

Owns which read may be stored and how long it is trusted. Knows nothing of connections: it is told of reads, changes and
interruptions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from django_natskv.kv._kept import OVERHEAD, Keeper, weight
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv.entries import Entry

TRUST = 5.0  # seconds that a value is believed without proof that nothing has vanished from the bucket (F15)


@dataclass(slots=True, eq=False)
class Reading:
    """A read on its way. ``passed`` is the newest revision of its key that went by meanwhile."""

    key: str
    epoch: int
    begun: float
    passed: int = 0


@dataclass(slots=True)
class Held:
    """What was read of a key: an entry, or that there is none."""

    entry: Entry | None
    read: float  # when the read began, on the monotonic clock
    size: int
    used: bool = field(default=False)


class Lru:
    """At most ``most`` bytes of what was read, by key. Read without a lock; written under one.

    Nothing is stored, and nothing held is found, unless the watch is on. A read that began before an interruption, or
    during which its key moved on beyond what it found, is not stored.

    A signal's handler may come to the lock again that its thread holds. Nothing is called, and so none can run, between
    a look at what is held and the change that goes by it.
    """

    def __init__(self, keeper: Keeper, most: int) -> None:
        self._keeper = keeper
        self._most = most
        self._writing = threading.RLock()
        self._held: dict[str, Held] = {}  # oldest first
        self._readings: dict[str, list[Reading]] = {}
        self._epoch = 0
        self._on = False
        self._counters: tuple[int, ...] = ()
        self._quiet: tuple[float, float] = (0.0, 0.0)  # between these moments nothing changed and nothing vanished
        self.bytes = 0
        self.revision = 0

    def __len__(self) -> int:
        return len(self._held)

    # --- readers, in any thread ---

    def find(self, key: str, now: float) -> Held | None:
        """Return what is held of ``key`` and still to be believed."""
        held = self._held.get(key)
        if held is None or not self._is_trusted(held, now):
            return None
        held.used = True
        return held

    def peek(self, keys: Iterable[str], now: float) -> list[Entry | None] | None:
        """Return the entries of several keys as they are held; None unless all are held and still to be believed."""
        found: list[Entry | None] = []
        for key in keys:
            held = self._held.get(key)
            # Most were read lately: asked here first, as this is asked at every read.
            if held is None or (now - held.read >= TRUST and not self._is_trusted(held, now)):
                return None
            held.used = True
            found.append(held.entry)
        return found

    def hand_out(self, held: Held) -> Entry | None:
        """Return an entry of the reader's own, or None for what is absent or has expired."""
        return self._keeper.hand_out(held.entry)

    def items(self, now: float) -> dict[str, Entry]:
        """Return the entries that are held and still to be believed."""
        trusted = {key: held for key, held in self._held.copy().items() if self._is_trusted(held, now)}
        found = {key: self._keeper.hand_out(held.entry) for key, held in trusted.items()}
        return {key: entry for key, entry in found.items() if entry is not None}

    def begin(self, key: str, now: float) -> Reading:
        """Take that a read of ``key`` begins; ``end`` or ``give_up`` follows."""
        with self._writing:
            reading = Reading(key, self._epoch if self._on else -1, now)
            if key not in self._readings:
                self._readings[key] = []
            self._readings[key] += [reading]
            return reading

    def end(self, reading: Reading, entry: Entry | None) -> None:
        """Take what was read, and keep it if nothing can have overtaken it."""
        key, found = reading.key, entry.revision if entry is not None else 0
        held = Held(entry, reading.begun, OVERHEAD + len(key) if entry is None else weight(entry))
        with self._writing:
            if self._on and reading.epoch == self._epoch and reading.passed <= found:
                if key in self._held:
                    self.bytes -= self._held[key].size
                    del self._held[key]
                if held.size <= self._most:
                    self._held[key] = held
                    self.bytes += held.size
                self._make_room(key)
            self._let_go(reading)

    def give_up(self, reading: Reading) -> None:
        """Take that a read has failed."""
        with self._writing:
            self._let_go(reading)

    # --- the watch, on the loop; a process's own writes, in their threads ---

    def changed(self, key: str, revision: int) -> None:
        """Take that ``key`` has a new revision."""
        with self._writing:
            self.revision = max(self.revision, revision)
            self._counters = ()
            held = self._held.get(key)
            if held is not None and (held.entry is None or held.entry.revision < revision):
                self._drop(key)
            for reading in self._readings.get(key, ()):
                reading.passed = max(reading.passed, revision)

    def switch(self, *, on: bool) -> None:
        """Take that the watch is on from now, or was interrupted: nothing from before counts any more."""
        with self._writing:
            self._on = on
            self._epoch += 1
            self._held.clear()
            self._counters, self._quiet = (), (0.0, 0.0)
            self.bytes = 0

    def looked(self, info: BucketInfo, asked: float, now: float) -> None:
        """Take what the server says of the bucket, asked for at ``asked``: proof up to then, if nothing has changed."""
        lives_changed = self._keeper.learn(info)
        counters = (info.last_revision, info.first_revision, info.subjects, info.bytes)
        with self._writing:
            before, self._counters = self._counters, counters
            if lives_changed or (before and before[0] == counters[0] and before != counters):
                # Something vanished and left no marker: a filtered purge, an expiry, an eviction (F15).
                self._held.clear()
                self.bytes = 0
                self._epoch += 1
            if before == counters:
                self._quiet = (self._quiet[0], asked)
            else:
                self._quiet = (now, asked)

    # --- under the lock ---

    def _is_trusted(self, held: Held, now: float) -> bool:
        if now - held.read < TRUST:
            return True
        begun, proven = self._quiet
        return begun <= held.read and now - proven < TRUST

    def _make_room(self, newest: str) -> None:
        while self.bytes > self._most:
            for oldest in self._held:  # the first, without a call
                held = self._held[oldest]
                del self._held[oldest]
                if held.used or oldest == newest:
                    # Read since it came: it gets a second chance, at the end of the line.
                    held.used = False
                    self._held[oldest] = held
                else:
                    self.bytes -= held.size
                break

    def _drop(self, key: str) -> None:
        if key in self._held:
            self.bytes -= self._held[key].size
            del self._held[key]

    def _let_go(self, reading: Reading) -> None:
        key = reading.key
        self._readings[key].remove(reading)
        if key in self._readings and not self._readings[key]:
            del self._readings[key]
