"""``natskv_config import``. Owns what is done in which order; knows nothing of the form of an export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from django_natskv.management.config import exports
from django_natskv.management.config.named import add_classes, classes_named, name_of, said, scope_in
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Column, Listing, Result, counted
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import Conflict, documents

_COLUMNS = (Column("class", "Class"), Column("object", "Object", lambda pk: pk or ""), Column("action", "Action"))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One object of an export, beside what is stored of it now."""

    instance: Any
    pk: str | None
    revision: int  # that is stored now
    action: str  # "create", "change", "unchanged"

    @property
    def name(self) -> str:
        return name_of(type(self.instance), self.pk)

    def row(self, action: str | None = None) -> dict[str, Any]:
        return {"class": documents.label(type(self.instance)), "object": self.pk, "action": action or self.action}


class Import(Verb):
    """Bring in an export."""

    name = "import"
    help = (
        "Make the objects of an export what it says. All are validated before the first is written, and each is "
        "written only if nobody else changes it meanwhile. Objects that the export does not have stay. One that was "
        "broken off is finished by the same command again."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "config.json --dry-run",
        "config.json --comment 'from staging'",
        "config.json shop.ShopConfig --if-revision",
        "- < config.json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the file and what of it is meant."""
        parser.add_argument("path", metavar="FILE", help="what natskv_config export has written; - for stdin")
        add_classes(parser)
        parser.add_argument("--dry-run", action="store_true", help="write nothing, show what would be done")
        parser.add_argument(
            "--if-revision",
            action="store_true",
            dest="if_same",
            help="write nothing if an object that differs is not at the revision of the export any more",
        )
        add_author(parser)

    def run(self, call: Call) -> Result:
        """Bring it in."""
        author = author_of(call)
        export = exports.read(call.options["path"])
        chosen = classes_named(call, call.options["classes"] or list(export))
        missing = [documents.label(cls) for cls in chosen if documents.label(cls) not in export]
        if missing:
            raise CommandError(f"The export has nothing of {', '.join(missing)}.")
        wanted = [each for cls in chosen for each in _wanted(cls, export[documents.label(cls)], call)]
        if call.options["dry_run"]:
            return Listing(_COLUMNS, [each.row() for each in wanted])
        return _write(call, wanted, author)


def _valid(cls: Any, objects: Any, call: Call) -> Iterator[tuple[str, str, Any]]:
    """Yield the primary key, the key and the object of each of a class; ``CommandError`` for the first that is none."""
    scope = scope_in(call, cls)
    given = exports.given(cls, objects)
    names: dict[str, str] = {}
    for pk, item in objects.items():
        if scope and pk != scope:
            continue
        try:
            key = documents.key_of(cls, pk or None)
        except (ValidationError, ValueError) as error:
            raise CommandError(f"{name_of(cls, pk)}: {said(error)} Nothing was written.") from error
        if names.setdefault(key, pk) != pk:
            raise CommandError(f"{name_of(cls, pk)} is {name_of(cls, names[key])} once more. Nothing was written.")
        ground = documents.under(cls, key, {} if scope else given)
        instance, problems = documents.made_of(cls, key, item["values"], ground)
        if problems:
            first = problems[0]
            field = f" {first.field}:" if first.field else ""
            raise CommandError(f"{name_of(cls, pk)}:{field} {first.detail} Nothing was written.")
        yield pk, key, instance


def _wanted(cls: Any, objects: Any, call: Call) -> Iterator[_Wanted]:
    """Yield the objects of a class; ``CommandError`` for the first that would not be valid."""
    call.alias = documents.declaration(cls).connection
    made = list(_valid(cls, objects, call))
    present = documents.stored_all(cls, [key for _, key, _ in made])
    for pk, key, instance in made:
        now = present[key]
        revision = 0 if now is None else now.revision
        action = _action(now, instance)
        expected = objects[pk]["revision"]
        if call.options["if_same"] and action != "unchanged" and revision != expected:
            text = f"{name_of(cls, pk)} is at revision {revision}, and was at {expected} in the export."
            raise CommandError(f"{text} Nothing was written.")
        yield _Wanted(instance, pk or None, revision, action)


def _action(now: Any, instance: Any) -> str:
    if now is None:
        return "create"
    if now.undecodable or documents.differ(documents.to_store(now), documents.to_store(instance)):
        return "change"
    return "unchanged"


def _write(call: Call, wanted: list[_Wanted], author: dict[str, str]) -> Result:
    rows: list[dict[str, Any]] = []
    done = 0
    for position, each in enumerate(wanted):
        if each.action != "unchanged":
            call.alias = documents.declaration(type(each.instance)).connection
            try:
                documents.bring_in(each.instance, each.revision, **author)
            except Conflict:
                rest = [later.row("left") for later in wanted[position:] if later.action != "unchanged"]
                counts = (
                    f"{counted(done, 'object was', 'objects were')} written, {counted(len(rest), 'was', 'were')} not"
                )
                text = f"{each.name} was changed by somebody else meanwhile. {counts}: run it again."
                fail_with(call, Listing(_COLUMNS, rows + rest), text)
            done += 1
        rows.append(each.row())
    call.say(f"Wrote {counted(done, 'object')}; {counted(len(wanted) - done, 'was', 'were')} as in the export already.")
    return Listing(_COLUMNS, rows)
