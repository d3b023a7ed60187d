"""Fixtures for pytest: ``pytest_plugins = ["django_natskv.pytest_plugin"]`` in the project's ``conftest.py``.

Owns the fixtures. Must not import Django before a test asks for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture
def natskv_flags() -> Iterator[Callable[[Any, Any], Any]]:
    """Override flags until the end of the test: ``natskv_flags(Features.new_checkout, True)``; by name too.

    Nothing is written, and no server is needed.
    """
    from django_natskv.testing import override_flag  # noqa: PLC0415 - settings need not be there before

    with ExitStack() as until_the_end:
        # Everywhere: an asynchronous test does not run in the context that a fixture does.
        yield lambda flag, value: until_the_end.enter_context(override_flag(flag, value, everywhere=True))
