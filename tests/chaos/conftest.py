"""What the chaos tests share: how many seeds there are."""

from __future__ import annotations

import os

import pytest

SEEDS = int(os.environ.get("NATSKV_CHAOS_SEEDS", "20"))
FIRST = int(os.environ.get("NATSKV_CHAOS_FIRST", "1"))  # repeats one seed: NATSKV_CHAOS_FIRST=17 NATSKV_CHAOS_SEEDS=1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # A cluster takes much longer than one server.
        count = max(1, SEEDS // 10) if metafunc.definition.get_closest_marker("cluster") else SEEDS
        metafunc.parametrize("seed", range(FIRST, FIRST + count))
