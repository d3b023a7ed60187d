"""``python -m benchmarks``, or ``make bench``: see docs/explanation/performance.md."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks import report, servers
from benchmarks.pairs import Row, run
from benchmarks.setup import configure

SMOKE_KEYS = 50
SUITES = ("request", "handover", "watch", "local", "cache", "registry", "flags")  # each a module with ``contests``

PEERS = {"django_redis": "django-redis", "pymemcache": "PyMemcacheCache", "waffle": "waffle", "flags": "django-flags"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure django-natskv beside its peers, in interleaved rounds on servers of its own.",
    )
    parser.add_argument("suite", nargs="*", choices=[[], *SUITES], help=f"of {', '.join(SUITES)}; all by default")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each contest (%(default)s)")
    parser.add_argument("--batch", type=float, default=0.03, help="seconds a peer and round (%(default)s)")
    parser.add_argument("--only", default="", help="contests whose title contains all of these words: 'get 1 thread'")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--smoke", action="store_true", help="one tiny round, to see that everything runs")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace, running: servers.Servers) -> Iterator[list[Row]]:
    words = options.only.split()
    for name in options.suite or SUITES:
        # Imported late: what is measured reads Django's settings.
        suite = importlib.import_module(f"benchmarks.{name}")
        for contest in suite.contests(running, SMOKE_KEYS if options.smoke else None):
            if all(word in contest.title for word in words):
                rounds, seconds = (1, 0.001) if options.smoke else (options.rounds, options.batch)
                yield run(contest, rounds, seconds)


def has_redis(*, may_miss: bool) -> bool:
    """Tell whether Redis can be measured; ``Missing`` when it cannot be and must."""
    from benchmarks.peers import library  # noqa: PLC0415

    try:
        servers.redis_version()
        library("redis")
        library("hiredis")
    except servers.Missing:
        if not may_miss:
            raise
        return False
    return True


def absent(running: servers.Servers) -> Iterator[str]:
    """Yield what is not measured here, and why."""
    yield from running.missing
    for package, peer in PEERS.items():
        if find_spec(package) is None:
            yield f"{package} is not installed (pip install 'django-natskv[bench]'): {peer} is not measured."


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        redis = has_redis(may_miss=options.smoke or options.suite == ["cache"])
    except servers.Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    rows: list[Row] = []
    with servers.running(redis=redis) as running:
        configure(running.nats, running.redis, running.memcached)
        found = report.machine(running.versions)
        print(f"{report.heading(found)}\nload before: {os.getloadavg()[0]:.1f}\n", flush=True)
        for text in absent(running):
            print(f"{text}\n", flush=True)
        for contest in measure(options, running):
            rows.extend(contest)
            print(report.table(contest), flush=True)
        close()
    if options.json:
        report.write(options.json, found, rows)
    return 0


def close() -> None:
    """Close the connection before its server goes away."""
    from django_natskv import connections  # noqa: PLC0415

    connections.close_all()


if __name__ == "__main__":
    sys.exit(main())
