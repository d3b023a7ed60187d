"""What the shop can change while it runs: its settings, the carriers, and who has the new checkout.

django-natskv imports this module by itself when Django starts.
"""

from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models

from django_natskv import registry


class ShopConfig(registry.Config):
    banner = models.CharField(max_length=80, blank=True)
    free_shipping_from = models.DecimalField(
        max_digits=8, decimal_places=2, default=Decimal(50), validators=[MinValueValidator(0)]
    )


class Carrier(registry.Model):
    code = models.SlugField(primary_key=True)
    name = models.CharField(max_length=40)
    price = models.DecimalField(max_digits=6, decimal_places=2, validators=[MinValueValidator(0)])
    active = models.BooleanField(default=True)

    class Meta:
        ordering = ("price", "name")  # type: ignore[mutable-override]


class Features(registry.FlagSet):
    new_checkout = registry.Flag(default=False, owner="payments", description="one page, carriers side by side")
