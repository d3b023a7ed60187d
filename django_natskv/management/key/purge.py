"""``natskv_key purge``. Owns the words of it; knows nothing of how consent is asked for."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.kv import Change, Operation
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
from django_natskv.management.terminal.verb import Call, Verb, add_no_input


class Purge(Verb):
    """Erase a key with its history."""

    name = "purge"
    help = (
        "Erase a key and every revision of it. A key that was deleted already can be purged as long as earlier "
        "revisions of it are kept. It asks first, and cannot be undone. The revision of the marker is shown."
    )
    examples: ClassVar[tuple[str, ...]] = ("config banner", "config banner --revision 12 --no-input")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key, the guard and the way round the question."""
        add_bucket_and_key(parser)
        add_guard(parser)
        add_ttl(parser, "--marker-ttl", "how long it is remembered that the key was purged")
        add_no_input(parser)

    def run(self, call: Call) -> Result:
        """Erase it."""
        name, key = names_of(call)
        revision = revision_of(call.options["revision"], "--revision")
        marker_ttl_ms = ttl_of(call, "--marker-ttl")
        bucket = open_bucket(call, name, BytesCodec())
        kept = sum(entry.operation is Operation.PUT for entry in bucket.history(key))
        if not kept:
            raise absent(name, key)
        values = "the value" if kept == 1 else f"all {kept} kept values"
        call.confirm(lambda: f"Erase {values} of the key {key!r} in bucket {name!r}?")
        change = Change.purge(key, revision=revision, marker_ttl_ms=marker_ttl_ms)
        return carry_out(call, bucket, change, "Purged")
