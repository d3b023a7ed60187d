"""What the chaos tests share: how many seeds there are, and the report of how long each recovery took."""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable

import pytest

SEEDS = int(os.environ.get("NATSKV_CHAOS_SEEDS", "20"))
FIRST = int(os.environ.get("NATSKV_CHAOS_FIRST", "1"))  # repeats one seed: NATSKV_CHAOS_FIRST=17 NATSKV_CHAOS_SEEDS=1

_recoveries: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

Recovered = Callable[[str, dict[str, float]], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # A cluster takes much longer than one server.
        count = max(1, SEEDS // 10) if metafunc.definition.get_closest_marker("cluster") else SEEDS
        metafunc.parametrize("seed", range(FIRST, FIRST + count))


@pytest.fixture
def recovered() -> Recovered:
    """Take how many seconds after the end of a fault who was up to date again: the last of all watches, for one."""

    def take(fault: str, seconds: dict[str, float]) -> None:
        for who, each in seconds.items():
            _recoveries[who][fault].append(each)

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for who, recoveries in _recoveries.items():
        terminalreporter.section(f"time to recover of {who}, in seconds after the end of the fault")
        everything = [seconds for each in recoveries.values() for seconds in each]
        for fault, times in [*sorted(recoveries.items()), ("all", everything)]:
            line = f"{fault:20} {len(times):5} times   median {statistics.median(times):6.2f}   worst {max(times):6.2f}"
            terminalreporter.write_line(line)
