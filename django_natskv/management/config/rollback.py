"""``natskv_config rollback``. Owns the words of it; knows nothing of how objects are saved."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.config.named import add_target, no_field, none_left, not_kept, number_of, target_of
from django_natskv.management.config.writing import (
    Saved,
    add_guard,
    check_guard,
    guard_of,
    refusals,
)
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents


class Rollback(Verb):
    """Go back to an earlier revision."""

    name = "rollback"
    help = (
        "Save an object as it was at REVISION again, as a new revision. It is validated first, and left as it is where "
        "somebody else changes it at the same time; a deleted one comes back. natskv_config history shows the "
        "revisions that are kept."
    )
    examples: ClassVar[tuple[str, ...]] = ("shop.ShopConfig 12", "shop.Carrier dhl 7 --comment 'wrong price'")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the object and the revision."""
        text = "the primary key of an object of a Model; then the revision to go back to"
        add_target(parser, "CLASS", "[PK] REVISION", text)
        add_author(parser)
        add_guard(parser)

    def run(self, call: Call) -> Result:
        """Go back."""
        target, rest = target_of(call)
        no_field(target, "rollback")
        if not rest:
            raise UsageError("REVISION is missing: natskv_config history shows which are kept.")
        revision = number_of(rest.pop(0), "REVISION")
        none_left(rest)
        author, guard = author_of(call), guard_of(call)
        if documents.stored_at(target.cls, target.key, revision) is None:
            raise not_kept(target, revision)
        now: Any = documents.stored(target.cls, target.key)
        if guard is not None:
            check_guard(target, now or target.cls(pk=target.pk), guard)
        with refusals(target.name):
            instance = target.source.rollback(*target.where, revision, **author)
        call.say(f"{target.name} is as it was at revision {revision} again, revision {instance.revision}.")
        return Saved(documents.label(target.cls), target.pk, instance.revision)
