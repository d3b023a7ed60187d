"""The bucket, the key and the revision as arguments.

Owns that they are checked before anything is sent. Must not know which verb they are for.
"""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import InvalidTTL, UsageError
from django_natskv.kv import Bucket
from django_natskv.kv.changes import check_revision, check_ttl
from django_natskv.kv.codecs import Codec
from django_natskv.kv.names import check_key, check_name
from django_natskv.management.terminal.command import NOT_FOUND
from django_natskv.management.terminal.units import parse_duration, parse_number
from django_natskv.management.terminal.verb import Call


def add_bucket(parser: CommandParser) -> None:
    """Add the argument BUCKET."""
    parser.add_argument("bucket", metavar="BUCKET", help="the bucket: letters, digits, - and _")


def add_bucket_and_key(parser: CommandParser) -> None:
    """Add the arguments BUCKET and KEY."""
    add_bucket(parser)
    parser.add_argument("key", metavar="KEY", help="the key: letters, digits and - _ / = in words joined by dots")


def add_guard(parser: CommandParser) -> None:
    """Add the revision that a write requires its key to be at."""
    parser.add_argument("--revision", metavar="N", help="only if this is still the newest revision of the key")


def add_ttl(parser: CommandParser, option: str, text: str) -> None:
    """Add a time to live."""
    parser.add_argument(option, metavar="DURATION", help=f"{text}: 90s, 1h30m, 7d; at least 1s")


def name_of(call: Call) -> str:
    """Return BUCKET; ``InvalidName`` when it cannot be one."""
    return check_name(call.options["bucket"])


def names_of(call: Call) -> tuple[str, str]:
    """Return BUCKET and KEY; ``InvalidName``, ``InvalidKey``."""
    return name_of(call), check_key(call.options["key"])


def revision_of(given: Any, source: str) -> int | None:
    """Return the revision that ``given`` says, None for None; ``UsageError`` that names ``source``."""
    if given is None:
        return None
    try:
        return check_revision(parse_number(str(given)))
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def ttl_of(call: Call, option: str = "--ttl") -> int | None:
    """Return the milliseconds of a time to live, None for none; ``UsageError`` that names the option."""
    given = call.options[option.strip("-").replace("-", "_")]
    if given is None:
        return None
    try:
        milliseconds = parse_duration(str(given)) or None
        check_ttl(milliseconds)
    except InvalidTTL:
        raise UsageError(f"{option}: {given!r} is not from 1s to a century.") from None
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error
    return milliseconds


def open_bucket(call: Call, name: str, codec: Codec) -> Bucket:
    """Return the handle of a bucket; ``BucketNotFound``."""
    return call.kv().open_bucket(name, codec=codec)


def absent(bucket: str, key: str, revision: int | None = None) -> CommandError:
    """Return the error for a key that is absent, or has no such revision."""
    if revision is None:
        message = f"There is no key {key!r} in bucket {bucket!r}."
    else:
        message = f"The key {key!r} in bucket {bucket!r} has no revision {revision}, or it is no longer kept."
    return CommandError(message, returncode=NOT_FOUND)
