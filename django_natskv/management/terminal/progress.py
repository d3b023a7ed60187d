"""How far a long work is, as one line on the terminal that is written over again and again.

Owns the look and the pace of it. Must not know what the work is.

Written here, because tqdm and rich would be a dependency, or a second look to test, for one line (ADR 0016).
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self

from django_natskv.management.terminal.verb import Call

_PACE = 0.1  # seconds between two looks of it
_WIDTH = 24
_ERASE = "\r\x1b[K"


class Progress:
    """The line: shown on stderr where that is a terminal and something may be said, and gone at the end."""

    def __init__(self, call: Call, doing: str) -> None:
        self._doing = doing
        self._shown = (
            bool(call.options["verbosity"])
            and call.options.get("stderr") is None
            and sys.stderr is not None
            and sys.stderr.isatty()
        )
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._write(_ERASE)

    def update(self, count: int, fraction: float) -> None:
        """Say that ``count`` entries are done, which are ``fraction`` (0 to 1) of the work."""
        now = time.monotonic()
        if self._shown and now - self._last >= _PACE:
            self._last = now
            self._write(_ERASE + look(self._doing, count, fraction, now - self._begun)[: _columns()])

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def look(doing: str, count: int, fraction: float, seconds: float) -> str:
    """Return the line after ``seconds`` of work."""
    fraction = min(1.0, max(0.0, fraction))
    bar = "#" * round(fraction * _WIDTH)
    rate = count / seconds if seconds else 0.0
    left = _clock(seconds / fraction - seconds) if fraction else "?"
    return f"{doing} {fraction:4.0%} [{bar:<{_WIDTH}}] {count:,} entries  {rate:,.0f}/s  {left} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> int:
    return shutil.get_terminal_size().columns - 1
