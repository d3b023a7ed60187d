"""The buckets that ``settings.CACHES`` declares, for ``natskv_bucket``.

Owns which caches are on which connection, and which of them have a local cache. Knows nothing of other declarations,
nor of the server.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings

from django_natskv.cache.options import BACKEND, parse
from django_natskv.conf import at
from django_natskv.declarations import Declaration
from django_natskv.kv import BucketConfig


def declarations(alias: str) -> Iterator[Declaration]:
    """Yield the bucket of each cache that is on the connection ``alias``; ``ImproperlyConfigured``.

    A cache with a server of its own in LOCATION is on no alias.
    """
    for name, params in settings.CACHES.items():
        if params.get("BACKEND") == BACKEND:
            where = at("CACHES", name)
            options = parse(params.get("LOCATION"), params, where)
            if not options.url and options.connection == alias:
                yield Declaration(BucketConfig.parse(options.config), where, options.local_cache)
