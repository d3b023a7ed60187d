"""Configs and models, to a type checker: fields are of their fields' types, and everything knows its class.

Owns what users rely on in their editors; holds no test to run.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, assert_type

from django.db import models

from django_natskv import registry
from django_natskv.testing import override_config


class Shop(registry.Config):
    banner = models.CharField(max_length=80, blank=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=Decimal(0))
    since = models.DateTimeField(null=True)

    class Meta:
        app_label = "typing"
        bucket = "typing"
        scopes = ("site",)


class Parcel(registry.Model):
    code = models.SlugField(primary_key=True)
    heavy = models.BooleanField(default=False)

    class Meta:
        app_label = "typing"


def reading() -> None:
    assert_type(Shop.current, Shop)
    assert_type(Shop.current.banner, str)
    assert_type(Shop.current.price, Decimal)
    assert_type(Shop.current.since, datetime | None)
    assert_type(Shop.current.revision, int)
    assert_type(Shop.objects.get(), Shop)
    assert_type(Shop.objects.strong().get().banner, str)
    assert_type(Parcel.objects.get(pk="a"), Parcel)
    assert_type(Parcel.objects.get(pk="a").heavy, bool)
    assert_type(Parcel.objects.filter(heavy=True), registry.Query[Parcel])
    assert_type(Parcel.objects.filter(heavy=True).strong().first(), Parcel | None)
    assert_type(list(Parcel.objects.all()), list[Parcel])
    assert_type(Parcel.objects.all()[0], Parcel)
    assert_type(Parcel.objects.all()[:2], list[Parcel])
    assert_type(Parcel.objects.in_bulk(["a"]), dict[Any, Parcel])


def scopes() -> None:
    assert_type(Shop.for_scope(site=3), registry.Scope[Shop])
    assert_type(Shop.for_scope(site=3).current, Shop)
    assert_type(Shop.for_scope(site=3).current.banner, str)
    assert_type(Shop.for_scope(site=3).objects.get(), Shop)
    assert_type(Shop.for_scope(site=3).history(), list[registry.Revision[Shop]])
    assert_type(Shop.for_scope(site=3).rollback(5), Shop)
    assert_type(Shop.current.own_fields, tuple[str, ...])
    assert_type(Shop.current.scope, dict[str, str])
    Parcel.for_scope(site=3)  # type: ignore[attr-defined]


def writing(conflict: registry.Conflict) -> None:
    assert_type(Shop.objects.update(lambda shop: setattr(shop, "banner", "x")), Shop)
    assert_type(Parcel.objects.create(code="a", actor="me"), Parcel)
    assert_type(Parcel.objects.get_or_create({"heavy": True}, code="a"), tuple[Parcel, bool])
    assert_type(Parcel.objects.update("a", lambda parcel: None), Parcel)
    Shop.current.save(update_fields=["banner"], actor="me", comment="why")
    Shop.current.since = 5  # type: ignore[assignment]
    Shop.current.sav()  # type: ignore[attr-defined]
    assert_type(conflict.fields, tuple[str, ...])


def history() -> None:
    assert_type(Shop.history(), list[registry.Revision[Shop]])
    assert_type(Shop.history()[0].value, Shop | None)
    assert_type(Shop.rollback(5), Shop)
    assert_type(Parcel.as_of("a", datetime.now(UTC)), Parcel)


async def awaited() -> None:
    assert_type(await Shop.objects.aget(), Shop)
    assert_type(await Parcel.objects.aget(pk="a"), Parcel)
    assert_type(await Parcel.objects.strong().afirst(), Parcel | None)
    assert_type([parcel async for parcel in Parcel.objects.all()], list[Parcel])
    assert_type(await Shop.arollback(5), Shop)
    await Shop.current.asave(actor="me")


@override_config(Shop, banner="x")
def decorated(number: int) -> str:
    return str(number)


assert_type(decorated(5), str)
