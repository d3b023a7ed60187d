"""What the chaos tests promise of recoveries fails their run when it does not hold, and says what did not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.control import Control
from tests.fix_recoveries import ENOUGH, WORST, Recoveries, Recovery, Took, complaints
from tests.fix_waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


def recoveries(*took: tuple[float, float], times: int = 1) -> list[Recovery]:
    return [Recovery("caches", "cut", Took(*each), f"test[{number}]") for number, each in enumerate(took * times)]


@pytest.mark.parametrize(
    ("took", "times", "told"),
    [
        ([(4.9, 0.0)], 1, []),
        ([(0.1, 0.0), (5.0, 0.0)], 1, ["5.00 s after 'cut', and it has to be under 5: test[1]"]),
        ([(5.2, 0.3)], 1, []),
        ([(5.2, 0.1)], 1, ["5.10 s after 'cut', and it has to be under 5: test[0]"]),
        ([(2.0, 0.0)], ENOUGH - 1, []),
        ([(2.0, 0.0)], ENOUGH, ["the median is 2.00 s and has to be under 2"]),
        ([(2.0, 0.1)], ENOUGH, []),
        ([(4.9, 0.0), (0.1, 0.0), (0.1, 0.0)], ENOUGH, []),
        ([(0.1, 9.0)], 1, []),
    ],
)
def test_a_median_of_many_and_the_worst_of_all_are_held_against_what_is_promised(
    took: list[tuple[float, float]], times: int, told: list[str]
) -> None:
    assert complaints(recoveries(*took, times=times)) == told


def test_a_run_fails_by_what_its_processes_took_though_every_test_has_passed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from tests.fix_recoveries import Took\n"
        "def test_it(recovered):\n"
        "    recovered('cut', {'caches': Took(6.5), 'watches': Took(0.25, 0.125)})\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    options = ["-p", "xdist", "-n", "1", "-p", "tests.fix_recoveries", "--rootdir", str(tmp_path), str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in run.stdout, run.stdout + run.stderr
    assert "EXCEEDED: 6.50 s after 'cut'" in run.stdout
    assert run.stdout.count("as promised") == 1
    assert run.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("seconds", [1.5, 6.5])
@pytest.mark.parametrize("tests", [pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED])
def test_only_a_run_that_would_be_well_is_failed_by_what_it_took(tests: pytest.ExitCode, seconds: float) -> None:
    gathered = Recoveries()
    gathered.by_who["caches"] = recoveries((seconds, 0.0))
    session: Any = SimpleNamespace(exitstatus=tests)
    gathered.pytest_sessionfinish(session)
    failed = tests == pytest.ExitCode.OK and seconds > WORST
    assert session.exitstatus == (pytest.ExitCode.TESTS_FAILED if failed else tests)


def test_the_control_counts_the_time_for_which_a_process_was_held_up() -> None:
    with Control() as control:
        first = control.held_up()
        eventually(lambda: control.held_up() > first)
    assert control._process.returncode == 0
