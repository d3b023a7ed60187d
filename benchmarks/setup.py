"""Django's settings for a benchmark.

Owns them. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import django
from django.conf import settings

OURS, MIRROR, INVALIDATE = "natskv", "natskv-mirror", "natskv-invalidate"
BUCKETS = {OURS: "cache", MIRROR: "cache-mirror", INVALIDATE: "cache-invalidate"}  # by alias
DJANGO_REDIS, MEMCACHED, LOCMEM = "django-redis", "memcached", "locmem"
WAFFLE, DJANGO_FLAGS, CONSTANCE = "waffle", "flags", "constance"  # by the names of their applications
_MANY = {"MAX_ENTRIES": 1_000_000}  # Django's own caches in a process keep 300 otherwise


def configure(nats: str, redis: Mapping[str, str], memcached: str = "") -> None:
    """Give Django its settings: a connection, a Redis cache for each storage, the caches of the suite ``cache``."""
    if settings.configured:
        return
    backend = "django.core.cache.backends.redis.RedisCache"
    caches = {storage: {"BACKEND": backend, "LOCATION": url} for storage, url in redis.items()}
    caches |= ours() | peers(redis, memcached)
    default = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", *others()],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        CACHES={"default": default, **caches},
        NATSKV={"default": {"SERVERS": [nats], "NAME": "benchmark", "REQUEST_TIMEOUT": 10.0}},
        SECRET_KEY="of the benchmarks",
        MIGRATION_MODULES={CONSTANCE: None},  # one of them asks for Redis's client, whatever the backend
        CONSTANCE_CONFIG={"BANNER": ("Sale", "the banner")},
        CONSTANCE_REDIS_CONNECTION=redis.get("memory", {}),
        USE_TZ=True,
    )
    django.setup()


def others() -> list[str]:
    """Return the applications of the suites ``flags`` and ``registry``, as far as they are installed."""
    return [application for application in (WAFFLE, DJANGO_FLAGS, CONSTANCE) if find_spec(application)]


def ours() -> dict[str, dict[str, Any]]:
    backend = "django_natskv.cache.NatsKVCache"
    modes = {OURS: None, MIRROR: "mirror", INVALIDATE: "invalidate"}
    return {
        alias: {"BACKEND": backend, "LOCATION": BUCKETS[alias], "OPTIONS": {"LOCAL_CACHE": mode}}
        for alias, mode in modes.items()
    }


def peers(redis: Mapping[str, str], memcached: str) -> dict[str, dict[str, Any]]:
    """Return the caches that ours is measured beside: without those whose server or package is missing here."""
    found: dict[str, dict[str, Any]] = {
        LOCMEM: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": _MANY}
    }
    if redis and find_spec("django_redis"):
        found[DJANGO_REDIS] = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": redis["memory"]}
    if memcached and find_spec("pymemcache"):
        found[MEMCACHED] = {"BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache", "LOCATION": memcached}
    return found
