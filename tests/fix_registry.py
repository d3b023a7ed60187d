"""The registry on the shared server: its bucket as it is stored, made for one test.

Owns that the bucket begins absent; knows nothing of configs and models.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from django_natskv import connections, kv, signals
from django_natskv.exceptions import BucketNotFound
from tests.fix_waiting import eventually
from tests.registry_classes import BUCKET


class Shelf:
    """The bucket of the registry, as another program sees it."""

    def __init__(self) -> None:
        self.connection: kv.Connection = connections["default"]

    @property
    def bucket(self) -> kv.Bucket:
        """The bucket itself; ``BucketNotFound`` before the first write."""
        return self.connection.kv().open_bucket(BUCKET, codec="bytes")

    @property
    def exists(self) -> bool:
        """Whether something has made it."""
        return BUCKET in self.connection.kv().bucket_names()

    def make(self, **config: Any) -> None:
        """Make it, as somebody else."""
        self.connection.kv().create_bucket({"history": 20, **config, "bucket": BUCKET})

    def put(self, key: str, value: Any, **headers: str) -> int:
        """Write JSON, or bytes as they are; the process's own copy hears of it as of anybody's."""
        if not self.exists:
            self.make()
        return self.bucket.put(key, value if isinstance(value, bytes) else json.dumps(value).encode(), headers=headers)

    def read(self, key: str) -> Any:
        """Return the JSON that is stored, or None."""
        entry = self.bucket.get(key)
        return None if entry is None else json.loads(entry.value)

    def drop(self) -> None:
        """Delete the bucket."""
        with contextlib.suppress(BucketNotFound):
            self.connection.kv().delete_bucket(BUCKET)


def all_is_told() -> None:
    """Wait until what happened in the tests before is told: their connections are closed, their signals may wait."""
    eventually(lambda: signals.dispatcher.waiting() == 0, message="all signals are sent")


@pytest.fixture
def shelf(natskv: Mapping[str, Any]) -> Iterator[Shelf]:
    """The registry's bucket on the shared server, absent to begin with; nothing that was there before is told now."""
    found = Shelf()
    found.drop()
    all_is_told()
    yield found
    found.drop()


@pytest.fixture(params=["plain", "awaited"])
def do(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Call an operation on each face: ``do(cfg.save, ...)``, or its a-twin."""
    if request.param == "plain":
        yield lambda method, *arguments, **options: method(*arguments, **options)
        return
    with asyncio.Runner() as runner:

        def awaited(method: Any, *arguments: Any, **options: Any) -> Any:
            return runner.run(getattr(method.__self__, f"a{method.__name__}")(*arguments, **options))

        yield awaited


def set_to(**values: Any) -> Any:
    """Return a function that sets attributes, for an update."""

    def change(instance: Any) -> None:
        for name, value in values.items():
            setattr(instance, name, value)

    return change
