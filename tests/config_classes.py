"""What the tests of ``manage.py natskv_config`` look after; also the ``config.py`` of a project that they make."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from django_natskv import registry


class ShopConfig(registry.Config):
    free_shipping_from = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal(50))
    banner = models.CharField(max_length=10, blank=True)
    closed = models.BooleanField(default=False)
    maybe = models.BooleanField(null=True, blank=True)
    since = models.DateTimeField(null=True, blank=True)
    tags = models.JSONField(default=list, blank=True)
    size = models.IntegerField(default=1, choices=[(1, "small"), (2, "large")])

    class Meta:
        app_label = "store"
        version = 2

    @classmethod
    def upgrade(cls, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        if "title" in data:
            data["banner"] = data.pop("title")
        return data

    def clean(self) -> None:
        if self.closed and not self.banner:
            raise ValidationError({"banner": "Say why the shop is closed."})


class Carrier(registry.Model):
    code = models.SlugField(primary_key=True)
    active = models.BooleanField(default=True)
    price = models.IntegerField(null=True, blank=True)

    class Meta:
        app_label = "store"
        verbose_name = "a carrier"  # type: ignore[mutable-override]


class Far(registry.Config):
    limit = models.IntegerField(default=3)

    class Meta:
        app_label = "store"
        connection = "down"
