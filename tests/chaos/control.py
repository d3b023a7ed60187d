"""How long the machine holds a process up that wants next to nothing: of what a recovery takes, what is not its own.

Owns that process, which shares nothing with the one under test but the machine. Knows nothing of what is measured
meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

PULSE = """
import select, sys, time

STEP, WORK = 0.02, 0.0005  # seconds: of rest, and of the processor's time
held_up = 0.0
while True:
    begun = time.perf_counter()
    if select.select([sys.stdin], [], [], STEP)[0]:
        if not sys.stdin.readline():
            break
        print(held_up, flush=True)
        continue
    work = time.thread_time()
    while time.thread_time() - work < WORK:
        pass
    held_up += max(0.0, time.perf_counter() - begun - STEP - WORK)
"""


class Control:
    """A process that rests and works a little in turn, within a ``with`` block."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PULSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=20)

    def held_up(self) -> float:
        """Return how many seconds late it was so far, all in all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())
