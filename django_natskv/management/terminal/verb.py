"""A verb of a command, and what it is called with.

Owns the seam between verbs and the terminal. Must not know how arguments are parsed nor how errors end.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_natskv import connections
from django_natskv.exceptions import UsageError
from django_natskv.kv import Connection, KVContext
from django_natskv.management.terminal.output import Result

DEFAULT_ALIAS = "default"


class Verb(ABC):
    """One verb of a command, such as ``create``: its arguments, its help and what it does."""

    name: ClassVar[str]
    help: ClassVar[str]
    examples: ClassVar[tuple[str, ...]]  # what follows the command's name

    def add_arguments(self, parser: CommandParser) -> None:  # noqa: B027 - a verb may have no more than all have
        """Add the arguments of this verb alone; those that every verb has are there already."""

    @abstractmethod
    def run(self, call: Call) -> Result | None:
        """Do it, and return what is to be shown, if anything is."""


def add_no_input(parser: CommandParser) -> None:
    """Add what a verb needs that calls ``Call.confirm()``."""
    parser.add_argument(
        "--no-input", "--noinput", action="store_false", dest="interactive", help="do not ask, go ahead"
    )


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Tell of a stdout that takes no more, as on a full disk, or not this; a reader who has left is another matter."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"The result cannot be written to stdout: {error.strerror or error}.") from error
    except UnicodeEncodeError as error:
        character = ascii(error.object[error.start])
        text = f"stdout is {error.encoding}, which has no {character}: set PYTHONIOENCODING=utf-8."
        raise CommandError(text) from error


def discard_output(stdout: Any) -> None:
    """Lead ``stdout``, which takes nothing more, nowhere: Python flushes it once more at exit, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout.fileno())
    os.close(nowhere)


class Call:
    """One call of a verb: its options, the connection that it is for, and the person at the terminal."""

    def __init__(self, command: BaseCommand, options: Mapping[str, Any]) -> None:
        self.options = options
        self.alias: str = options["using"] or DEFAULT_ALIAS  # a verb that finds out another says so here
        self._command = command

    @property
    def connection(self) -> Connection:
        """The connection that ``--using`` names."""
        return connections[self.alias]

    def kv(self) -> KVContext:
        """Return the KV context of the connection that ``--using`` names."""
        return self.connection.kv()

    def say(self, text: str) -> None:
        """Tell the person what has happened, on stderr; nothing with ``--verbosity 0``."""
        self._talk(text, self._command.style.SUCCESS)

    def warn(self, text: str) -> None:
        """Tell the person what is not as it should be, as ``say`` does."""
        self._talk(text, self._command.style.WARNING)

    def _talk(self, text: str, style: Callable[[str], str]) -> None:
        if self.options["verbosity"]:
            # The style is that of stdout, which need not be a terminal where stderr is one, nor the other way round.
            coloured = self._command.stderr.isatty() or self.options["force_color"]
            self._command.stderr.write(text, style if coloured else str)

    def heading(self, text: str) -> str:
        """Return ``text`` as headings look on stdout."""
        return self._command.style.MIGRATE_HEADING(text)

    def write(self, line: str) -> None:
        """Write a line of a result that comes bit by bit to stdout; ``flush()`` shows it."""
        with _written():
            self._command.stdout.write(line)

    def flush(self) -> None:
        """Show what was written."""
        with _written():
            self._command.stdout.flush()

    def discard(self) -> None:
        """Write what is still to come nowhere, after a ``BrokenPipeError``."""
        discard_output(self._command.stdout)

    def is_unread(self) -> bool:
        """Tell whether stdout is a pipe or a terminal whose other side is closed."""
        if sys.platform == "win32":
            return False
        try:
            stdout = self._command.stdout.fileno()
        except (AttributeError, OSError):  # one that only Python knows
            return False
        poll = select.poll()
        poll.register(stdout, 0)  # what is wrong is told unasked
        return bool(poll.poll(0))

    def write_bytes(self, data: bytes) -> None:
        """Write ``data`` to stdout as it is; as text to one that only Python knows, as ``call_command()`` gives."""
        binary = getattr(self._command.stdout, "buffer", None)
        if binary is None:
            self._command.stdout.write(data.decode(errors="surrogateescape"), ending="")
            return
        with _written():
            self._command.stdout.flush()
            binary.write(data)
            binary.flush()

    @staticmethod
    def read_stdin() -> bytes:
        """Return all of stdin; ``UsageError`` when it is closed."""
        if sys.stdin is None:
            raise UsageError("There is no stdin to read a value from.")
        return sys.stdin.buffer.read()

    def confirm(self, question: Callable[[], str]) -> None:
        """Go on only after a yes to ``question()``, or with ``--no-input``; else raise ``CommandError``."""
        if not self.options["interactive"]:
            return
        # A question that nobody can see, or answer, is no consent.
        if not (sys.stdin is not None and sys.stdin.isatty() and self._command.stderr.isatty()):
            raise CommandError("This destroys data and there is no terminal to ask on: say --no-input to go ahead.")
        # Not input(), which asks on stdout, where the result goes.
        try:
            self._command.stderr.write(f"{question()} [y/N] ", str, ending="")
            self._command.stderr.flush()
            answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if not answer.endswith("\n"):
            self._command.stderr.write("")
        if answer.strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done: the answer was not yes.")
