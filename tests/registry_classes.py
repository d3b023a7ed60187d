"""Configs and models for the tests, as a project would declare them.

Owns their fields; knows nothing of what a test does with them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import models

from django_natskv import registry

BUCKET = "registry-tests"


class Base(registry.Config):
    """An abstract base, whose Meta is inherited."""

    class Meta:
        abstract = True
        bucket = BUCKET
        app_label = "shop"


class ShopConfig(Base):
    free_shipping_from = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal(50))
    banner = models.CharField(max_length=80, blank=True, verbose_name="the banner")
    open = models.BooleanField(default=True)
    tags = models.JSONField(default=list, blank=True)
    limit = models.IntegerField(default=10, validators=[MaxValueValidator(100)])

    class Meta(Base.Meta):
        verbose_name = "shop settings"  # type: ignore[mutable-override]
        history = 30
        fieldsets = ((None, {"fields": ("banner", "open")}),)

    def clean(self) -> None:
        if self.banner == "forbidden":
            raise ValidationError({"banner": "not this one"})


class Carrier(registry.Model):
    code = models.SlugField(primary_key=True, max_length=200)
    name = models.CharField(max_length=80, blank=True)
    active = models.BooleanField(default=True)
    price = models.IntegerField(null=True, blank=True)
    options = models.JSONField(default=dict, blank=True)

    class Meta:
        bucket = BUCKET
        app_label = "shop"
        ordering = ("name",)  # type: ignore[mutable-override]


class Zone(registry.Model):
    number = models.IntegerField(primary_key=True)
    label = models.CharField(max_length=20, blank=True)

    class Meta:
        bucket = BUCKET
        app_label = "shop"


class Limits(Base):
    """Five versions of the fields later: see upgrade()."""

    seconds = models.IntegerField(default=60)

    class Meta(Base.Meta):
        version = 2
        scopes = ("site",)

    @classmethod
    def upgrade(cls, data: dict[str, Any], from_version: int) -> dict[str, Any]:
        if from_version < 2 and "minutes" in data:
            data["seconds"] = data.pop("minutes") * 60
        return data


class SiteConfig(Base):
    """One value for everybody, and others for sites and their tenants."""

    banner = models.CharField(max_length=80, blank=True)
    limit = models.IntegerField(default=10, validators=[MaxValueValidator(100)])
    tags = models.JSONField(default=list, blank=True)

    class Meta(Base.Meta):
        scopes = ("site", "tenant")

    def clean(self) -> None:
        if self.banner == "forbidden":
            raise ValidationError({"banner": "not this one"})
