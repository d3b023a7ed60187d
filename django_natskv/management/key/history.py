"""``natskv_key history``. Owns the words of it; knows nothing of how entries look."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.key.named import absent, add_bucket_and_key, names_of, open_bucket
from django_natskv.management.terminal.entries import Entries
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.reading import Reader, add_codec, codec_of, note_strange
from django_natskv.management.terminal.verb import Call, Verb


class History(Verb):
    """Show the revisions of a key."""

    name = "history"
    help = (
        "Show the kept revisions of a key, the oldest first. With who wrote them and why, where that was kept. What "
        "deleted or purged the key is shown too. A table cuts long values short; the other formats do not."
    )
    examples: ClassVar[tuple[str, ...]] = ("config banner", "config banner --format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key."""
        add_bucket_and_key(parser)
        add_codec(parser)

    def run(self, call: Call) -> Result:
        """Show them."""
        name, key = names_of(call)
        entries = open_bucket(call, name, Reader(codec_of(call))).history(key)
        if not entries:
            raise absent(name, key)
        strange = next((entry for entry in entries if entry.value is not None and entry.value.is_strange), None)
        if strange is not None:
            note_strange(call, key, strange.revision)
        return Entries(entries)
