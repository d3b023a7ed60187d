"""Follow the orders from a process of its own, as a worker would."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_natskv.exceptions import NatsKVError
from django_natskv.kv import Entry
from example_project.shop import orders


class Command(BaseCommand):
    help = "Print each change of the orders as a line of JSON, with the time (ns) at which this process was told of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--keys", metavar="PATTERN", help="only these keys, for instance 'order.>'")
        parser.add_argument("--seconds", type=float, help="end after that time; goes on until Ctrl-C otherwise")

    def handle(self, *, keys: str | None, seconds: float | None, **_: Any) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            try:
                watch = orders.open_orders().watch(self.show, deliver="updates", keys=keys)
            except NatsKVError as error:
                raise CommandError(str(error)) from error
            self.print_line({"watching": keys or ">"})
            threading.Event().wait(seconds)
            watch.stop()

    def show(self, entry: Entry) -> None:
        told = time.time_ns()
        self.print_line(
            {
                "told": told,
                "key": entry.key,
                "operation": entry.operation,
                "revision": entry.revision,
                "value": entry.value,
            }
        )

    def print_line(self, line: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(line))
        self.stdout.flush()
