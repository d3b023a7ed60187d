"""Chance, for spreading what many processes do at the same time.

Owns a source of it apart from Python's shared one: what a program draws from its seeded ``random`` stays as it was, and
forked processes draw different numbers. Knows nothing of what is spread.
"""

from __future__ import annotations

import random
from typing import Any

_source = random.SystemRandom()


def between(low: float, high: float) -> float:
    """Return a number between ``low`` and ``high``."""
    return _source.uniform(low, high)


def shuffle(items: list[Any]) -> None:
    """Put ``items`` in a random order, in place."""
    _source.shuffle(items)
