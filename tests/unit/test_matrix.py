"""The corners of the matrix run files that there are."""

from __future__ import annotations

import pytest

from tests.matrix import CORNER_TESTS, ROOT, SERVER_TESTS


@pytest.mark.parametrize("path", sorted({*CORNER_TESTS, *SERVER_TESTS}))
def test_what_the_corners_run_is_there(path: str) -> None:
    assert (ROOT / path).exists()
