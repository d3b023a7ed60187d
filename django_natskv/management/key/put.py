"""``natskv_key put``. Owns the words of it; knows nothing of how a value is read."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv import Change
from django_natskv.kv.codecs import BytesCodec
from django_natskv.management.key.named import add_bucket_and_key, add_ttl, names_of, open_bucket, ttl_of
from django_natskv.management.key.writing import carry_out
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.values import add_value, bytes_of, split_value
from django_natskv.management.terminal.verb import Call, Verb


class Put(Verb):
    """Write a key, whatever is there."""

    name = "put"
    help = "Write a key, whatever is there. The new revision is shown."
    examples: ClassVar[tuple[str, ...]] = (
        """config banner '"Sale"'""",
        "config banner --text Sale --ttl 7d",
        "images logo.png --raw --file logo.png",
        "config limits - < limits.json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key and the value."""
        add_bucket_and_key(parser)
        add_value(parser)
        add_ttl(parser, "--ttl", "how long the entry lives")

    def run(self, call: Call) -> Result:
        """Write it."""
        name, key = names_of(call)
        ttl_ms = ttl_of(call)
        value, _ = split_value(call)
        data = bytes_of(call, value)
        bucket = open_bucket(call, name, BytesCodec())
        return carry_out(call, bucket, Change.put(key, data, ttl_ms=ttl_ms), "Wrote")
