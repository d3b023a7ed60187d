"""``natskv_key update``. Owns the words of it; knows nothing of how a value is read."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv import Change
from django_natskv.kv.codecs import BytesCodec
from django_natskv.management.key.named import (
    add_bucket_and_key,
    add_guard,
    add_ttl,
    names_of,
    open_bucket,
    revision_of,
    ttl_of,
)
from django_natskv.management.key.writing import carry_out
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.values import add_value, bytes_of, split_value
from django_natskv.management.terminal.verb import Call, Verb


class Update(Verb):
    """Write a key that is still at a revision."""

    name = "update"
    help = (
        "Write a key only if REVISION is still its newest. One that has moved on is left as it is, with exit status 1. "
        "REVISION is the last argument, or --revision. The new revision is shown."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "config banner '\"Sale\"' 12",
        "config limits --file limits.json --revision 12",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key, the value and the revision."""
        add_bucket_and_key(parser)
        add_value(parser, " REVISION")
        add_guard(parser)
        add_ttl(parser, "--ttl", "how long the entry lives")

    def run(self, call: Call) -> Result:
        """Write it."""
        name, key = names_of(call)
        ttl_ms = ttl_of(call)
        value, after = split_value(call, 1)
        given = call.options["revision"]
        if after and given is not None:
            raise UsageError("--revision contradicts REVISION: give one of them.")
        revision = revision_of(after[0], "REVISION") if after else revision_of(given, "--revision")
        if revision is None:
            raise UsageError("REVISION is missing: the newest revision that you know of the key, behind VALUE.")
        data = bytes_of(call, value)
        bucket = open_bucket(call, name, BytesCodec())
        return carry_out(call, bucket, Change.update(key, data, revision, ttl_ms=ttl_ms), "Updated")
