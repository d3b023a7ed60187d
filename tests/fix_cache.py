"""Caches for the tests: on real servers, on each face, each in a bucket of its own.

Owns their buckets' end; knows nothing of what a cache promises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from django_natskv.cache import NatsKVCache
from django_natskv.connections import connections
from django_natskv.exceptions import OperationalError
from tests.fix_facade import Face, Faced

PROGRAM = """
from django_natskv.cache import NatsKVCache
settings.SECRET_KEY = "tests-only"
settings.SECRET_KEY_FALLBACKS = []
cache = NatsKVCache(os.environ["TEST_BUCKET"], json.loads(os.environ.get("TEST_PARAMS", "{}")))
"""  # what a program of a test begins with


class MakeCache(Protocol):
    """What the fixture ``make_cache`` gives."""

    def __call__(self, bucket: str | None = ..., **params: Any) -> Any: ...


@pytest.fixture
def make_cache(natskv: Any, face: Face, bucket_name: str) -> Iterator[MakeCache]:
    """Make caches on each face, of one bucket unless told otherwise; options in capitals, params as Django has them."""
    made = {bucket_name}

    def make(bucket: str | None = None, **params: Any) -> Any:
        outer = {"KEY_PREFIX", "KEY_FUNCTION", "VERSION", "TIMEOUT"}
        options = {name: value for name, value in params.items() if name not in outer}
        rest = {name: value for name, value in params.items() if name in outer}
        made.add(bucket or bucket_name)
        return Faced(NatsKVCache(bucket or bucket_name, {**rest, "OPTIONS": options}), face)

    yield make
    context = connections["default"].kv()
    for name in made:
        try:
            context.delete_bucket(name)
        except OperationalError:
            continue


@pytest.fixture
def cache(make_cache: MakeCache) -> Any:
    """A cache with the default options, on each face."""
    return make_cache()


@pytest.fixture
def stored(natskv: Any, bucket_name: str) -> Any:
    """Open the bucket of the test's caches: what is there, as other NATS clients see it."""
    return lambda: connections["default"].kv().open_bucket(bucket_name, codec="bytes")
