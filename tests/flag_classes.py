"""Flags for the tests, as a project would declare them.

Owns their declarations; knows nothing of what a test does with them.
"""

from __future__ import annotations

import datetime as dt

from django_natskv import registry
from tests.registry_classes import BUCKET


class Features(registry.FlagSet):
    new_checkout = registry.Flag(default=False, owner="payments", expires=dt.date(2999, 3, 1), public=True)
    kill_switch = registry.Flag(default=True)
    theme = registry.Variant("old", "new", default="old", description="how it looks", public=True)
    limit = registry.Variant(10, 50, default=10)
    rate = registry.Variant(0.5, 1.5, default=0.5)
    layout = registry.Variant({"small": {"columns": 1}, "large": {"columns": 3}}, default="small")

    class Meta:
        bucket = BUCKET


class Many(registry.FlagSet):
    """Twenty flags, a view's worth."""

    many_00 = registry.Flag()
    many_01 = registry.Flag()
    many_02 = registry.Flag()
    many_03 = registry.Flag()
    many_04 = registry.Flag()
    many_05 = registry.Flag()
    many_06 = registry.Flag()
    many_07 = registry.Flag()
    many_08 = registry.Flag()
    many_09 = registry.Flag()
    many_10 = registry.Flag()
    many_11 = registry.Flag()
    many_12 = registry.Flag()
    many_13 = registry.Flag()
    many_14 = registry.Flag()
    many_15 = registry.Flag()
    many_16 = registry.Flag()
    many_17 = registry.Flag()
    many_18 = registry.Flag()
    many_19 = registry.Flag()

    class Meta:
        bucket = BUCKET
