"""``natskv_bucket purge-deletes``. Owns the words of it; knows nothing of how consent is asked for."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.terminal.output import Done, Result
from django_natskv.management.terminal.verb import Call, Verb, add_no_input


class PurgeDeletes(Verb):
    """Remove what is left of deleted keys."""

    name = "purge-deletes"
    help = (
        "Remove what is left of deleted keys. The markers and earlier revisions of keys that were deleted, purged or "
        "expired go; live keys keep theirs. It asks first, and cannot be undone."
    )
    examples: ClassVar[tuple[str, ...]] = ("flags", "flags --no-input")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name and the way round the question."""
        add_name(parser)
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Remove it."""
        name = name_of(call)
        bucket = call.kv().open_bucket(name)
        call.confirm(lambda: f"Remove the markers and the history of all deleted keys of the bucket {name!r}?")
        bucket.purge_deletes()
        call.say(f"Removed what the bucket {name!r} kept of deleted keys.")
        return Done({"bucket": name, "purged": True})
