"""The benchmarks run. What they measure is no test: a busy machine must not fail one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_smoke_run_goes_through_every_suite_and_writes_its_results(tmp_path):
    written = tmp_path / "results.json"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", "--json", str(written)],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""

    results = json.loads(written.read_text())
    assert results["machine"]["nats-server"]
    contests = {row["contest"] for row in results["results"]}
    assert {"get 100 B, memory, 1 thread", "put 100 B, memory, 32 tasks"} <= contests
    assert {"cache get 100 B, 1 thread", "cache delete 100 B, 8 threads", "local get a dict, 1 thread"} <= contests
    assert {"a flag that is on for everyone", "20 flags in a view", "a flag switched by manage.py"} <= contests
    assert any("at once after" in contest for contest in contests)
    assert any("until another process sees it" in contest for contest in contests)
    assert all(contest in run.stdout for contest in contests)
    assert all(row["seconds"]["median"] > 0 for row in results["results"])
