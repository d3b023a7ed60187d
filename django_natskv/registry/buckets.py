"""The buckets that configs, models and flags declare, for ``natskv_bucket``.

Owns which classes are on which connection. Knows nothing of other declarations, nor of the server.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured

from django_natskv import conf
from django_natskv.declarations import Declaration
from django_natskv.exceptions import UsageError
from django_natskv.kv import BucketConfig
from django_natskv.registry._declaring import declared, flag_sets
from django_natskv.registry._place import longest_history


def declarations(alias: str) -> Iterator[Declaration]:
    """Yield the bucket of each class that is on the connection ``alias``; ``ImproperlyConfigured``.

    Each says the same of it: the history of the class that wants the longest, or nothing where the settings say it.
    """
    said = conf.connection_settings(alias).buckets
    for cls in (*declared, *flag_sets):
        where = cls._declaration
        label = cls._meta.label if hasattr(cls, "_meta") else f"{cls.__module__}.{cls.__qualname__}"
        if where.connection == alias:
            history = (
                {} if "history" in said.get(where.bucket, {}) else {"history": longest_history(alias, where.bucket)}
            )
            try:
                config = BucketConfig.parse({"bucket": where.bucket, **history})
            except UsageError as error:
                message = f"{label} cannot be kept: {error}"
                raise ImproperlyConfigured(message) from error
            yield Declaration(config, label, "mirror")
