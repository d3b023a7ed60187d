"""``natskv_config prune``. Owns what is asked and in which order; knows nothing of how documents are changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import WrongRevision
from django_natskv.management.config.named import add_classes, classes_of, keys_of
from django_natskv.management.config.places import add_bucket, places_of
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Column, Listing, Result
from django_natskv.management.terminal.verb import Call, Verb, add_no_input
from django_natskv.registry import documents

_COLUMNS = (
    Column("bucket", "Bucket"),
    Column("key", "Key"),
    Column("removed", "Removed", lambda names: ", ".join(names) if names else "the document"),
)
_NAMED = 10  # documents that a question names, or an error; --dry-run and natskv_config check show all


@dataclass(frozen=True, slots=True)
class _Waste:
    """What is to be removed: the unknown fields of a document of ``cls``, or all of a document of none."""

    cls: Any
    alias: str
    bucket: str
    entry: Any
    fields: tuple[str, ...]

    @property
    def row(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "key": self.entry.key, "removed": list(self.fields)}


class Prune(Verb):
    """Remove what no class declares."""

    name = "prune"
    help = (
        "Remove stored fields that are no fields any more, and documents of classes that are gone. It asks first. What "
        "is written by a later version of a class stays, and so does what somebody changes meanwhile. Earlier "
        "revisions are kept as the bucket keeps them: natskv_key revert brings one back."
    )
    examples: ClassVar[tuple[str, ...]] = ("--dry-run", "shop.ShopConfig", "--bucket old-config --no-input")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the classes and the way round the question."""
        add_classes(parser)
        add_bucket(parser)
        parser.add_argument("--dry-run", action="store_true", help="remove nothing, show what would be removed")
        add_author(parser)
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Remove it."""
        author = author_of(call)
        places = places_of(call)  # first: a mistake is told before anything is read
        waste = [*_unknown(call), *_orphans(call, places)]
        result = Listing(_COLUMNS, [each.row for each in waste])
        if not waste:
            call.say("There is nothing to remove.")
        if call.options["dry_run"] or not waste:
            return result
        call.confirm(lambda: _question(waste))
        removed: list[dict[str, Any]] = []
        left: list[str] = []
        for each in waste:
            if _remove(call, each, author):
                removed.append(each.row)
            else:
                left.append(each.entry.key)
        if left:
            text = f"Changed by somebody else meanwhile, and left: {_some(left)}."
            fail_with(call, Listing(_COLUMNS, removed), text)
        return result


def _question(waste: list[_Waste]) -> str:
    fields = [f"{name} of {each.entry.key}" for each in waste for name in each.fields]
    whole = [f"all of {each.entry.key}" for each in waste if not each.fields]
    return f"Remove {_some(fields + whole)}?"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _unknown(call: Call) -> list[_Waste]:
    found = []
    for cls in classes_of(call):
        where = documents.declaration(cls)
        call.alias = where.connection
        there = documents.entries(cls)
        for key in keys_of(call, cls, there):
            names = tuple(documents.unknown(cls, there[key]))
            if names:
                found.append(_Waste(cls, where.connection, where.bucket, there[key], names))
    return found


def _orphans(call: Call, places: list[tuple[str, str]]) -> list[_Waste]:
    found = []
    for alias, bucket in places:
        call.alias = alias
        found += [_Waste(None, alias, bucket, entry, ()) for entry in documents.orphans(alias, bucket).values()]
    return found


def _remove(call: Call, waste: _Waste, author: dict[str, str]) -> bool:
    call.alias = waste.alias
    try:
        if waste.cls is None:
            documents.delete(waste.alias, waste.bucket, waste.entry, **author)
        else:
            documents.prune(waste.cls, waste.entry.key, waste.entry, **author)
    except WrongRevision:
        return False
    what = ", ".join(waste.fields) or "the document"
    call.say(f"Removed {what} at the key {waste.entry.key!r} in bucket {waste.bucket!r}.")
    return True
