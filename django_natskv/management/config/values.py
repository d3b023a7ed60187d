"""Values as a table shows them, and changes of them. Owns their look; must not know whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django_natskv.management.terminal.output import to_json_line


def show_value(value: Any) -> str:
    """Return a value as JSON in one line: the text "1" and the number 1 are two."""
    return to_json_line(value)


def show_changes(changes: Mapping[str, Sequence[Any]]) -> str:
    """Return what became what, by field."""
    return "; ".join(f"{name}: {show_value(old)} -> {show_value(new)}" for name, (old, new) in changes.items())


def changes_between(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return, for each field that differs, its old and its new JSON."""
    return {name: [old[name], new[name]] for name in old if show_value(old[name]) != show_value(new[name])}
