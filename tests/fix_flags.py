"""Flags on the shared server: their bucket as it is stored, made for one test.

Owns that the bucket begins absent; knows nothing of what is declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.fix_registry import Shelf, all_is_told


@pytest.fixture
def flags(natskv: Mapping[str, Any]) -> Iterator[Shelf]:
    """The bucket of the flags on the shared server, absent to begin with; nothing that was there before is told now."""
    found = Shelf()
    found.drop()
    all_is_told()
    yield found
    found.drop()
