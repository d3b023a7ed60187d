"""Quiet: one log line a minute of what could fill a log.

Owns the time between two lines. Knows nothing of what they say.
"""

from __future__ import annotations

import time

BETWEEN = 60.0  # seconds


class Quiet:
    """Tells when something may be logged again."""

    def __init__(self) -> None:
        self._after = 0.0

    def may_speak(self) -> bool:
        """Tell whether enough time has passed since it was last told so."""
        now = time.monotonic()
        if now < self._after:
            return False
        self._after = now + BETWEEN
        return True
