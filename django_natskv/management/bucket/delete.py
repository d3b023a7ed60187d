"""``natskv_bucket delete``. Owns the words of it; knows nothing of how consent is asked for."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv import BucketStatus
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.terminal.output import Done, Result, counted
from django_natskv.management.terminal.verb import Call, Verb, add_no_input


class Delete(Verb):
    """Delete a bucket."""

    name = "delete"
    help = "Delete a bucket and every entry in it. It asks first, and cannot be undone."
    examples: ClassVar[tuple[str, ...]] = ("flags", "flags --no-input")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name and the way round the question."""
        add_name(parser)
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Delete it."""
        name = name_of(call)
        context = call.kv()
        context.open_bucket(name)  # a bucket that is not there is not asked about
        call.confirm(lambda: f"Delete the bucket {name!r} and its {_live(context.bucket_status(name))}?")
        context.delete_bucket(name)
        call.say(f"Deleted the bucket {name!r}.")
        return Done({"bucket": name, "deleted": True})


def _live(status: BucketStatus) -> str:
    return counted(status.values, "live entry", "live entries")
