"""How long recoveries took in a whole run: told at its end, and held against what is promised, which can fail the run.

Owns the limits and the verdict. Knows nothing of who recovers from what: tests say so, by the fixture ``recovered``.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pytest

MEDIAN, WORST = 2.0, 5.0  # seconds after the end of the fault
ENOUGH = 30  # recoveries from which on a median says something

_PROPERTY = "recovery"  # by which a test's process tells the one that reports


class Took(NamedTuple):
    """How many seconds a recovery took, and for how many of them the machine held up whoever wanted next to nothing."""

    seconds: float
    held_up: float = 0.0


class Recovered(Protocol):
    """What the fixture ``recovered`` gives."""

    def __call__(self, fault: str, took: dict[str, Took]) -> None:
        """Take how long after the end of ``fault`` who was up to date again."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One recovery."""

    who: str
    fault: str
    took: Took
    test: str

    @property
    def counted(self) -> float:
        """The seconds that count: those in which the machine let processes run."""
        return max(0.0, self.took.seconds - self.took.held_up)


@pytest.fixture
def recovered(request: pytest.FixtureRequest) -> Recovered:
    """Take recoveries for the report at the end of the run."""
    properties = request.node.user_properties

    def take(fault: str, took: dict[str, Took]) -> None:
        properties.extend((_PROPERTY, [who, fault, *each]) for who, each in took.items())

    return take


def complaints(recoveries: Iterable[Recovery]) -> list[str]:
    """Return in what recoveries, all of the same who, exceed what is promised."""
    counted = sorted(recoveries, key=lambda one: one.counted)
    median, worst = statistics.median(one.counted for one in counted), counted[-1]
    told = []
    if len(counted) >= ENOUGH and median >= MEDIAN:
        told.append(f"the median is {median:.2f} s and has to be under {MEDIAN:g}")
    if worst.counted >= WORST:
        told.append(f"{worst.counted:.2f} s after {worst.fault!r}, and it has to be under {WORST:g}: {worst.test}")
    return told


class Recoveries:
    """The plugin: gathers what tests have said, in whatever process they ran, and has the last word."""

    def __init__(self) -> None:
        self.by_who: dict[str, list[Recovery]] = defaultdict(list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what a test has said, once it is over."""
        if report.when == "teardown":
            said: list[tuple[str, Any]] = report.user_properties
            for who, fault, seconds, held_up in (value for name, value in said if name == _PROPERTY):
                self.by_who[who].append(Recovery(who, fault, Took(seconds, held_up), report.nodeid))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run in which what is promised did not hold."""
        if session.exitstatus == pytest.ExitCode.OK and any(map(complaints, self.by_who.values())):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Tell what was taken, and whether it is as promised."""
        for who, recoveries in self.by_who.items():
            terminalreporter.section(f"time to recover of {who}, in seconds after the end of the fault")
            for line in _table(recoveries):
                terminalreporter.write_line(line)
            told = complaints(recoveries)
            for line in told:
                terminalreporter.write_line(f"EXCEEDED: {line}", red=True, bold=True)
            if not told:
                terminalreporter.write_line(_holds(recoveries), green=True)


def _table(recoveries: list[Recovery]) -> Iterable[str]:
    by_fault: dict[str, list[Took]] = defaultdict(list)
    for one in recoveries:
        by_fault[one.fault].append(one.took)
    for fault, took in [*sorted(by_fault.items()), ("all", [one.took for one in recoveries])]:
        seconds = [one.seconds for one in took]
        held_up = max(one.held_up for one in took)
        yield (
            f"{fault:20} {len(took):5} times   median {statistics.median(seconds):6.2f}   worst {max(seconds):6.2f}"
            f"   held up by the machine {held_up:6.2f} at most"
        )


def _holds(recoveries: list[Recovery]) -> str:
    median = f"median under {MEDIAN:g}" if len(recoveries) >= ENOUGH else f"fewer than {ENOUGH}, so no median is asked"
    slow = sum(one.took.seconds >= WORST for one in recoveries)
    but = f", less what the machine held up: {slow} took longer" if slow else ""
    return f"as promised: {median}, worst under {WORST:g}{but}"


def pytest_configure(config: pytest.Config) -> None:
    """Gather where the run is reported, and not in the processes that xdist has tests run in."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recoveries(), "recoveries")
