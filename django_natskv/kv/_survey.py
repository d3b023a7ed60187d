"""What a session asks the server about its bucket, beside what is delivered.

Owns the questions and what was last seen. Knows nothing of what is concluded from the answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django_natskv.kv._core import Core
from django_natskv.kv._nats.config import BucketInfo
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv.names import disjoint
from django_natskv.kv.runner import Operation, Runner

T = TypeVar("T")
Looked = Callable[[BucketInfo, float], None]


class Survey:
    """Looks at a bucket, or at the part of it under ``patterns``.

    ``looked`` is told each time what was seen, and when that was asked for, on the monotonic clock.
    """

    def __init__(self, core: Core, runner: Runner, patterns: Sequence[str], looked: Looked | None) -> None:
        self.what = f"watching bucket {core.name!r}"
        self.filters = [core.prefix + pattern for pattern in disjoint(patterns)]
        self.seen: BucketInfo  # the bucket as it was when last looked at
        self.skew = timedelta()  # how far the server's clock is ahead of ours
        self.listed = 0  # keys, since somebody set it to 0
        self._core = core
        self._runner = runner
        self._looked = looked

    async def ask(self, operation: Operation[T]) -> T:
        """Return what an operation on the connection of watches gives."""
        return await self._runner.acall(operation)

    async def look(self) -> BucketInfo:
        """Return what the server says of the bucket."""
        asked = time.monotonic()
        info = self.seen = await self.ask(self._core.wire.info(self._core.name))
        if info.asked is not None:
            self.skew = info.asked - datetime.now(UTC)
        if self._looked is not None:
            self._looked(info, asked)
        return info

    async def there(self) -> set[str]:
        """Return the subjects of all keys that are in the bucket now."""
        there = await self.ask(self._core.wire.subjects_under(self.seen, self.filters, self.what))
        self.listed = len(there)
        return there

    async def present(self, subjects: list[str]) -> list[Stored]:
        """Return the newest revisions under ``subjects``, of which there are few."""
        return [stored for stored in await self.newest(subjects) if stored is not None]

    async def newest(self, subjects: list[str]) -> list[Stored | None]:
        """Return the newest revision under each of ``subjects``, of which there are few."""
        queries: list[dict[str, Any]] = [{"last_by_subj": subject} for subject in subjects]
        return await self.ask(self._core.wire.each_of_leader(self._core.name, queries, self.what))
