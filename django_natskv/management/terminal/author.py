"""Who changes something, and why: kept with the revision.

Owns the two options, and who it is where nobody says. Must not know what is changed.
"""

from __future__ import annotations

import getpass

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.terminal.verb import Call


def add_author(parser: CommandParser) -> None:
    """Add who changes something, and why."""
    parser.add_argument("--comment", metavar="TEXT", default="", help="why; kept with the revision")
    parser.add_argument(
        "--actor", metavar="NAME", help="who; kept with the revision (default: your user name on this machine)"
    )


def author_of(call: Call) -> dict[str, str]:
    """Return who changes something, and why; ``UsageError`` where nobody says who and the system does not know."""
    actor = call.options["actor"]
    if actor is None:
        try:
            actor = getpass.getuser()
        except (ImportError, KeyError, OSError):
            raise UsageError("The operating system has no name for you: say --actor NAME.") from None
    return {"actor": actor, "comment": call.options["comment"]}
