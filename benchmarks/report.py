"""What is printed and written: the machine, and a table for each contest.

Owns the wording. Knows nothing of how it was measured.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from benchmarks.pairs import Row, Spread

PACKAGES = (
    *("django-natskv", "nats-py", "Django", "redis", "hiredis", "django-redis", "pymemcache", "asgiref"),
    *("openfeature-flagd-core", "django-waffle", "django-flags", "gunicorn", "uvicorn"),
)


def machine(servers: Mapping[str, str]) -> dict[str, str]:
    """Return what the numbers were measured on: by name, without anything that tells whose machine it is."""
    found = {
        "CPUs": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        **servers,
    }
    for package in PACKAGES:
        # What is missing was not measured: the package itself, run from its sources, or Redis in a quick look.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def heading(found: Mapping[str, str]) -> str:
    return " · ".join(f"{name} {value}" for name, value in found.items()) + " · servers on loopback"


def table(rows: list[Row]) -> str:
    """Return the rows of one contest as text."""
    first = rows[0]
    baseline = first.baseline
    measures = {each.measure for each in rows}
    cells = [["", "time", "quartiles", f"x {baseline}", "quartiles", "target"]]
    for each in rows:
        name = each.peer if len(measures) == 1 else f"{each.peer}, {each.measure}"
        verdict = "" if each.met is None else f"<= {bound(each)} {'met' if each.met else 'MISSED'}"
        spread = "" if each.peer == baseline else f"{each.ratio.low:.2f}-{each.ratio.high:.2f}"
        cells.append(
            [name, amount(each.seconds.median), between(each.seconds), f"{each.ratio.median:.2f}", spread, verdict]
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "  " + "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in pairs)
        for pairs in (enumerate(zip(line, widths, strict=True)) for line in cells)
    ]
    title = f"{first.contest}  ({first.rounds} rounds of {first.count:,})"
    return "\n".join([title, *(line.rstrip() for line in lines), ""])


def bound(row: Row) -> str:
    return amount(row.limit) if row.limit is not None else f"{row.target:g}"


def amount(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 0.01:
        return f"{seconds * 1e3:.1f} ms"
    digits = 2 if seconds < 1e-6 else 1 if seconds < 1e-4 else 0
    return f"{seconds * 1e6:.{digits}f} us"


def between(spread: Spread) -> str:
    return f"{amount(spread.low)} - {amount(spread.high)}"


def write(path: Path, found: Mapping[str, str], rows: list[Row]) -> None:
    """Write everything, times in seconds."""
    results = [{**asdict(each), "met": each.met} for each in rows]
    path.write_text(json.dumps({"machine": dict(found), "results": results}, indent=1) + "\n")
