"""One change, carried out. Owns that its revision is shown; knows no verb."""

from __future__ import annotations

from django_natskv.exceptions import OperationalError
from django_natskv.kv import Bucket, Change
from django_natskv.management.terminal.entries import Written
from django_natskv.management.terminal.verb import Call


def carry_out(call: Call, bucket: Bucket, change: Change, did: str) -> Written:
    """Carry out ``change``, say what it ``did``, and return its revision, which deletes and purges have too."""
    (revision,) = bucket.write_many([change])
    if isinstance(revision, OperationalError):
        raise revision
    call.say(f"{did} the key {change.key!r} in bucket {bucket.name!r}.")
    return Written(bucket.name, change.key, revision)
