"""The Django application: what happens when Django starts.

Owns the registration of the system checks and of who declares buckets. Must not connect, nor read settings, at start.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class NatsKVConfig(AppConfig):
    """``"django_natskv"`` in ``INSTALLED_APPS``."""

    name = "django_natskv"
    verbose_name = "NATS key-value"  # type: ignore[mutable-override]  # the base class would take a lazy string too

    def ready(self) -> None:
        """Register the system checks, and who declares buckets.

        Nothing connects: ``migrate`` and ``check`` work with NATS down.
        """
        # Imported here, because checks may come to need models, which are not loaded when this module is.
        from django_natskv import declarations  # noqa: PLC0415
        from django_natskv.cache.declaring import declarations as of_caches  # noqa: PLC0415
        from django_natskv.checks import TAG, check_caches, check_settings  # noqa: PLC0415

        register(check_settings, TAG)
        register(check_caches, TAG)
        declarations.register(of_caches)
