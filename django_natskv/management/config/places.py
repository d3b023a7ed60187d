"""Which buckets are looked through for documents of no class. Owns that choice; must not know what becomes of them."""

from __future__ import annotations

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv.names import check_name
from django_natskv.management.config.named import classes_of
from django_natskv.management.terminal.verb import DEFAULT_ALIAS, Call
from django_natskv.registry import documents


def add_bucket(parser: CommandParser) -> None:
    """Add a bucket that no class is kept in any more."""
    text = "also look here for documents of classes that are gone, where no class is kept any more; repeatable"
    parser.add_argument("--bucket", metavar="NAME", action="append", default=[], help=text)


def places_of(call: Call) -> list[tuple[str, str]]:
    """Return the connections and buckets to look through: those of all classes, and those that were named.

    None where classes were named: what is gone belongs to none of them.
    """
    named = [check_name(name) for name in call.options["bucket"]]
    if call.options["scope"]:
        if named:
            raise UsageError("--bucket contradicts --scope: documents of no class are of no scope.")
        return []
    if call.options["classes"]:
        if named:
            raise UsageError("--bucket contradicts CLASS: documents of no class are not those of a class.")
        return []
    found = [(where.connection, where.bucket) for where in map(documents.declaration, classes_of(call))]
    found += [(call.options["using"] or DEFAULT_ALIAS, name) for name in named]
    return sorted(set(found))
