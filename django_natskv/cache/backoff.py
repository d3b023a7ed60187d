"""Back-off: how often and how fast a guarded write is tried again.

Owns the pauses. Knows nothing of what is tried.
"""

from __future__ import annotations

from collections.abc import Iterator

from django_natskv.cache.steps import Pause
from django_natskv.exceptions import OperationTimedOut
from django_natskv.kv import spread

TRIES = 200
FIRST, LONGEST = 0.0005, 0.05  # seconds; a round trip, and a little more than many of them take


class ContendedError(OperationTimedOut):
    """A guarded write was given up, because others changed the key between each read and write. The server is well."""


def pauses() -> Iterator[Pause]:
    """Give the pause after each try, longer and longer, with jitter, until it is enough."""
    for attempt in range(TRIES):
        ceiling = min(LONGEST, FIRST * 2 ** min(attempt, 10))
        yield Pause(spread.between(0.0, ceiling))


def contended(doing: str, stored: str, bucket: str) -> ContendedError:
    """Return the error for a key that others have changed between each of our reads and writes."""
    message = f"{doing} {stored!r} in bucket {bucket!r} was given up: others changed it {TRIES} times meanwhile."
    return ContendedError(message)
