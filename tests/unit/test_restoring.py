"""The order in which the lines of a dump are written: what is sent together may be stored in any order."""

from __future__ import annotations

from datetime import UTC, datetime

from django_natskv.kv import Operation
from django_natskv.management.dumps.lines import Line
from django_natskv.management.dumps.restoring import _rounds


def test_no_key_is_written_twice_at_once_and_each_in_its_order():
    keys = "aabacbbda"
    lines = [Line(key, Operation.PUT, number, datetime.now(UTC), None, {}, b"") for number, key in enumerate(keys)]
    rounds = _rounds(lines)
    for together in rounds:
        assert len({line.key for line in together}) == len(together)
    for key in set(keys):
        written = [line.revision for together in rounds for line in together if line.key == key]
        assert written == [number for number, each in enumerate(keys) if each == key]
