"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from django_natskv.exceptions import UsageError
from django_natskv.management.terminal.output import counted
from django_natskv.management.terminal.units import (
    parse_duration,
    parse_number,
    parse_size,
    show_duration,
    show_size,
    show_size_exactly,
)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("500ms", 500),
        ("90s", 90_000),
        ("1m", 60_000),
        ("1h", 3_600_000),
        ("1d12h", 129_600_000),
        ("2w", 1_209_600_000),
        ("1.5h", 5_400_000),
        ("0.25s", 250),
        ("1w1d1h1m1s1ms", 694_861_001),
        ("0s", 0),
        ("0", 0),
        ("none", 0),
    ],
)
def test_a_duration_is_read_in_milliseconds(text: str, milliseconds: int):
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "90", "1.5", "s", "-1s", "+1s", "1h 30m", "1h1h", "30m1h", "1H", "1M", "1y", "1h!30m", "0.5ms"),
        *("1e3s", "1 hour", "1:30", "PT1H", "٣s", "1s\n", "1..5s", ".5s", "NONE", "9" * 31 + "s"),
    ],
)
def test_what_is_not_plainly_a_duration_is_refused_and_told_how(text: str):
    with pytest.raises(UsageError, match="is not a duration: write it as"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**20))
def test_a_duration_that_is_shown_can_be_typed(milliseconds: int):
    assert parse_duration(show_duration(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65_536),
        ("64 KiB", 65_536),
        ("64kib", 65_536),
        ("10MB", 10_000_000),
        ("1.5MiB", 1_572_864),
        ("1GiB", 2**30),
        ("1TB", 10**12),
        ("99999999999999999999TiB", (10**20 - 1) * 2**40),
        ("0.000000001GB", 1),
        ("2TiB", 2**41),
        ("0", 0),
        ("-1", -1),
        ("unlimited", -1),
    ],
)
def test_a_size_is_read_in_bytes(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KiB",
        "64K",
        "64k",
        "1G",
        "-2",
        "-1KiB",
        "+1",
        "1.5",
        "0.3B",
        "1PB",
        "1e3",
        "1,000",
        "64  KiB",
        "٣",
        "64KiB\n",
    ],
)
def test_what_is_not_plainly_a_size_is_refused_and_told_how(text: str):
    with pytest.raises(UsageError, match="is not a size: write it as"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "shown", "exactly"),
    [
        (-1, "unlimited", "unlimited"),
        (0, "0B", "0B"),
        (1023, "1023B", "1023B"),
        (1024, "1KiB", "1KiB"),
        (1536, "1.5KiB", "1.5KiB"),
        (10_000_000, "9.5MiB", "9.5MiB (10000000 bytes)"),
        (2**30, "1GiB", "1GiB"),
        (5000 * 2**40, "5000TiB", "5000TiB"),
    ],
)
def test_a_size_is_shown_in_the_largest_unit(size: int, shown: str, exactly: str):
    assert show_size(size) == shown
    assert show_size_exactly(size) == exactly


@given(st.integers(min_value=-1, max_value=2**70))
def test_a_size_that_is_shown_exactly_can_be_typed(size: int):
    shown = show_size_exactly(size)
    assert parse_size(shown.split("(")[1].removesuffix(" bytes)") if "(" in shown else shown) == size


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("8", 8), ("-3", -3), ("08", 8)])
def test_a_whole_number_is_read(text: str, number: int):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["", "a", "1.0", "1_000", " 1", "1 ", "٣", "+1", "9" * 19])
def test_what_is_not_a_whole_number_is_refused(text: str):
    with pytest.raises(UsageError, match="is not a whole number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1_204, "1,204 entries")]
)
def test_one_of_a_thing_is_no_plural(number: int, said: str):
    assert counted(number, "entry", "entries") == said
    assert counted(number, "key") == said.replace("entries", "keys").replace("entry", "key")
