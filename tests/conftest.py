"""The fixtures of the whole suite, each kept in the ``fix_*`` module that it belongs to."""

from __future__ import annotations

import gc
import signal

import hypothesis
import pytest

# A machine that is busy with other tests holds up an example for as long as it likes: no deadline, by which hypothesis
# would call the test flaky, and no complaint that examples are made too slowly.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

# What a shell starts in the background ignores Ctrl-C, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "django_natskv.pytest_plugin",
    "tests.fix_servers",
    "tests.fix_proxy",
    "tests.fix_connections",
    "tests.fix_credentials",
    "tests.fix_embedded",
    "tests.fix_facade",
    "tests.fix_cache",
    "tests.fix_commands",
    "tests.fix_driver",
    "tests.fix_registry",
    "tests.fix_flags",
    "tests.fix_recoveries",
]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Rid the garbage collector of what hypothesis has it call, once: what a signal's handler raises there is lost."""
    gc.callbacks[:] = [each for each in gc.callbacks if not getattr(each, "__module__", "").startswith("hypothesis")]
