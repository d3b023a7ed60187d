"""``natskv_bucket dump``. Owns the words of it; knows nothing of the format of a dump nor of its file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv import BucketHealth, Entry
from django_natskv.kv.names import check_patterns
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.dumps.files import STANDARD, whole_file
from django_natskv.management.dumps.lines import Header, write_entry, write_header, write_trailer
from django_natskv.management.terminal.output import Done, Result, counted
from django_natskv.management.terminal.progress import Progress
from django_natskv.management.terminal.verb import Call, Verb

_CHUNK = 2**16  # bytes that are written at once


class Dump(Verb):
    """Write a bucket's entries to a file."""

    name = "dump"
    help = (
        "Write the entries of a bucket to a file, or to stdout. JSON Lines: what was dumped, then an entry a line, "
        "then how many there were. The file appears when it is whole, readable by its owner only, in place of one that "
        "was there. What is written to the bucket meanwhile may be in it or not."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "flags flags.jsonl",
        "flags flags.jsonl --history",
        'shop --keys "price.>" --keys "tax.*" | gzip > shop.jsonl.gz',
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name, the file and what to dump."""
        add_name(parser)
        parser.add_argument("file", metavar="FILE", nargs="?", default=STANDARD, help="the file; - or none for stdout")
        parser.add_argument(
            "--history", action="store_true", help="all revisions that are kept, and the markers of deleted keys"
        )
        parser.add_argument(
            "--keys",
            metavar="PATTERN",
            action="append",
            help='only keys that match, as "user.*" or "user.>"; repeatable',
        )

    def run(self, call: Call) -> Result | None:
        """Write them."""
        name, file = name_of(call), call.options["file"]
        if call.options["keys"]:
            check_patterns(call.options["keys"])
        if file == STANDARD:
            for chunk in _chunks(self._lines(call, name)):
                call.write_bytes(chunk)
            return None
        entries = -2  # the first line and the last one
        with whole_file(file) as out:
            for line in self._lines(call, name):
                out.write(line)
                entries += 1
        call.say(f"Wrote {counted(entries, 'entry', 'entries')} of the bucket {name!r} to {file}.")
        return Done({"bucket": name, "file": file, "entries": entries})

    def _lines(self, call: Call, name: str) -> Iterator[bytes]:
        keys, history = call.options["keys"], call.options["history"]
        context = call.kv()
        bucket = context.open_bucket(name, codec="bytes")
        health = context.bucket_health(name)
        yield write_header(
            Header(name, bucket.config.given(), bucket.server_time(), health.last_revision, history, keys)
        )
        count = 0
        with Progress(call, "Reading") as progress:
            for count, entry in enumerate(bucket.entries(keys or None, history=history), 1):
                yield write_entry(entry)
                progress.update(count, _passed(entry, health))
        yield write_trailer(count)


def _passed(entry: Entry, health: BucketHealth) -> float:
    """Return how much of the bucket is behind an entry, which come in the order of revisions."""
    return (entry.revision - health.first_revision) / max(1, health.last_revision - health.first_revision)


def _chunks(lines: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for line in lines:
        held += line
        if len(held) >= _CHUNK:
            yield bytes(held)
            held.clear()
    yield bytes(held)
