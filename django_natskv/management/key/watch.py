"""``natskv_key watch``. Owns the words of it; knows nothing of how a watch is followed."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv.names import check_patterns
from django_natskv.management.key.named import add_bucket, name_of
from django_natskv.management.terminal.follow import ENDS, add_watch_options, follow
from django_natskv.management.terminal.verb import Call, Verb


class Watch(Verb):
    """Show changes as they come."""

    name = "watch"
    help = f"Show a key's entry, and then each change of it, a line each. {ENDS}"
    examples: ClassVar[tuple[str, ...]] = ("config banner", "config 'shop.>' --updates --format json | jq .value")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the keys and how to watch them."""
        add_bucket(parser)
        parser.usage = "%(prog)s [options] BUCKET KEY [KEY ...]"
        parser.add_argument(
            "key", nargs="*", metavar="KEY", help="a key or a key pattern, such as 'user.*' and 'shop.>'"
        )
        add_watch_options(parser)

    def run(self, call: Call) -> None:
        """Show them."""
        name = name_of(call)
        keys = call.options["key"]
        if not keys:
            raise UsageError("KEY is missing: natskv_bucket watch shows the changes of all keys.")
        follow(call, name, check_patterns(keys))
