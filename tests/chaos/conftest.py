"""What the chaos tests share: how many seeds there are, and the report of how long each recovery took."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable

import pytest

SEEDS = int(os.environ.get("NATSKV_CHAOS_SEEDS", "20"))
FIRST = int(os.environ.get("NATSKV_CHAOS_FIRST", "1"))  # repeats one seed: NATSKV_CHAOS_FIRST=17 NATSKV_CHAOS_SEEDS=1

_recoveries: dict[str, list[float]] = defaultdict(list)

Recovered = Callable[[str, float], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # A cluster takes much longer than one server.
        count = max(1, SEEDS // 10) if metafunc.definition.get_closest_marker("cluster") else SEEDS
        metafunc.parametrize("seed", range(FIRST, FIRST + count))


@pytest.fixture
def recovered() -> Recovered:
    """Take how many seconds after the end of a fault a watch was up to date again."""

    def take(fault: str, seconds: float) -> None:
        _recoveries[fault].append(seconds)

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _recoveries:
        return
    terminalreporter.section("time to recover, in seconds after the end of the fault")
    everything = [seconds for each in _recoveries.values() for seconds in each]
    for fault, times in [*sorted(_recoveries.items()), ("all", everything)]:
        line = f"{fault:20} {len(times):5} times   median {statistics.median(times):6.2f}   worst {max(times):6.2f}"
        terminalreporter.write_line(line)
