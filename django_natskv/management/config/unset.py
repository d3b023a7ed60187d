"""``natskv_config unset``. Owns the words of it; knows nothing of what is stored."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config.named import Target, absent, add_target, none_left, target_of
from django_natskv.management.config.writing import (
    add_guard,
    check_guard,
    guard_of,
    refusals,
    save,
)
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.output import Done, Result
from django_natskv.management.terminal.verb import Call, Verb, add_no_input
from django_natskv.registry import documents


class Unset(Verb):
    """Take back what is stored."""

    name = "unset"
    help = (
        "Give a field its default back, or delete an object. Without a field all that is stored of the object goes, "
        "after a question: a Config then reads as its defaults, and an object of a Model is gone. natskv_config "
        "rollback brings it back while its revisions are kept."
    )
    examples: ClassVar[tuple[str, ...]] = ("shop.ShopConfig.banner", "shop.Carrier.price dhl", "shop.Carrier dhl")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the object or field."""
        add_target(parser, "CLASS[.FIELD]", "[PK]", "the primary key of an object of a Model")
        add_author(parser)
        add_guard(parser)
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Take it back."""
        target, rest = target_of(call)
        none_left(rest)
        if target.field is None:
            return _delete(call, target)
        name = target.field

        def change(instance: Any) -> None:
            documents.reset(instance, name)

        return save(call, target, change)


def _delete(call: Call, target: Target) -> Result:
    author, guard = author_of(call), guard_of(call)
    instance = documents.stored(target.cls, target.key)
    if instance is None:
        raise absent(target)
    check_guard(target, instance, guard)
    if instance.revision:
        call.confirm(lambda: f"Delete all that is stored of {target.name}?")
        with refusals(target.name):
            instance.delete(**author)
        call.say(f"Deleted what was stored of {target.name}.")
        deleted = True
    else:
        call.say(f"Nothing is stored of {target.name}.")
        deleted = False
    return Done({"class": documents.label(target.cls), "object": target.pk, "deleted": deleted})
