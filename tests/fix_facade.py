"""The facade for the tests: connections to real servers, and each operation on the face that the test runs on.

Owns the adapter that makes one test run on both faces; knows nothing of what an operation means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Protocol

import pytest

from django_natskv import kv
from tests.fix_servers import NatsServer
from tests.fix_waiting import PATIENCE

_END = object()


async def _next(iterator: AsyncIterator[Any]) -> Any:
    return await anext(iterator, _END)


class Face:
    """One of the two faces: calls an operation by its plain name, or awaits its twin."""

    def __init__(self, name: str, runner: asyncio.Runner) -> None:
        self.name = name
        self._runner = runner

    def __repr__(self) -> str:
        return self.name

    def wrap(self, target: Any) -> Any:
        """Return ``target`` with its operations on this face, if it has two."""
        return Faced(target, self) if isinstance(target, kv.Connection | kv.KVContext | kv.Bucket) else target

    def call(self, target: Any, name: str, *args: Any, **options: Any) -> Any:
        """Call one operation and return its result, wrapped where it has two faces itself."""
        if self.name == "plain":
            return self.wrap(getattr(target, name)(*args, **options))
        awaited = getattr(target, f"a{name}")(*args, **options)
        if isinstance(awaited, AsyncIterator):
            return self._iterate(awaited)
        return self.wrap(self._runner.run(awaited))

    def _iterate(self, iterator: AsyncIterator[Any]) -> Iterator[Any]:
        try:
            while (item := self._runner.run(_next(iterator))) is not _END:
                yield item
        finally:
            self._runner.run(iterator.aclose())  # type: ignore[attr-defined]


class Faced:
    """A connection, context or bucket of which every operation is done on one face. The object itself is ``plain``."""

    def __init__(self, target: Any, face: Face) -> None:
        self.plain = target
        self.face = face

    def __repr__(self) -> str:
        return f"<{self.face} {self.plain!r}>"

    def __getattr__(self, name: str) -> Any:
        if not hasattr(type(self.plain), f"a{name}"):
            return getattr(self.plain, name)
        return lambda *args, **options: self.face.call(self.plain, name, *args, **options)


@pytest.fixture(params=["plain", "awaited"])
def face(request: pytest.FixtureRequest) -> Iterator[Face]:
    """Each face in turn; the awaited one has one event loop for the test."""
    with asyncio.Runner() as runner:
        yield Face(request.param, runner)


class ConnectKV(Protocol):
    """What the fixture ``connect_kv`` gives."""

    def __call__(self, server: NatsServer | str | list[str] = ..., **settings: Any) -> kv.Connection: ...


_numbers = itertools.count(1)


@pytest.fixture
def connect_kv(nats_server: NatsServer) -> Iterator[ConnectKV]:
    """Make connections, to the shared server unless told otherwise, closed with the test; settings as keywords.

    What is asked of the shared server, which is there, has all the time that it may take.
    """
    made: list[kv.Connection] = []

    def make(server: NatsServer | str | list[str] = nats_server, **settings: Any) -> kv.Connection:
        given = server.url if isinstance(server, NatsServer) else server
        servers = (given,) if isinstance(given, str) else tuple(given)
        settings.setdefault("name", f"test-{next(_numbers)}")
        if server is nats_server:
            settings.setdefault("local_cache", kv.LocalCacheSettings(wait=PATIENCE))
            settings.setdefault("connect_timeout", PATIENCE)
            settings.setdefault("request_timeout", PATIENCE)
        made.append(kv.Connection(kv.ConnectionSettings(servers=servers, **settings)))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def context(face: Face, connect_kv: ConnectKV) -> Any:
    """The KV context of the shared server, on each face."""
    return face.wrap(connect_kv()).kv()


MakeBucket = Callable[..., Any]


@pytest.fixture
def make_bucket(context: Any, bucket_name: str) -> Iterator[MakeBucket]:
    """Make buckets of the test's own on the shared server, in memory unless told otherwise, deleted with the test."""
    made: list[str] = []

    def make(*, codec: Any = None, **config: Any) -> Any:
        name = f"{bucket_name}_{len(made)}" if made else bucket_name
        made.append(name)
        return context.create_bucket({"bucket": name, "storage": "memory", **config}, codec=codec)

    yield make
    names = context.plain.bucket_names()
    for name in made:
        if name in names:
            context.plain.delete_bucket(name)


@pytest.fixture
def bucket(make_bucket: MakeBucket) -> Any:
    """A bucket with a history of 8, on each face."""
    return make_bucket(history=8)


def fill(bucket: Any, keys: Sequence[str], value: Any = 0) -> None:
    """Put ``value`` under every key, quickly."""
    for start in range(0, len(keys), 1_000):
        revisions = bucket.plain.write_many([kv.Change.put(key, value) for key in keys[start : start + 1_000]])
        assert all(isinstance(revision, int) for revision in revisions)
