"""``natskv_config check``. Owns the words of it; knows nothing of what is wrong with a document."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config.named import add_classes, classes_of, keys_of
from django_natskv.management.config.places import add_bucket, places_of
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Column, Listing, Result, counted
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents

_COLUMNS = (
    Column("problem", "Problem"),
    Column("bucket", "Bucket"),
    Column("key", "Key"),
    Column("field", "Field"),
    Column("detail", "What it is"),
)


class Check(Verb):
    """Look for what does not fit."""

    name = "check"
    help = (
        "Look through all that is stored for what does not fit what is declared. That is: undecodable fields, unknown "
        "fields, values that are not valid any more, and documents of classes that are gone. Exit status 1 when there "
        "is any. Nothing is changed; natskv_config prune removes what is unknown and gone."
    )
    examples: ClassVar[tuple[str, ...]] = ("", "shop.ShopConfig", "--bucket old-config --format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the classes."""
        add_classes(parser)
        add_bucket(parser)

    def run(self, call: Call) -> Result:
        """Look."""
        places = places_of(call)  # first: a mistake is told before anything is read
        rows: list[dict[str, Any]] = []
        documents_seen = 0
        for cls in classes_of(call):
            where = documents.declaration(cls)
            call.alias = where.connection
            there = documents.entries(cls)
            for key in keys_of(call, cls, there):
                documents_seen += 1
                found = documents.examine(cls, key, there[key], there)
                rows += [_row(each.kind, where.bucket, key, each.field, each.detail) for each in found]
        for alias, bucket in places:
            call.alias = alias
            for key in documents.orphans(alias, bucket):
                documents_seen += 1
                rows.append(_row(documents.ORPHAN, bucket, key, "", "no declared class has this key"))
        result, seen = Listing(_COLUMNS, rows), counted(documents_seen, "document")
        if rows:
            fail_with(call, result, f"{counted(len(rows), 'problem')} in {seen}.")
        call.say(f"{seen}, and nothing is wrong.")
        return result


def _row(problem: str, bucket: str, key: str, field: str, detail: str) -> dict[str, Any]:
    return {"problem": problem, "bucket": bucket, "key": key, "field": field, "detail": detail}
