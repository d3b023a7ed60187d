"""``natskv_key keys``. Owns the words of it; knows nothing of how a list looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv.codecs import BytesCodec
from django_natskv.kv.names import check_patterns
from django_natskv.management.key.named import add_bucket, name_of, open_bucket
from django_natskv.management.terminal.entries import Entries
from django_natskv.management.terminal.output import Names, Result
from django_natskv.management.terminal.reading import Reader, add_codec, codec_of, note_strange
from django_natskv.management.terminal.verb import Call, Verb


class Keys(Verb):
    """List the keys."""

    name = "keys"
    help = (
        "List the live keys of a bucket, sorted. All of them, or those that match a FILTER: * stands for one word "
        "between dots, a last > for one or more. Quote it, so that the shell does not read it. With --values also what "
        "stands there, at which revision and since when."
    )
    examples: ClassVar[tuple[str, ...]] = ("config", "config 'shop.>' 'user.*.name'", "config --values")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the bucket and the filters."""
        add_bucket(parser)
        parser.usage = "%(prog)s [options] BUCKET [FILTER ...]"
        parser.add_argument(
            "filter", nargs="*", default=[], metavar="FILTER", help="a key pattern; several mean any of them"
        )
        parser.add_argument("--values", action="store_true", help="the newest entry of each key, not only the key")
        add_codec(parser)

    def run(self, call: Call) -> Result:
        """List them."""
        name = name_of(call)
        given = call.options["filter"]
        patterns = check_patterns(given) if given else None
        found, result = (_values if call.options["values"] else _names)(call, name, patterns)
        if not found:
            call.say(f"There are no live keys {'that match ' if given else ''}in bucket {name!r}.")
        return result


def _names(call: Call, name: str, patterns: Sequence[str] | None) -> tuple[int, Result]:
    found = sorted(open_bucket(call, name, BytesCodec()).keys(patterns))
    return len(found), Names(found)


def _values(call: Call, name: str, patterns: Sequence[str] | None) -> tuple[int, Result]:
    # A key that is written meanwhile may come again: the last entry of it holds, which may be a marker.
    newest = {entry.key: entry for entry in open_bucket(call, name, Reader(codec_of(call))).entries(patterns)}
    found = [entry for _, entry in sorted(newest.items()) if entry.value is not None]
    strange = next((entry for entry in found if entry.value.is_strange), None)
    if strange is not None:
        note_strange(call, strange.key, strange.revision)
    return len(found), Entries(found, keyed=True)
