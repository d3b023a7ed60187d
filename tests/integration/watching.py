"""What the tests of watches share: a handler that remembers, and what it was told added up."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv.runner import Operation, Runner


class Told:
    """A handler that remembers its entries, as (key, value or operation), and adds them up."""

    def __init__(self) -> None:
        self.entries: list[kv.Entry] = []
        self.held: dict[str, tuple[Any, int]] = {}

    def __call__(self, entry: kv.Entry) -> None:
        if entry.operation == "put":
            self.held[entry.key] = (entry.value, entry.revision)
        else:
            self.held.pop(entry.key, None)
        self.entries.append(entry)

    @property
    def brief(self) -> list[tuple[str, Any]]:
        return [(one.key, one.value if one.operation == "put" else one.operation.value) for one in list(self.entries)]

    @property
    def values(self) -> dict[str, Any]:
        return {key: value for key, (value, _) in dict(self.held).items()}


def held(bucket: Any) -> dict[str, tuple[Any, int]]:
    """Return what is in a bucket, as ``Told.held``."""
    return {key: (entry.value, entry.revision) for key, entry in bucket.get_many(bucket.keys()).items()}


def ready(watch: kv.Watch, timeout: float = 10) -> None:
    watch.initialized.result(timeout)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("natskv-watch-")]


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what watches logged that is not mere information."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "django_natskv.watch" and record.levelno >= logging.WARNING
    ]


def ask(connection: kv.Connection, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server's API what the facade does not offer: purges by filter, consumers and their deletion."""
    operation: Operation[dict[str, Any]] = Wire(connection._requests).ask(verb, body, "testing")
    return Runner(connection._requests.driver, 5.0).call(operation)


def purge(connection: kv.Connection, bucket: str, pattern: str) -> None:
    """Purge by filter, which leaves no marker and of which nobody is told (F15)."""
    ask(connection, f"STREAM.PURGE.KV_{bucket}", {"filter": f"$KV.{bucket}.{pattern}"})


class Stopwatch:
    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
