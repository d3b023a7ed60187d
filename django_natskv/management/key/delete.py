"""``natskv_key delete``. Owns the words of it; knows nothing of how keys are deleted."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv import Change
from django_natskv.kv.codecs import BytesCodec
from django_natskv.management.key.named import (
    absent,
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
from django_natskv.management.terminal.verb import Call, Verb


class Delete(Verb):
    """Delete a key."""

    name = "delete"
    help = (
        "Delete a key. Where the bucket keeps a history of more than one revision, the earlier ones stay readable, and "
        "natskv_key revert brings one back. The revision of the deletion is shown."
    )
    examples: ClassVar[tuple[str, ...]] = ("config banner", "config banner --revision 12", "locks old --marker-ttl 1h")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key and the guard."""
        add_bucket_and_key(parser)
        add_guard(parser)
        add_ttl(parser, "--marker-ttl", "how long it is remembered that the key was deleted")

    def run(self, call: Call) -> Result:
        """Delete it."""
        name, key = names_of(call)
        revision = revision_of(call.options["revision"], "--revision")
        marker_ttl_ms = ttl_of(call, "--marker-ttl")
        bucket = open_bucket(call, name, BytesCodec())
        if bucket.get(key) is None:
            raise absent(name, key)
        change = Change.delete(key, revision=revision, marker_ttl_ms=marker_ttl_ms)
        return carry_out(call, bucket, change, "Deleted")
