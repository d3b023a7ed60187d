"""The name of a bucket as an argument. Owns that it is checked before anything is sent; knows no verb."""

from __future__ import annotations

from django.core.management.base import CommandParser

from django_natskv.kv.names import check_name
from django_natskv.management.terminal.verb import Call


def add_name(parser: CommandParser) -> None:
    """Add the argument."""
    parser.add_argument("name", metavar="NAME", help="the bucket: letters, digits, - and _")


def name_of(call: Call) -> str:
    """Return the name that was given; ``InvalidName`` when it cannot be one."""
    return check_name(call.options["name"])
