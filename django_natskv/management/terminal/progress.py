"""How far a long work is, on the terminal.

Owns where that is shown. Must not know what the work is.

The line that is written over again and again is tqdm's, which the extra ``cli`` brings. Without it the work tells each
tenth that is done, in a line of its own (ADR 0016).
"""

from __future__ import annotations

import sys
from typing import Any, Protocol, Self

from django_natskv.management.terminal.output import counted
from django_natskv.management.terminal.verb import Call


class _Look(Protocol):
    def update(self, count: int, fraction: float) -> None: ...

    def close(self) -> None: ...


class Progress:
    """What is shown on stderr, where that is a terminal and something may be said."""

    def __init__(self, call: Call, doing: str) -> None:
        shown = (
            bool(call.options["verbosity"])
            and call.options.get("stderr") is None
            and sys.stderr is not None
            and sys.stderr.isatty()
        )
        self._look = _look(call, doing) if shown else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._look is not None:
            self._look.close()

    def update(self, count: int, fraction: float) -> None:
        """Say that ``count`` entries are done, which are ``fraction`` (0 to 1) of the work."""
        if self._look is not None:
            self._look.update(count, fraction)


def _look(call: Call, doing: str) -> _Look:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - nothing but long work on a terminal pays for it
    except ImportError:
        return _Tenths(call, doing)
    return _Bar(tqdm(desc=doing, unit=" entries", file=sys.stderr, leave=False, dynamic_ncols=True))


class _Bar:
    """The bar of tqdm, gone at the end. How many entries there are altogether is a guess that gets better."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, count: int, fraction: float) -> None:
        self._bar.total = round(count / fraction) if fraction > 0 else None
        self._bar.update(count - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Tenths:
    """A line for each tenth."""

    def __init__(self, call: Call, doing: str) -> None:
        self._call, self._doing, self._done = call, doing, 0

    def update(self, count: int, fraction: float) -> None:
        tenth = int(fraction * 10)
        if tenth > self._done:
            self._done = tenth
            self._call.say(f"{self._doing}: {tenth * 10} %, {counted(count, 'entry', 'entries')}.")

    def close(self) -> None:
        """Leave them."""
