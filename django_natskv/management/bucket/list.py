"""``natskv_bucket list``. Owns the words of it; knows nothing of how a list looks."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.bucket import show
from django_natskv.management.terminal.output import Names, Result
from django_natskv.management.terminal.verb import Call, Verb


class List(Verb):
    """Show all buckets."""

    name = "list"
    help = (
        "List all buckets. Sorted by name, with their live entries and limits. Counting the entries reads the keys of "
        "every bucket; --names does without."
    )
    examples: ClassVar[tuple[str, ...]] = ("", "--names", "--format json --using reports")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the choice of names alone."""
        parser.add_argument("--names", action="store_true", help="only the names, one a line: nothing is counted")

    def run(self, call: Call) -> Result:
        """List them."""
        context = call.kv()
        if call.options["names"]:
            found: list[str] = context.bucket_names()
            result: Result = Names(found)
        else:
            statuses = context.list_buckets()
            found, result = [status.bucket for status in statuses], show.listing(statuses)
        if not found:
            call.say("There are no buckets.")
        return result
