"""``natskv_bucket create``. Owns the words of it; knows nothing of the options of a configuration."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import BucketExists
from django_natskv.kv import BucketConfig
from django_natskv.management.bucket import config, show
from django_natskv.management.bucket.named import add_name, name_of
from django_natskv.management.plan.difference import compare
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call, Verb


class Create(Verb):
    """Make a bucket."""

    name = "create"
    help = (
        "Create a bucket. Its status is shown. One that exists already with the same configuration is no error; one "
        "with another configuration is refused and left as it is."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "flags --history 8 --ttl 1d12h",
        "sessions --storage memory --max-value-size 64KiB --max-bucket-size 1GiB",
        "orders --replicas 3 --placement-tag ssd --metadata team=shop --metadata tier=1",
        "orders-copy --mirror orders@hub",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the name and the configuration."""
        add_name(parser)
        config.add_arguments(parser, changes=False)

    def run(self, call: Call) -> Result:
        """Create it."""
        name = name_of(call)
        wanted = BucketConfig.parse({"bucket": name, **config.read(call.options)})
        context = call.kv()
        try:
            context.create_bucket(wanted)
        except BucketExists as error:
            raise CommandError(f"{error} {_other(wanted, context.open_bucket(name).config)}") from error
        status = context.bucket_status(name)
        call.say(f"The bucket {name!r} is ready.")
        return show.record(status)


def _other(wanted: BucketConfig, present: BucketConfig) -> str:
    """Return in words what is otherwise; options that were not given may be, too."""
    found = [
        f"{each.option} is {show.show_option(each.option, each.old)}, not {show.show_option(each.option, each.new)}"
        for each in compare(wanted, present)
    ]
    return f"There {'; '.join(found)}." if found else "natskv_bucket status shows it."
