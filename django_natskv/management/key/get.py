"""``natskv_key get``. Owns the words of it; knows nothing of how an entry looks."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv import Entry
from django_natskv.kv.codecs import BytesCodec
from django_natskv.management.key.named import absent, add_bucket_and_key, names_of, open_bucket, revision_of
from django_natskv.management.terminal.entries import OneEntry
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.reading import Reader, add_codec, codec_of, note_strange
from django_natskv.management.terminal.verb import Call, Verb


class Get(Verb):
    """Show the entry of a key."""

    name = "get"
    help = (
        "Show a key's newest entry, or one of its earlier revisions. With --revision what deleted or purged the key is "
        "shown too. A value that the codec cannot read is shown as text or, if it is none, in base64."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "config banner",
        "config banner --revision 12 --format json",
        "images logo.png --raw > logo.png",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key and which part of it to show."""
        add_bucket_and_key(parser)
        parser.add_argument("--revision", metavar="N", help="this revision of the key, not the newest")
        parser.add_argument("--raw", action="store_true", help="only the value: its bytes as they are stored")
        add_codec(parser)

    def run(self, call: Call) -> Result | None:
        """Show it."""
        name, key = names_of(call)
        revision = revision_of(call.options["revision"], "--revision")
        raw = call.options["raw"]
        if raw and call.options["codec"] is not None:
            raise UsageError("--raw contradicts --codec: give one of them.")
        if raw and call.options["format"] == "json":
            raise UsageError("--raw contradicts --format json: give one of them.")
        bucket = open_bucket(call, name, Reader(BytesCodec() if raw else codec_of(call)))
        entry = bucket.get(key, revision=revision)
        if entry is None:
            raise absent(name, key, revision)
        if raw:
            call.write_bytes(_data(entry))
            return None
        if entry.value is not None and entry.value.is_strange:
            note_strange(call, key, entry.revision)
        return OneEntry(entry)


def _data(entry: Entry) -> bytes:
    if entry.value is None:
        raise CommandError(f"Revision {entry.revision} of {entry.key!r} is a {entry.operation}: it has no value.")
    data: bytes = entry.value.data
    return data
