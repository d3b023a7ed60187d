"""``natskv_key revert``. Owns the words of it; knows nothing of how entries are written."""

from __future__ import annotations

from typing import ClassVar

from django.core.management.base import CommandError, CommandParser

from django_natskv.kv import Change, Operation
from django_natskv.kv.codecs import BytesCodec
from django_natskv.management.key.named import absent, add_bucket_and_key, names_of, open_bucket, revision_of
from django_natskv.management.key.writing import carry_out
from django_natskv.management.terminal.entries import ACTOR, COMMENT, Written
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call, Verb


class Revert(Verb):
    """Write an earlier value of a key again."""

    name = "revert"
    help = (
        "Write the value that a key had at REVISION again, as a new revision. A key that somebody else writes at the "
        "same time is left as it is, with exit status 1; one that was deleted comes back. The new revision is shown; "
        "the same one if the key is at it already. natskv_key history shows the revisions that are kept."
    )
    examples: ClassVar[tuple[str, ...]] = ("config banner 12",)

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the key and the revision."""
        add_bucket_and_key(parser)
        # Not "revision", which call_command() would take for the option of another verb.
        parser.add_argument("to_revision", metavar="REVISION", help="the revision whose value is to be written again")

    def run(self, call: Call) -> Result:
        """Write it."""
        name, key = names_of(call)
        revision = revision_of(call.options["to_revision"], "REVISION") or 0
        bucket = open_bucket(call, name, BytesCodec())
        # What is there now is read first: whatever is written from here on makes the write fail.
        now = bucket.get(key)
        wanted = bucket.get(key, revision=revision)
        if wanted is None:
            raise absent(name, key, revision)
        if wanted.operation is not Operation.PUT:
            raise CommandError(f"Revision {revision} of {key!r} in bucket {name!r} is a {wanted.operation}: no value.")
        if now is not None and now.revision == revision:
            call.say(f"The key {key!r} in bucket {name!r} is at revision {revision} already.")
            return Written(name, key, revision)
        # Who wrote the value then, and why, is not who writes it now.
        headers = {header: text for header, text in wanted.headers.items() if header not in (ACTOR, COMMENT)}
        if now is None:
            change = Change.create(key, wanted.value, headers=headers)
        else:
            change = Change.update(key, wanted.value, now.revision, headers=headers)
        return carry_out(call, bucket, change, f"Reverted to revision {revision}:")
