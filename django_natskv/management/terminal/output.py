"""Results in the three formats: a table to read, JSON, and plain text for other tools.

Owns how results look. Knows nothing of where they come from nor where they go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

FORMATS = ("table", "json", "plain")
_GAP = "  "
_UNFIT = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Style = Callable[[str], str]


class Result(Protocol):
    """What a verb has to show."""

    def lines(self, format: str, heading: Style) -> Sequence[str]:  # noqa: A002 - named as the option is
        """Return the lines of it in ``format``; ``heading`` colours headings where colours are wanted."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a result: its ``name`` in JSON, its ``title`` in a table, and how a table ``show``s its value."""

    name: str
    title: str
    show: Callable[[Any], str] = str
    right: bool = False

    def cell(self, item: Mapping[str, Any]) -> str:
        """Return what the table shows of ``item``."""
        return printable(self.show(item[self.name]))


@dataclass(frozen=True, slots=True)
class Listing:
    """Several items. ``columns`` are those of the table; JSON has every field, plain text the exact values."""

    columns: Sequence[Column]
    items: Sequence[Mapping[str, Any]]

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json(self.items)]
        if format == "plain":
            return ["\t".join(exact(item[column.name]) for column in self.columns) for item in self.items]
        if not self.items:
            return []
        titles, *rows = _aligned(
            [[column.title for column in self.columns], *([c.cell(item) for c in self.columns] for item in self.items)],
            [column.right for column in self.columns],
        )
        return [heading(titles), *rows]


@dataclass(frozen=True, slots=True)
class Record:
    """One item, a line a field."""

    columns: Sequence[Column]
    item: Mapping[str, Any]

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json(self.item)]
        if format == "plain":
            return [f"{column.name}\t{exact(self.item[column.name])}" for column in self.columns]
        width = max(len(column.title) for column in self.columns)
        return [heading(f"{column.title:<{width}}") + _GAP + column.cell(self.item) for column in self.columns]


@dataclass(frozen=True, slots=True)
class Names:
    """Names alone, one a line."""

    names: Sequence[str]

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002, ARG002 - the protocol
        """See Result.lines()."""
        return [to_json(self.names)] if format == "json" else [printable(name) for name in self.names]


@dataclass(frozen=True, slots=True)
class Done:
    """What was done, for JSON alone: on the terminal, talk has said it."""

    facts: Mapping[str, Any]

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002, ARG002 - the protocol
        """See Result.lines()."""
        return [to_json(self.facts)] if format == "json" else []


def to_json(value: Any) -> str:
    """Return ``value`` as one document of JSON."""
    return _spell_out(json.dumps(value, indent=2, ensure_ascii=False))


def to_json_line(value: Any) -> str:
    """Return ``value`` as a document of JSON in one line."""
    return _spell_out(json.dumps(value, ensure_ascii=False))


def _spell_out(document: str) -> str:
    """Return JSON without what steers a terminal or has no UTF-8; both stand in its strings only."""
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def exact(value: Any) -> str:
    """Return ``value`` for another tool: a text as it is, None as nothing, everything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return printable(value)
    return json.dumps(value, ensure_ascii=False)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number of things in words: "1 entry", "1,204 entries"; ``many`` is ``one`` with an s unless given."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def printable(text: str) -> str:
    """Return ``text`` with what would break a line, or steer the terminal, written out.

    Descriptions and metadata are the text of whoever may write to the server.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
