"""The lines of a dump: what is none, the order in which they are written, and what is left to live of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from django_natskv.kv import Operation
from django_natskv.kv.entries import MAX_TTL_MS
from django_natskv.management.dumps.lines import DumpError, Line, read_header, read_line
from django_natskv.management.dumps.restoring import Clock, Mode, Restoring, _rounds


def test_no_key_is_written_twice_at_once_and_each_in_its_order():
    keys = "aabacbbda"
    lines = [Line(key, Operation.PUT, number, datetime.now(UTC), None, {}, b"") for number, key in enumerate(keys)]
    rounds = _rounds(lines)
    for together in rounds:
        assert len({line.key for line in together}) == len(together)
    for key in set(keys):
        written = [line.revision for together in rounds for line in together if line.key == key]
        assert written == [number for number, each in enumerate(keys) if each == key]


HEADER = {
    "format": "natskv-dump",
    "version": 1,
    "bucket": "b",
    "config": {},
    "time": "2026-01-01T00:00:00+00:00",
    "revision": 1,
    "history": False,
    "keys": None,
}


@pytest.mark.parametrize("keys", [5, "a.*", {"a": 1}])
def test_a_header_with_patterns_that_are_no_list_is_none(keys: object):
    with pytest.raises(DumpError, match="'keys' is missing or not of the type list"):
        read_header(json.dumps({**HEADER, "keys": keys}).encode())
    assert read_header(json.dumps({**HEADER, "keys": ["a.*"]}).encode()).keys == ("a.*",)


@pytest.mark.parametrize("read", [read_header, read_line])
def test_a_line_that_is_nested_without_end_is_none(read: Callable[[bytes], object]):
    with pytest.raises(DumpError, match="no line of JSON"):
        read(b"[" * 100_000)


def test_a_negative_time_to_live_is_none():
    line = {"key": "a", "operation": "put", "revision": 1, "created": HEADER["time"], "value": "", "ttl_ms": -1}
    with pytest.raises(DumpError, match="0 or more"):
        read_line(json.dumps(line).encode())


@pytest.mark.parametrize(
    ("ttl_ms", "made", "left"),
    [
        (5_000, timedelta(seconds=-2), 3_000),
        (5_000, timedelta(days=2_900_000), 5_000),  # by a server whose clock goes ahead, or by hand
        (10**30, timedelta(), MAX_TTL_MS),  # longer than any that can be asked for
    ],
)
def test_no_entry_gets_more_to_live_than_it_had_nor_than_there_is(ttl_ms: int, made: timedelta, left: int):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    header = read_header(json.dumps(HEADER).encode())
    restoring = Restoring(None, header, Mode.EMPTY, clock=_Stopped(now), superseded={}, dry_run=True)
    change = restoring._change(Line("a", Operation.PUT, 1, now + made, ttl_ms, {}, b""))
    assert change is not None
    assert change.ttl_ms == left


class _Stopped(Clock):
    def now(self) -> datetime:
        return self._told
