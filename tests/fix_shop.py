"""The example project on the shared server: its settings, and what it declares, for one test.

Owns that nothing of it is left for other tests, which have classes of the same names. Knows nothing of its pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from django_natskv import connections
from django_natskv.exceptions import BucketNotFound
from django_natskv.kv import Bucket
from django_natskv.registry import _declaring
from example_project import settings as example

_lists = (_declaring.declared, _declaring.flag_sets)
_before = [list(found) for found in _lists]
_others = _declaring.apps.all_models.pop("shop", None)
from example_project.shop import config, events, orders  # noqa: E402
from example_project.shop.config import Carrier, Features, ShopConfig  # noqa: E402

__all__ = ["Carrier", "Features", "ShopConfig", "bucket", "declared", "orders", "shop"]

_declaring.apps.all_models.pop("shop")
if _others is not None:
    _declaring.apps.all_models["shop"] = _others
_OURS = [
    [found for found in now if found.__module__ == config.__name__]
    for now in _lists
]  # fmt: skip
for _now, _old in zip(_lists, _before, strict=True):
    _now[:] = _old

SETTINGS = (
    "INSTALLED_APPS",
    "MIDDLEWARE",
    "ROOT_URLCONF",
    "TEMPLATES",
    "STATIC_URL",
    "SESSION_ENGINE",
    "SESSION_CACHE_ALIAS",
)


@pytest.fixture
def declared() -> Iterator[None]:
    """What the example declares is declared, and nothing else is."""
    before = [list(found) for found in _lists]
    for found, ours in zip(_lists, _OURS, strict=True):
        found[:] = ours
    yield
    for found, others in zip(_lists, before, strict=True):
        found[:] = others


@pytest.fixture
def shop(
    natskv: Any, settings: Any, declared: None, monkeypatch: pytest.MonkeyPatch, bucket_name: str
) -> Iterator[None]:
    """The example project on the shared server, the bucket of its orders not made yet."""
    for name in SETTINGS:
        setattr(settings, name, getattr(example, name))
    # A copy that takes a busy machine long is waited for, or a page would show what is declared.
    settings.NATSKV = {"default": {**natskv, "LOCAL_CACHE": {"WAIT": 20.0}}}
    cache = {"BACKEND": "django_natskv.cache.NatsKVCache", "LOCATION": f"{bucket_name}-cache"}
    pages = {**cache, "KEY_PREFIX": "pages", "OPTIONS": example.CACHES["default"]["OPTIONS"]}
    settings.CACHES = {"default": pages, "sessions": {**cache, "KEY_PREFIX": "sessions"}}
    monkeypatch.setattr(orders, "BUCKET", bucket_name)
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    yield
    context = connections["default"].kv()
    for name in (f"{bucket_name}-cache", "config", "flags"):
        with suppress(BucketNotFound):
            context.delete_bucket(name)


@pytest.fixture
def bucket(shop: None, bucket_name: str) -> Iterator[Bucket]:
    """The bucket of the example's orders."""
    context = connections["default"].kv()
    yield context.create_bucket({"bucket": bucket_name, "history": 8, "storage": "memory"})
    context.delete_bucket(bucket_name)
