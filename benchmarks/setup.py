"""Django's settings for a benchmark.

Owns them. Knows nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import django
from django.conf import settings


def configure(nats: str, redis: Mapping[str, str]) -> None:
    """Give Django its settings: a connection, and a Redis cache for each storage."""
    if settings.configured:
        return
    backend = "django.core.cache.backends.redis.RedisCache"
    caches = {storage: {"BACKEND": backend, "LOCATION": url} for storage, url in redis.items()}
    default = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    settings.configure(
        INSTALLED_APPS=["django_natskv"],
        CACHES={"default": default, **caches},
        NATSKV={"default": {"SERVERS": [nats], "NAME": "benchmark", "REQUEST_TIMEOUT": 10.0}},
        USE_TZ=True,
    )
    django.setup()
