"""What the tests of watches share: a handler that remembers, and what it was told added up."""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import Any

import pytest

from django_natskv import kv
from django_natskv.exceptions import OperationalError, WrongRevision
from django_natskv.kv._nats import flow
from django_natskv.kv._nats.verbs import Wire
from django_natskv.kv.runner import Operation, Runner
from tests.fix_waiting import eventually


class Told:
    """A handler that remembers its entries, as (key, value or operation), and adds them up.

    Whoever reads waits for an entry that is just being taken: what was seen of it in one way is there in the others.
    """

    def __init__(self) -> None:
        self._entries: list[kv.Entry] = []
        self._held: dict[str, tuple[Any, int]] = {}
        self._taking = threading.Lock()

    def __call__(self, entry: kv.Entry) -> None:
        with self._taking:
            if entry.operation == "put":
                self._held[entry.key] = (entry.value, entry.revision)
            else:
                self._held.pop(entry.key, None)
            self._entries.append(entry)

    @property
    def entries(self) -> list[kv.Entry]:
        with self._taking:
            return self._entries

    @property
    def held(self) -> dict[str, tuple[Any, int]]:
        with self._taking:
            return self._held

    @property
    def brief(self) -> list[tuple[str, Any]]:
        return [(one.key, one.value if one.operation == "put" else one.operation.value) for one in list(self.entries)]

    @property
    def values(self) -> dict[str, Any]:
        return {key: value for key, (value, _) in dict(self.held).items()}


def held(bucket: Any) -> dict[str, tuple[Any, int]]:
    """Return what is in a bucket, as ``Told.held``."""
    return {key: (entry.value, entry.revision) for key, entry in bucket.get_many(bucket.keys()).items()}


def ready(watch: kv.Watch, timeout: float = 30) -> None:
    watch.initialized.result(timeout)


def update_once(bucket: kv.Bucket, key: str, value: Any, revision: int) -> None:
    """Update until it is acknowledged, while nobody else writes: a write in doubt is not repeated over itself."""

    def written() -> bool:
        try:
            bucket.update(key, value, revision)
        except WrongRevision:  # the one before, of which no answer came, was applied
            return True
        except OperationalError:
            return False
        return True

    eventually(written, 30, f"{key} is written")


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no watch take a server that the machine holds up for a second or two for one that has fallen silent."""
    monkeypatch.setattr(flow, "SILENCE", 60.0)


def threads(bucket: kv.Bucket) -> list[str]:
    """Return the threads of the watches on ``bucket``: those of other tests may be on their way out."""
    return [thread.name for thread in threading.enumerate() if thread.name == f"natskv-watch-{bucket.name}"]


def complaints(caplog: pytest.LogCaptureFixture, bucket: kv.Bucket | None = None) -> list[str]:
    """Return what watches (on ``bucket``: those of other tests may be on their way out) logged beyond information."""
    return [
        message
        for record in caplog.records
        if record.name == "django_natskv.watch" and record.levelno >= logging.WARNING
        for message in [record.getMessage()]
        if bucket is None or re.search(rf"\b{re.escape(bucket.name)}\b", message)
    ]


def ask(connection: kv.Connection, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server's API what the facade does not offer: purges by filter, consumers and their deletion."""
    operation: Operation[dict[str, Any]] = Wire(connection._requests).ask(verb, body, "testing")
    return Runner(connection._requests.driver, 30.0).call(operation)


def purge(connection: kv.Connection, bucket: str, pattern: str) -> None:
    """Purge by filter, which leaves no marker and of which nobody is told (F15)."""
    ask(connection, f"STREAM.PURGE.KV_{bucket}", {"filter": f"$KV.{bucket}.{pattern}"})


class Stopwatch:
    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun
