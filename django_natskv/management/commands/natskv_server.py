"""``manage.py natskv_server``: parses, calls ``django_natskv.server`` and prints. Knows nothing of how it works."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, Literal

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_natskv import server
from django_natskv.conf.project import project_directory
from django_natskv.exceptions import ConnectFailed
from django_natskv.management.terminal.command import strict_parser

EXAMPLES = """\
examples:
  manage.py natskv_server                  run it here, until Ctrl-C
  manage.py natskv_server --port 4222      on this port, for other tools
  manage.py natskv_server --status         is it running, and where? (exit status 1: it is not)
  manage.py natskv_server --stop           end it, wherever it was started

Processes whose settings say "SERVERS": "embedded" find this server by themselves, and start one in the background
when there is none: this command is for seeing its log, and for a port that you choose.
"""


class Command(BaseCommand):
    help = (
        "Run the project's development nats-server in the foreground: JetStream, this machine only, data in .natskv "
        "of the project. Its log goes to stderr; Ctrl-C ends it, and the data stays."
    )
    # It must start for a project whose checks complain.
    requires_system_checks: list[str] | tuple[str, ...] | Literal["__all__"] = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        return strict_parser(super().create_parser(prog_name, subcommand, **kwargs), self.help, EXAMPLES)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port",
            type=_port,
            default=0,
            help="the port of 127.0.0.1 to listen on (default: that of the last run if it is free, else any)",
        )
        parser.add_argument(
            "--directory",
            type=Path,
            metavar="DIR",
            help="where the data is (default: $NATSKV_EMBEDDED_DIR, else .natskv in BASE_DIR of the settings)",
        )
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument("--status", action="store_true", help="print the URL of the running server and exit")
        instead.add_argument("--stop", action="store_true", help="end the running server and exit")

    def handle(self, *_args: str, **options: Any) -> None:
        directory = options["directory"] or server.default_directory(project_directory())
        try:
            if options["status"]:
                self._status(directory)
            elif options["stop"]:
                self._stop(directory, options["verbosity"])
            else:
                self._serve(directory, options)
        except ConnectFailed as error:
            raise CommandError(str(error)) from error

    def _status(self, directory: Path) -> None:
        found = server.running(directory)
        if found is None:
            raise CommandError(f"No embedded server runs in {directory}.")
        self._print(found)

    def _stop(self, directory: Path, verbosity: int) -> None:
        if not server.stop(directory):
            raise CommandError(f"No embedded server runs in {directory}.")
        if verbosity:
            self.stderr.write(f"Stopped. The data is kept in {directory}.", self.style.SUCCESS)

    def _serve(self, directory: Path, options: dict[str, Any]) -> None:
        def announce(found: server.EmbeddedServer) -> None:
            self._print(found)
            if options["verbosity"]:
                self.stderr.write("Ctrl-C ends it.")

        with open(os.devnull, "wb") as silence:  # noqa: PTH123 - a device, not a path of ours
            log = sys.__stderr__ if options["verbosity"] else silence
            server.serve(directory, port=options["port"], log=log or silence, announce=announce)

    def _print(self, found: server.EmbeddedServer) -> None:
        self.stdout.write(f"{found.url}  nats-server {found.version}, process {found.pid}, data in {found.directory}")
        self.stdout.flush()


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:  # noqa: PLR2004 - the highest port
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 1 to 65535")
    return int(text)
