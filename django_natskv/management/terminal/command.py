"""A command that is made of verbs.

Owns parsing, the options that all verbs have, and the way from an error to one line and an exit status. Must not know
what any verb does.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter, OutputWrapper
from django.utils.connection import ConnectionDoesNotExist

from django_natskv.exceptions import (
    AuthInvalid,
    BucketNotFound,
    ConnectFailed,
    NatsKVError,
    NotConnected,
    OperationTimedOut,
    UsageError,
)
from django_natskv.management.terminal.output import FORMATS
from django_natskv.management.terminal.verb import DEFAULT_ALIAS, Call, Verb, discard_output

FAILED = 1  # or refused
MISTAKE = 2  # in the call: options, names, an alias that is none
NOT_FOUND = 3  # no such bucket, or key

_WIDTH = 80  # of what argparse is told to leave as it is
EXIT_STATUSES = """\
Results go to stdout, everything else to stderr. Exit status: 0 done; 1 failed,
refused, or found wanting by a check; 2 a mistake in the call; 3 no such bucket,
key, object or revision."""

# Arguments that may be any bytes: values, and names of files.
_BYTES = {"value", "file", "path", "against", "json", "pythonpath"}
_NO_TEXT = re.compile("[\ud800-\udfff]")

_STEERS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

# What argparse takes for a number, and so for no option.
_NEGATIVE = re.compile(r"-[0-9]+|-[0-9]*\.[0-9]+")


class HelpFormatter(DjangoHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples."""


class Parser(CommandParser):
    """Says what is wrong with the arguments in one line, with the exit status of a mistake.

    A last argument of any number also takes what stands behind options, as ``VALUE`` in ``KEY --ttl 1h VALUE``, which
    argparse leaves over until Python 3.13.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """See ArgumentParser.parse_known_args()."""
        namespace, left = super().parse_known_args(args, namespace)
        rest = next(
            (action for action in self._get_positional_actions() if action.nargs == argparse.ZERO_OR_MORE), None
        )
        end = left.index("--") if "--" in left else len(left)
        if rest is None or any(word.startswith("-") and not _is_argument(word) for word in left[:end]):
            return namespace, left
        setattr(namespace, rest.dest, [*getattr(namespace, rest.dest), *left[:end], *left[end + 1 :]])
        return namespace, []

    def error(self, message: str) -> NoReturn:
        """End the command, or raise ``CommandError`` where Python has called it."""
        message = f"{_one_line(message)}; see {self.prog} --help"
        if self.called_from_command_line:
            self.exit(MISTAKE, f"{self.prog}: {message}\n")
        raise CommandError(message, returncode=MISTAKE)


def _is_argument(word: str) -> bool:
    return word == "-" or _NEGATIVE.fullmatch(word) is not None


def strict_parser(common: CommandParser, description: str, epilog: str) -> Parser:
    """Return a parser with the options of ``common``, Django's own, that tells a mistake in one line."""
    return Parser(
        prog=common.prog,
        description=textwrap.fill(description, _WIDTH),
        epilog=epilog,
        parents=[common],
        add_help=False,  # the parent's is there
        formatter_class=HelpFormatter,
        called_from_command_line=common.called_from_command_line,
    )


class VerbCommand(BaseCommand):
    """The base of commands that are called as ``manage.py COMMAND VERB ...``."""

    verbs: ClassVar[Sequence[Verb]]
    using_default: ClassVar[str | None] = DEFAULT_ALIAS
    using_help: ClassVar[str] = "the connection (default: default)"
    # Buckets are managed for projects whose checks complain too; settings that cannot be used say so themselves.
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return the parser: every verb also takes the options that stand before it."""
        common = super().create_parser(prog_name, subcommand, **kwargs)
        parser = strict_parser(common, self.help, self._epilog(common.prog))
        after = super().create_parser(prog_name, subcommand, **kwargs)
        for action in after._actions:  # noqa: SLF001 - Django itself reads it, and nothing public tells the same
            # An option that is not repeated behind the verb must not undo what was said before the verb.
            action.default = argparse.SUPPRESS
            if not HelpFormatter.show_last.isdisjoint(action.option_strings):
                action.help = argparse.SUPPRESS  # Django's own: said once, before the verb
        verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
        for verb in self.verbs:
            examples = _examples(f"{common.prog} {verb.name}", verb.examples)
            verb.add_arguments(_add_verb(verbs, after, verb, epilog=f"{examples}\n\n{EXIT_STATUSES}"))
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        """Add what every verb takes, beside Django's own options."""
        parser.add_argument("--using", metavar="ALIAS", default=self.using_default, help=self.using_help)
        parser.add_argument(
            "--format",
            choices=FORMATS,
            default=FORMATS[0],
            help="a table to read (default), JSON, or plain: tab-separated, with exact numbers and no titles",
        )

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run it as Django does, without colours also where the environment says so (https://no-color.org)."""
        if os.environ.get("NO_COLOR") and not options["force_color"]:
            options["no_color"] = True
        return super().execute(*args, **options)

    def handle(self, *_args: str, **options: Any) -> None:
        """Run the verb and show what it returns."""
        verb = next(verb for verb in self.verbs if verb.name == options["verb"])
        call = Call(self, options)
        try:
            _check_texts(options)
            result = verb.run(call)
        except (NatsKVError, ImproperlyConfigured, ConnectionDoesNotExist) as error:
            raise _explained(error, call.alias) from error
        except CommandError as error:
            if _STEERS.search(str(error)) is None:
                raise
            raise CommandError(_one_line(str(error)), returncode=error.returncode) from error
        for line in result.lines(options["format"], call.heading) if result else ():
            call.write(line)
        call.flush()

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as ``manage.py`` does; an interruption and a closed pipe are no reason for a traceback either."""
        self._stand_in_for_what_is_closed()
        try:
            super().run_from_argv(argv)
        except SystemExit:
            try:
                sys.stdout.flush()
            except OSError:  # told already
                discard_output(sys.stdout)
            raise
        except KeyboardInterrupt:
            if "--traceback" in argv:
                raise
            self.stderr.write("Interrupted. What was asked for may have been done, or not.")
            sys.exit(FAILED)
        except BrokenPipeError:
            discard_output(sys.stdout)
            sys.exit(FAILED)
        except OSError as error:  # of the result that is written, mostly: a disk is full
            if "--traceback" in argv:
                raise
            discard_output(sys.stdout)
            self.stderr.write(f"CommandError: Reading or writing has failed: {error}.")
            sys.exit(FAILED)

    def _stand_in_for_what_is_closed(self) -> None:
        """Have a stderr, and a stdout to write to; a result that nobody can get is not made."""
        if sys.stderr is None:
            self.stderr = OutputWrapper(io.StringIO())
        if sys.stdout is None:
            self.stderr.write("CommandError: There is no stdout to write the result to.")
            sys.exit(FAILED)

    def _epilog(self, prog: str) -> str:
        firsts = tuple(f"{verb.name} {verb.examples[0]}" for verb in self.verbs)
        more = f"{prog} VERB --help tells more. The options above may follow the verb too."
        return f"{_examples(prog, firsts)}\n\n{more}\n\n{EXIT_STATUSES}"


def _check_texts(options: Mapping[str, Any]) -> None:
    """Refuse an argument that is no text: a server would keep something else of it."""
    given = [(name, text) for name, value in options.items() for text in (value if type(value) is list else [value])]
    for name, text in given:
        if isinstance(text, str) and name not in _BYTES and _NO_TEXT.search(text):
            raise UsageError(f"{text!r} is not UTF-8.")


def _add_verb(verbs: Any, parent: CommandParser, verb: Verb, *, epilog: str) -> CommandParser:
    parser: CommandParser = verbs.add_parser(
        verb.name,
        parents=[parent],
        add_help=False,
        formatter_class=HelpFormatter,
        help=verb.help.partition(". ")[0].rstrip("."),
        description=textwrap.fill(verb.help, _WIDTH),
        epilog=epilog,
    )
    return parser


def _examples(prog: str, examples: Sequence[str]) -> str:
    return "\n".join(["examples:", *(f"  {prog} {example}".rstrip() for example in examples)])


def _explained(error: Exception, alias: str) -> CommandError:
    """Return the error to end with: one line, what to do about it, and an exit status."""
    if isinstance(error, BucketNotFound):
        status = NOT_FOUND
    elif isinstance(error, UsageError | ConnectionDoesNotExist):
        status = MISTAKE
    else:
        status = FAILED
    message = " ".join(str(error).split("\n"))  # settings that cannot be used have a line for each mistake
    return CommandError(_one_line(message) + _advice(error, alias), returncode=status)


def _advice(error: Exception, alias: str) -> str:
    where = f'NATSKV["{alias}"] in the settings'
    if isinstance(error, AuthInvalid):
        return f" Check the credentials of {where}."
    if isinstance(error, ConnectFailed | NotConnected):
        return f" Is the server up? Check SERVERS of {where}."
    if isinstance(error, OperationTimedOut):
        return f" REQUEST_TIMEOUT of {where} is how long to wait."
    return ""


def _one_line(text: str) -> str:
    """Return a message without what breaks a line or steers a terminal: names of files may hold anything."""
    return _STEERS.sub(lambda found: repr(found[0])[1:-1], text)
