"""``natskv_key create``. Owns the words of it; knows nothing of how a value is read."""

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


class Create(Verb):
    """Write a key that is absent."""

    name = "create"
    help = (
        "Write a key only if it is absent. That is one that was never written, deleted, purged or has expired. One "
        "that is there is left as it is, with exit status 1. The new revision is shown."
    )
    examples: ClassVar[tuple[str, ...]] = (
        """config limits '{"a_day": 100}'""",
        "locks nightly --text worker-7 --ttl 1h",
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
        return carry_out(call, bucket, Change.create(key, data, ttl_ms=ttl_ms), "Created")
