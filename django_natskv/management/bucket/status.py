"""``natskv_bucket status``. Owns the words of it; knows nothing of how a status looks."""

from __future__ import annotations

from typing import ClassVar

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandParser

from django_natskv.declarations import declared_readers
from django_natskv.management.bucket import show
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call, Verb


class Status(Verb):
    """Show one bucket."""

    name = "status"
    help = (
        "Show a bucket. Its configuration as the server applied it, its live entries and its size, when it was made "
        "and last written, in a cluster its leader and replicas, and which caches and classes of this project read it "
        "from a local cache."
    )
    examples: ClassVar[tuple[str, ...]] = ("flags", "flags --format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name."""
        add_name(parser)

    def run(self, call: Call) -> Result:
        """Show it."""
        name = name_of(call)
        context = call.kv()
        status, health = context.bucket_status(name), context.bucket_health(name)
        return show.record_with_health(status, health, _readers(call, name))


def _readers(call: Call, name: str) -> dict[str, str]:
    """Return who reads the bucket from a local cache; nobody, and a warning, where the settings do not tell."""
    try:
        return declared_readers(call.alias, name)
    except ImproperlyConfigured as error:
        call.warn(f"Which local caches read the bucket cannot be told: {' '.join(str(error).split())}")
        return {}
