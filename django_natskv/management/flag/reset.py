"""``natskv_flag reset``. Owns the words of it; knows nothing of definitions."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.flag.named import add_name, flag_of, page_of
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.output import Done
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry.flags.explaining import summary


class Reset(Verb):
    """Remove what is stored of a flag."""

    name = "reset"
    help = (
        "Remove what is stored of a flag: it says what is declared of it again. Its history stays, and `natskv_key "
        "revert` brings back an earlier definition. Nothing happens where nothing is stored."
    )
    examples: ClassVar[tuple[str, ...]] = ("new_checkout", 'new_checkout --actor ann --comment "the launch is over"')

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and who resets it."""
        add_name(parser)
        add_author(parser)

    def run(self, call: Call) -> Done:
        """Remove it."""
        flag = flag_of(call)
        stored = flag.name in page_of(flag).entries
        flag.reset(**author_of(call))
        says = f"{flag.name}: {summary(flag.declaration, None)}"
        call.say(says if stored else f"{says}; nothing was stored")
        return Done({"bucket": flag.flag_set._declaration.bucket, "key": flag.name, "reset": stored})  # noqa: SLF001
