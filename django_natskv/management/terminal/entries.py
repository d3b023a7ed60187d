"""How entries look.

Owns their titles, the fields that JSON has, and who and why. Must not know where entries come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from django_natskv.kv import Entry
from django_natskv.management.terminal.output import (
    Column,
    Listing,
    Record,
    Style,
    printable,
    to_json,
    to_json_line,
)
from django_natskv.management.terminal.reading import Reading

ACTOR = "Natskv-Actor"
COMMENT = "Natskv-Comment"
_SHOWN = 80  # characters of a value in a list; one entry alone is shown whole


def to_object(entry: Entry) -> dict[str, Any]:
    """Return the fields of ``Entry`` as JSON has them; ``headers`` only where there are any."""
    reading: Reading | None = entry.value
    return {
        "bucket": entry.bucket,
        "key": entry.key,
        "value": None if reading is None else reading.value,
        "revision": entry.revision,
        "created": entry.created.isoformat(),
        "operation": entry.operation.value,
        "delta": entry.delta,
        **({"headers": dict(entry.headers)} if entry.headers else {}),
    }


def _row(entry: Entry) -> dict[str, Any]:
    """Return the fields that tables and plain text have: text, but for the revision."""
    headers = dict(entry.headers)
    return {
        "bucket": entry.bucket,
        "key": entry.key,
        "revision": entry.revision,
        "created": entry.created.isoformat(),
        "operation": entry.operation.value,
        "actor": _decoded(headers.pop(ACTOR, "")),
        "comment": _decoded(headers.pop(COMMENT, "")),
        "headers": headers,
        "value": "" if entry.value is None else str(entry.value),
    }


def _decoded(header: str) -> str:
    return unquote(header, errors="replace")


def show_time(created: str) -> str:
    """Return a time to the second, in UTC: an operator's machine and a project's time zone may differ."""
    return datetime.fromisoformat(created).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(value: str) -> str:
    return value if len(value) <= _SHOWN else f"{value[: _SHOWN - 3]}..."


def _headers(headers: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(headers.items()))


_KEY = Column("key", "Key")
_REVISION = Column("revision", "Revision", right=True)
_CREATED = Column("created", "Created", show_time)
_OPERATION = Column("operation", "Operation")
# Columns of a table that are left out where there is nothing in them.
_WHEN_KNOWN = (Column("actor", "By"), Column("comment", "Comment"), Column("headers", "Headers", _headers))


@dataclass(frozen=True, slots=True)
class OneEntry:
    """One entry, a line a field."""

    entry: Entry

    def lines(self, format: str, heading: Style) -> Sequence[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json(to_object(self.entry))]
        row = _row(self.entry)
        known = [column for column in _WHEN_KNOWN if row[column.name]]
        value = [] if self.entry.value is None else [Column("value", "Value")]
        columns = (Column("bucket", "Bucket"), _KEY, _REVISION, _CREATED, _OPERATION, *known, *value)
        return Record(columns, row).lines(format, heading)


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one key, or ``keyed`` those of many, a line each."""

    entries: Sequence[Entry]
    keyed: bool = False

    def lines(self, format: str, heading: Style) -> Sequence[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json([to_object(entry) for entry in self.entries])]
        rows = [_row(entry) for entry in self.entries]
        whether = [column for column in _WHEN_KNOWN[:2] if format == "plain" or any(row[column.name] for row in rows)]
        key = (_KEY,) if self.keyed else ()
        columns = (*key, _REVISION, _CREATED, _OPERATION, *whether, Column("value", "Value", _short))
        return Listing(columns, rows).lines(format, heading)


def line_of(entry: Entry, format: str, heading: Callable[[str], str]) -> str:  # noqa: A002 - named as the option is
    """Return the one line of an entry that is shown as it comes."""
    if format == "json":
        return to_json_line(to_object(entry))
    row = _row(entry)
    if format == "plain":
        columns = (_KEY, _REVISION, _CREATED, _OPERATION, *_WHEN_KNOWN[:2], Column("value", "Value"))
        return Listing(columns, [row]).lines(format, heading)[0]
    why = "".join(f"  ({printable(text)})" for text in (row["actor"], row["comment"]) if text)
    # What comes later cannot be known: the columns are as wide as they mostly need.
    when, operation = show_time(row["created"]), row["operation"]
    value = printable(_short(row["value"]))
    return f"{when}  {entry.revision:>8}  {operation:<6}  {heading(entry.key)}  {value}{why}".rstrip()


@dataclass(frozen=True, slots=True)
class Written:
    """What a write gave: the revision."""

    bucket: str
    key: str
    revision: int

    def lines(self, format: str, heading: Style) -> Sequence[str]:  # noqa: A002, ARG002 - the protocol
        """See Result.lines()."""
        if format == "json":
            return [to_json({"bucket": self.bucket, "key": self.key, "revision": self.revision})]
        return [str(self.revision)]
