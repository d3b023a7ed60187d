"""``natskv_bucket update``. Owns the words of it; knows nothing of the options of a configuration."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv import BucketConfig
from django_natskv.management.bucket import config, show
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call, Verb


class Update(Verb):
    """Change a bucket's configuration."""

    name = "update"
    help = (
        "Change a bucket. Options that are not given stay as they are. The server refuses what cannot be changed in "
        "place: the storage, and whether the bucket is a mirror. The status is shown."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "flags --history 20",
        'flags --ttl none --description ""',
        "flags --metadata team=shop",
        "flags --no-republish --no-placement",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name and the configuration."""
        add_name(parser)
        config.add_arguments(parser, changes=True)

    def run(self, call: Call) -> Result:
        """Change it."""
        name = name_of(call)
        changes = config.read(call.options, lambda: call.kv().bucket_status(name))
        if not changes:
            raise UsageError("There is nothing to change: give at least one option of the configuration.")
        wanted = BucketConfig.parse({"bucket": name, **changes})
        status = call.kv().update_bucket(wanted)
        call.say(f"Changed the bucket {name!r}.")
        return show.record(status)
