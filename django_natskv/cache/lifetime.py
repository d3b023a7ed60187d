"""Lifetimes: when what is stored expires, to the millisecond, by the clock of the server.

Owns the headers that say so and what of it the server is told. Knows nothing of values.

The server counts in whole seconds and lets go of an entry up to a second and a half late. So it is told the time
rounded up, and only reclaims the space; a header says when the entry is to be taken as expired:

==================  ==================================================================
``Natskv-TTL``      seconds from the time that the server noted for the entry
``Natskv-Expires``  seconds since 1970, for what keeps the time that it had before
``Natskv-Kept``     seconds since 1970, or "ever": how long the server keeps it, where that is longer
==================  ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django_natskv.exceptions import InvalidTTL
from django_natskv.kv import Entry

TTL = "Natskv-TTL"
EXPIRES = "Natskv-Expires"
KEPT = "Natskv-Kept"
LONGEST = 100 * 366 * 86_400.0  # seconds; what is to live longer never expires

EVER = "ever"
_LAST = 250_000_000_000.0  # seconds since 1970: within the year 9,892, and a date has no more than 9,999
_MARGIN = 1.0  # seconds that the server is told more, where the time left had to be estimated


class Lifetime:
    """How long an entry is to live: ``seconds`` from when it is written, ``until`` a time; with neither for ever."""

    __slots__ = ("_beside", "_said", "seconds", "until")

    def __init__(self, seconds: float | None = None, until: float | None = None) -> None:
        self.seconds = seconds
        self.until = until
        self._said: dict[str, str] | None = None
        self._beside: tuple[Mapping[str, str], dict[str, str]] | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that say so; not to be changed."""
        said = self._said
        if said is None:
            if self.seconds is not None:
                said = {TTL: repr(round(self.seconds, 6))}
            else:
                said = {} if self.until is None else {EXPIRES: f"{self.until:.6f}"}
            self._said = said  # one lifetime may be that of a thousand values
        return said

    def beside(self, others: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that say so with ``others``, which do not change; not to be changed."""
        beside = self._beside
        if beside is None or beside[0] is not others:
            beside = self._beside = others, {**others, **self.headers()}
        return beside[1]

    def left(self, now: float) -> float | None:
        """Return the seconds that are left at ``now``, None for no end."""
        if self.seconds is not None:
            return self.seconds
        return None if self.until is None else self.until - now

    def ttl_ms(self, now: float) -> int | None:
        """Return the milliseconds to tell the server, None for no end."""
        left = self.left(now)
        if left is None:
            return None
        return math.ceil(max(1.0, left + (_MARGIN if self.until is not None else 0.0)) * 1_000)


def seconds_of(timeout: Any) -> float | None:
    """Return a timeout in seconds as Django takes it: None for never; 0 and less for "at once". NaN: ``InvalidTTL``."""
    if timeout is None:
        return None
    try:
        seconds = float(timeout)
    except OverflowError:  # an integer that no float holds
        return None if timeout > 0 else 0.0
    if math.isnan(seconds):
        message = "A timeout is a number of seconds, or None for never. This one is NaN, not a number."
        raise InvalidTTL(message)
    return None if seconds > LONGEST else seconds


def expiry(entry: Entry) -> float | None:
    """Return when ``entry`` expires, in seconds since 1970 by the server's clock; None for never.

    What says neither as we write it was not written by us, and is taken as expired.
    """
    headers = entry.headers
    if not headers:
        return None
    try:
        if EXPIRES in headers:
            expires = float(headers[EXPIRES])
        elif TTL in headers:
            expires = entry.created.timestamp() + float(headers[TTL])
        else:
            return None
    except ValueError:
        return 0.0
    return expires if -_LAST < expires < _LAST else 0.0  # NaN is neither


def kept_until(entry: Entry) -> float:
    """Return until when the server keeps ``entry``, at the most: in seconds since 1970, infinite for ever."""
    said = entry.headers.get(KEPT) if entry.headers else None
    if said == EVER:
        return math.inf
    try:
        kept = 0.0 if said is None else float(said)
    except ValueError:
        return math.inf
    expires = expiry(entry)
    return math.inf if expires is None or not kept < _LAST else max(kept, expires + 2 * _MARGIN)
