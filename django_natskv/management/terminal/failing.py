"""A result that is shown although the command fails. Owns the order of the two; knows nothing of either."""

from __future__ import annotations

from typing import NoReturn

from django.core.management.base import CommandError

from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.verb import Call


def fail_with(call: Call, result: Result, message: str) -> NoReturn:
    """Show ``result``, then end the command with ``message`` and the exit status of a failure."""
    for line in result.lines(call.options["format"], call.heading):
        call.write(line)
    call.flush()
    raise CommandError(message)
