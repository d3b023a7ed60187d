"""``natskv_config history``. Owns the words of it; knows nothing of how a list looks."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config.named import Target, absent, add_target, none_left, target_of
from django_natskv.management.config.values import changes_between, show_changes
from django_natskv.management.terminal.entries import show_time
from django_natskv.management.terminal.output import Column, Listing, Result
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents

_COLUMNS = (
    Column("revision", "Revision", right=True),
    Column("created", "Created", show_time),
    Column("operation", "Operation"),
    Column("actor", "By"),
    Column("comment", "Comment"),
    Column("changes", "Changes", show_changes),
)


class History(Verb):
    """Show who changed what."""

    name = "history"
    help = (
        "Show the kept revisions of an object, the oldest first: who changed which fields, when and why. With a field, "
        "only those that changed it."
    )
    examples: ClassVar[tuple[str, ...]] = ("shop.ShopConfig", "shop.ShopConfig.banner", "shop.Carrier dhl")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the object or field."""
        add_target(parser, "CLASS[.FIELD]", "[PK]", "the primary key of an object of a Model")

    def run(self, call: Call) -> Result:
        """Show them."""
        target, rest = target_of(call)
        none_left(rest)
        revisions = target.source.history(*target.where)
        if not revisions and target.many:
            raise absent(target)
        rows = _rows(_nothing(target), revisions)
        if target.field is not None:
            rows = [
                {**row, "changes": {target.field: row["changes"][target.field]}}
                for row in rows
                if target.field in row["changes"]
            ]
        if not rows:
            call.say(f"No change of {call.options['target']} is kept.")
        return Listing(_COLUMNS, rows)


def _nothing(target: Target) -> Any:
    """Return the object as it reads while nothing is stored of it."""
    return documents.under(target.cls, target.key, {}) or target.cls()


def _rows(nothing: Any, revisions: list[Any]) -> list[dict[str, Any]]:
    rows = []
    defaults = before = documents.as_json(nothing)
    for each in revisions:
        now = defaults if each.value is None else documents.as_json(each.value)
        rows.append(
            {
                "revision": each.revision,
                "created": each.time.isoformat(),
                "operation": each.operation.value,
                "actor": each.actor,
                "comment": each.comment,
                "changes": changes_between(before, now),
            }
        )
        before = now
    return rows
