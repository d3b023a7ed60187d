"""A session at the interpreter, for real: each line is printed, then executed, then its result is printed.

Owns what the walk looks like. Knows nothing of what is walked through.
"""

from __future__ import annotations

import os
import pprint
import shlex
import sys
from collections.abc import Sequence
from typing import Any

WIDTH = 100
_BOLD, _FAINT, _GREEN, _RED = "1", "2", "32", "31"


class WalkFailed(Exception):  # noqa: N818 - said of the walk, not of the code
    """A step did not do what it says."""


class Transcript:
    """Talks on stdout, in colours where it is a terminal that wants them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._coloured = sys.stdout.isatty() and not plain

    def title(self, text: str) -> None:
        print(f"\n{self._in(_BOLD, text)}")

    def say(self, text: str = "") -> None:
        print(f"  {text}" if text else "")

    def good(self, text: str) -> None:
        self.say(self._in(_GREEN, text))

    def command(self, arguments: Sequence[str]) -> None:
        print("  " + self._in(_FAINT, "$ ") + shlex.join(arguments))

    def output(self, text: str) -> None:
        for line in text.splitlines():
            self.say(line)

    def run(self, source: str, *, raises: type[Exception] | None = None) -> Any:
        """Print ``source``, execute it, print its result, and return that.

        Without ``raises`` no exception is expected, with it this one: ``WalkFailed`` otherwise.
        """
        for number, line in enumerate(source.splitlines()):
            print("  " + self._in(_FAINT, "... " if number else ">>> ") + line)
        try:
            result = self._execute(source)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if raises is None or not isinstance(error, raises):
                raise WalkFailed(text) from error
            self.say(self._in(_RED, text))
            return error
        if raises is not None:
            raise WalkFailed(f"{raises.__name__} was to be raised, and was not.")
        if result is not None:
            self.output(pprint.pformat(result, width=WIDTH, sort_dicts=False))
        return result

    def check(self, condition: object, what: str) -> None:
        """Raise ``WalkFailed`` unless ``condition`` holds; ``what`` says what it is."""
        if not condition:
            raise WalkFailed(f"It does not hold that {what}.")

    def _execute(self, source: str) -> Any:
        # The lines are those of this very program: to print what is executed is the point of it.
        try:
            code = compile(source, "<walk>", "eval")
        except SyntaxError:
            exec(compile(source, "<walk>", "exec"), self.names)  # noqa: S102
            return None
        return eval(code, self.names)  # noqa: S307

    def _in(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._coloured else text
