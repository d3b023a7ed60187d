"""The cache as Django's tests use it: in each mode of ``LOCAL_CACHE``, on each face, under its name and under another.

Owns how one test becomes one for each of them; knows nothing of what the tests test.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import re
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, ClassVar
from unittest import mock

import pytest
from django.core.cache.backends import locmem
from django.core.cache.backends.base import BaseCache

from django_natskv.cache import NatsKVCache

MODES = (None, "mirror", "invalidate")
# What the cache does with nothing to wait for has no twin: make_key, validate_key, get_backend_timeout.
AWAITED = [name for name in vars(BaseCache) if f"a{name}" in vars(BaseCache)]

_RUN = secrets.token_hex(4)


def bucket(name: str) -> str:
    """Return the name of a bucket that no other run uses, even on the same server."""
    return f"contract-{_RUN}-{re.sub(r'[^a-zA-Z0-9]', '_', name)}"


class InPlaceOfLocMem(NatsKVCache):
    """Made wherever Django's tests, or Django itself, ask for ``LocMemCache``."""

    local_cache: ClassVar[str | None] = None

    def __init__(self, name: str, params: dict[str, Any]) -> None:
        options = {**params.get("OPTIONS", {}), "LOCAL_CACHE": self.local_cache}
        place = bucket(f"locmem-{self.local_cache}-{name}")
        super().__init__(place, {**params, "OPTIONS": options})


@contextlib.contextmanager
def in_place_of_locmem(local_cache: str | None) -> Iterator[None]:
    """Have every ``LocMemCache`` that is made in the meantime be ours, in this mode."""
    with (
        mock.patch.object(locmem, "LocMemCache", InPlaceOfLocMem),
        mock.patch.object(InPlaceOfLocMem, "local_cache", local_cache),
    ):
        yield


class InPlaceOfLocMemMixin:
    """The tests of a class that names ``LocMemCache``, or no cache at all, with ours in its place."""

    local_cache: ClassVar[str | None]

    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(in_place_of_locmem(cls.local_cache))  # type: ignore[attr-defined]
        super().setUpClass()  # type: ignore[misc]


def in_each_mode(case: type, name: str = "", without: Iterable[str] = ()) -> dict[str, type]:
    """Return, by its name, ``case`` with ours in the place of ``LocMemCache``, once for each mode.

    ``without`` names tests to leave out.
    """
    classes = {}
    for mode in MODES:
        full = f"{name or case.__name__}_{mode or 'none'}"
        made = type(full, (InPlaceOfLocMemMixin, case), {"local_cache": mode, **dict.fromkeys(without)})
        classes[full] = made if mode is None else type(full, (made,), sleepers_marked(case))
    return classes


def sleepers_marked(case: type) -> dict[str, Any]:
    """Return the tests of ``case`` that sleep, marked: once is enough where time is short."""
    return {name: _marked(test) for name in dir(case) if _sleeps(test := getattr(case, name))}


def _sleeps(test: Any) -> bool:
    return getattr(test, "__name__", "").startswith("test_") and "sleep" in inspect.unwrap(test).__code__.co_names


def _marked(test: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(test)
    def marked(self: Any) -> Any:
        return test(self)

    return pytest.mark.slow(marked)


def _awaiting(name: str, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> Callable[..., Any]:
    def method(self: NatsKVCache, *args: Any, **options: Any) -> Any:
        return run(getattr(self, f"a{name}")(*args, **options))

    return method


class OneLoop:
    """An event loop that lives in a thread of its own for as long as this process: what a web server's is."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it there and return its result."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _awaited(name: str, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> type[NatsKVCache]:
    """Return the cache with every operation awaited: one that calls its plain twin in the loop fails here."""
    return type(name, (NatsKVCache,), {method: _awaiting(method, run) for method in AWAITED})


AwaitedInNewLoops = _awaited("AwaitedInNewLoops", asyncio.run)
AwaitedInOneLoop = _awaited("AwaitedInOneLoop", OneLoop().run)
BACKENDS: Mapping[str, str] = {
    "plain": "django_natskv.cache.NatsKVCache",
    "new_loops": f"{__name__}.AwaitedInNewLoops",
    "one_loop": f"{__name__}.AwaitedInOneLoop",
}
