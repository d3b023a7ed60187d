"""``natskv_key keys``. Owns the words of it; knows nothing of how a list looks."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv.codecs import BytesCodec
from django_natskv.kv.names import check_patterns
from django_natskv.management.key.named import add_bucket, name_of, open_bucket
from django_natskv.management.terminal.output import Names, Result
from django_natskv.management.terminal.verb import Call, Verb


class Keys(Verb):
    """List the keys."""

    name = "keys"
    help = (
        "List the live keys of a bucket, sorted. All of them, or those that match a FILTER: * stands for one word "
        "between dots, a last > for one or more. Quote it, so that the shell does not read it."
    )
    examples: ClassVar[tuple[str, ...]] = ("config", "config 'shop.>' 'user.*.name'")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the bucket and the filters."""
        add_bucket(parser)
        parser.usage = "%(prog)s [options] BUCKET [FILTER ...]"
        parser.add_argument("filter", nargs="*", metavar="FILTER", help="a key pattern; several mean any of them")

    def run(self, call: Call) -> Result:
        """List them."""
        name = name_of(call)
        given = call.options["filter"]
        patterns = check_patterns(given) if given else None
        found = sorted(open_bucket(call, name, BytesCodec()).keys(patterns))
        if not found:
            call.say(f"There are no live keys {'that match ' if given else ''}in bucket {name!r}.")
        return Names(found)
