"""Durations and sizes as people write them, both ways: what is shown can be typed.

Pure functions over text and numbers. Knows nothing of options or buckets.

Written here because what exists does not fit: pytimeparse has no milliseconds and takes ``1:30``; durationpy skips
what it does not understand inside a duration; humanfriendly takes one unit only, and says 1 KB for 1 KiB; Django's
``parse_duration`` wants ``01:30:00`` and its ``filesizeformat`` is translated and rounds. All but the last count in
floats. A duration that is misread expires somebody's entries, so nothing is guessed.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from django_natskv.exceptions import UsageError

UNLIMITED = -1

_MILLISECONDS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# ``[0-9]`` and not ``\d``, which takes the digits of every script.
_NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,9})?"
# Each unit once, the largest first.
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _MILLISECONDS))

_PREFIXES = "KMGT"
_BYTES = {
    "": 1,
    "b": 1,
    **{f"{prefix}b".lower(): 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}ib".lower(): 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
_SIZE = re.compile(rf"(?P<number>{_NUMBER}) ?(?P<unit>{'|'.join(_BYTES)})", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> int:
    """Return the whole milliseconds that ``text`` says, 0 for ``0`` and ``none``; ``UsageError`` when it says none."""
    if text in ("0", "none"):
        return 0
    found = _DURATION.fullmatch(text)
    parts = {unit: number for unit, number in found.groupdict().items() if number} if found else {}
    milliseconds = sum((Fraction(number) * _MILLISECONDS[unit] for unit, number in parts.items()), Fraction())
    if not parts or milliseconds % 1:
        message = f"{text!r} is not a duration: write it as 500ms, 90s, 1h30m, 1d12h or 2w, or none."
        raise UsageError(message)
    return int(milliseconds)


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` says, -1 for ``-1`` and ``unlimited``; ``UsageError`` when it says none."""
    if text in ("-1", "unlimited"):
        return UNLIMITED
    found = _SIZE.fullmatch(text)
    size = Fraction(found["number"]) * _BYTES[found["unit"].lower()] if found else None
    if size is None or size % 1:
        message = f"{text!r} is not a size: write it as 512 (bytes), 64KiB, 10MB or 1GiB, or unlimited."
        raise UsageError(message)
    return int(size)


def parse_number(text: str) -> int:
    """Return the whole number that ``text`` says; ``UsageError`` when it says none."""
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise UsageError(f"{text!r} is not a whole number.")
    return int(text)


def show_duration(milliseconds: int) -> str:
    """Return a duration exactly, as ``parse_duration`` reads it; 0 is "none"."""
    parts = []
    for unit, length in _MILLISECONDS.items():
        # 14 days are two weeks to nobody who wrote 14d, and 36 hours read as 1d12h.
        if unit == "w":
            continue
        number, milliseconds = divmod(milliseconds, length)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "none"


def show_size(size: int) -> str:
    """Return a size in the largest binary unit, rounded to a tenth; -1 is "unlimited"."""
    if size == UNLIMITED:
        return "unlimited"
    number, unit = _scaled(size)
    return f"{number:.1f}".removesuffix(".0") + unit


def show_size_exactly(size: int) -> str:
    """Return a size as ``show_size`` does, with the bytes beside it where that has rounded."""
    rounded = size != UNLIMITED and _scaled(size)[0] * 10 % 1
    return f"{show_size(size)} ({size} bytes)" if rounded else show_size(size)


def _scaled(size: int) -> tuple[Decimal, str]:
    number, unit = Decimal(size), "B"
    for prefix in _PREFIXES:
        if number < 1024:  # noqa: PLR2004 - the step between binary units
            break
        number, unit = number / 1024, f"{prefix}iB"
    return number, unit
