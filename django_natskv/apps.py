"""The Django application: what happens when Django starts.

Owns the registration of the system checks and of who declares buckets, and finding what applications declare. Must not
connect, nor read settings, at start.
"""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.utils.module_loading import autodiscover_modules


class NatsKVConfig(AppConfig):
    """``"django_natskv"`` in ``INSTALLED_APPS``."""

    name = "django_natskv"
    verbose_name = "NATS key-value"  # type: ignore[mutable-override]  # the base class would take a lazy string too

    def ready(self) -> None:
        """Register the system checks and who declares buckets, and import every application's ``config`` module.

        Nothing connects: ``migrate`` and ``check`` work with NATS down.
        """
        # Imported here, because the registry needs Django's models, which are not loaded when this module is.
        from django_natskv import declarations  # noqa: PLC0415
        from django_natskv.cache.declaring import declarations as of_caches  # noqa: PLC0415
        from django_natskv.checks import (  # noqa: PLC0415
            TAG,
            check_caches,
            check_declarations,
            check_flags,
            check_registry,
            check_settings,
        )
        from django_natskv.registry.buckets import declarations as of_the_registry  # noqa: PLC0415

        for check in (check_settings, check_caches, check_registry, check_flags, check_declarations):
            register(check, TAG)
        for provider in (of_caches, of_the_registry):
            declarations.register(provider)
        autodiscover_modules("config")
