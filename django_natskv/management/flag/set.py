"""``natskv_flag set``. Owns the words of it; knows nothing of what a definition may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.flag.named import add_name, flag_of, value_of, write, written
from django_natskv.management.terminal.author import add_author, author_of
from django_natskv.management.terminal.entries import Written
from django_natskv.management.terminal.values import STDIN
from django_natskv.management.terminal.verb import Call, Verb


class Set(Verb):
    """Set a flag to a value, or to a definition."""

    name = "set"
    help = (
        "Set a flag to a value for everyone, or to a whole flagd flag definition from a file. A definition that is not "
        "valid is refused, with the path of each mistake, and nothing is written."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "theme new",
        "new_checkout --json checkout.json",
        "new_checkout --json - < checkout.json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the flag and what it is to say."""
        add_name(parser)
        parser.add_argument("value", nargs="?", metavar="VALUE", help="a variant, by its name or its value")
        parser.add_argument("--json", metavar="FILE", help="a definition in a file; - reads it from stdin")
        add_author(parser)

    def run(self, call: Call) -> Written:
        """Set it."""
        flag = flag_of(call)
        value, path = call.options["value"], call.options["json"]
        if (value is None) == (path is None):
            raise UsageError("Give a VALUE, or a definition with --json FILE: one of them.")
        if path is None:
            return write(call, flag, value_of(flag, value, "VALUE"))
        definition = _read(call, path)
        if not isinstance(definition, dict):
            raise UsageError(f"--json: a definition is an object, not {type(definition).__name__}.")
        return written(call, flag, flag.define(definition, **author_of(call)))


def _read(call: Call, path: str) -> Any:
    try:
        content = call.read_stdin() if path == STDIN else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--json: {path!r} cannot be read: {error.strerror}.") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--json: {'stdin' if path == STDIN else repr(path)} is no JSON: {error}.") from error
