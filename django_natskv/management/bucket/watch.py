"""``natskv_bucket watch``. Owns the words of it; knows nothing of how a watch is followed."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv.names import check_patterns
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.terminal.follow import ENDS, add_watch_options, follow
from django_natskv.management.terminal.verb import Call, Verb


class Watch(Verb):
    """Show changes as they come."""

    name = "watch"
    help = f"Show every entry of a bucket, and then each change, a line each. {ENDS}"
    examples: ClassVar[tuple[str, ...]] = ("flags", "flags --keys 'shop.>' --keys new-checkout --updates --format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name and how to watch it."""
        add_name(parser)
        parser.add_argument(
            "--keys", metavar="PATTERN", action="append", help="only keys that match, as 'shop.>' does; repeatable"
        )
        add_watch_options(parser)

    def run(self, call: Call) -> None:
        """Show them."""
        name = name_of(call)
        keys = call.options["keys"]
        follow(call, name, None if keys is None else check_patterns(keys))
