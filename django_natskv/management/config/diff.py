"""``natskv_config diff``. Owns what is compared with what; knows nothing of how values look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.config import exports
from django_natskv.management.config.named import (
    Target,
    absent,
    add_scope,
    classes_named,
    name_of,
    no_field,
    none_left,
    not_kept,
    number_of,
    said,
    scope_in,
    target_of,
)
from django_natskv.management.config.values import changes_between, show_value
from django_natskv.management.terminal.failing import fail_with
from django_natskv.management.terminal.output import Column, Listing, Result, counted
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents

_COLUMNS = (
    Column("class", "Class"),
    Column("object", "Object", lambda pk: pk or ""),
    Column("change", "Change"),
    Column("field", "Field", lambda name: name or ""),
    Column("old", "Old", show_value),
    Column("new", "New", show_value),
)


class Diff(Verb):
    """Compare."""

    name = "diff"
    help = (
        "Show which fields of an object differ between two revisions, or a revision and now; with --against, between "
        "an export and now. The old value comes first."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "shop.ShopConfig 12",
        "shop.Carrier dhl 7 9",
        "--against config.json --check",
        "--against config.json shop.ShopConfig",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what is compared."""
        parser.usage = (
            "%(prog)s [options] CLASS [PK] REVISION [REVISION]\n       %(prog)s [options] --against FILE [CLASS ...]"
        )
        parser.add_argument("target", nargs="?", metavar="CLASS", help="the class, such as shop.ShopConfig")
        text = "the primary key of an object of a Model; then one revision to compare with now, or two"
        parser.add_argument("rest", nargs="*", default=[], metavar="[PK] REVISION", help=text)
        parser.add_argument("--against", metavar="FILE", help="compare an export with what is stored now; - for stdin")
        add_scope(parser, "of a Config, its value for a site, tenant, ... as Meta.scopes names it; repeatable")
        parser.add_argument("--check", action="store_true", help="exit status 1 when there is a difference")

    def run(self, call: Call) -> Result:
        """Compare it."""
        rows = list(_rows_of_revisions(call) if call.options["against"] is None else _rows_of_export(call))
        result = Listing(_COLUMNS, rows)
        if not rows:
            call.say("There is no difference.")
        elif call.options["check"]:
            fail_with(call, result, f"{counted(len(rows), 'difference')}.")
        return result


def _rows_of_revisions(call: Call) -> Iterator[dict[str, Any]]:
    if call.options["target"] is None:
        raise UsageError("CLASS is missing, or --against FILE.")
    target, rest = target_of(call)
    no_field(target, "diff")
    if not rest:
        raise UsageError("REVISION is missing: natskv_config history shows which are kept.")
    old = _at(target, number_of(rest.pop(0), "REVISION"))
    if rest:
        new = _at(target, number_of(rest.pop(0), "REVISION"))
        none_left(rest)
    else:
        new = documents.stored(target.cls, target.key)
        if new is None:
            raise absent(target)
    yield from _rows(target.cls, target.pk, old, new)


def _at(target: Target, revision: int) -> Any:
    found = documents.stored_at(target.cls, target.key, revision)
    if found is None:
        raise not_kept(target, revision)
    return found


def _rows_of_export(call: Call) -> Iterator[dict[str, Any]]:
    target = call.options["target"]
    names = [*([] if target is None else [target]), *call.options["rest"]]
    export = exports.read(call.options["against"])
    for cls in classes_named(call, names or list(export)):
        call.alias = documents.declaration(cls).connection
        objects = export.get(documents.label(cls))
        if objects is None:
            raise CommandError(f"The export has nothing of {documents.label(cls)}.")
        now = {documents.pk_of(cls, key): instance for key, instance in documents.objects(cls).items()}
        scope = scope_in(call, cls)
        if scope:
            objects, now = ({pk: found[pk] for pk in found if pk == scope} for found in (objects, now))
        yield from _rows_of_class(cls, objects, now)


def _rows_of_class(cls: Any, objects: Mapping[str, exports.Item], now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    nothing = {} if documents.declaration(cls).many else {"": cls()}
    given = exports.given(cls, objects)
    for pk, item in objects.items():
        try:
            key = documents.key_of(cls, pk or None)
        except (ValidationError, ValueError) as error:
            raise CommandError(f"{name_of(cls, pk)} in the export: {said(error)}") from error
        old, problems = documents.made_of(cls, key, item["values"], documents.under(cls, key, given))
        if any(problem.kind == documents.UNDECODABLE for problem in problems):
            raise CommandError(f"{name_of(cls, pk)} in the export: {problems[0].field} {problems[0].detail}")
        new = now.get(pk, nothing.get(pk))
        if new is None:
            yield _row(cls, pk, "removed", old=documents.as_set(old))
        else:
            yield from _rows(cls, pk or None, old, new)
    for pk in sorted(now.keys() - objects.keys()):
        yield _row(cls, pk, "added", new=documents.as_set(now[pk]))


def _rows(cls: Any, pk: str | None, old: Any, new: Any) -> Iterator[dict[str, Any]]:
    changes = changes_between(documents.as_json(old), documents.as_json(new))
    if pk is not None and not documents.declaration(cls).many:  # what a scope does not set is not its change
        own = {*documents.as_set(old), *documents.as_set(new)}
        changes = {name: pair for name, pair in changes.items() if name in own}
    for name, (before, after) in changes.items():
        yield _row(cls, pk, "changed", name, before, after)


def _row(cls: Any, pk: str | None, change: str, field: str | None = None, old: Any = None, new: Any = None) -> Any:
    return {"class": documents.label(cls), "object": pk, "change": change, "field": field, "old": old, "new": new}
