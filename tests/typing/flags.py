"""Flags, to a type checker: what a flag gives is of its variants' type, and a misspelt name is a mistake.

Owns what users rely on in their editors; holds no test to run.
"""

from __future__ import annotations

from typing import Any, assert_type

from django.http import HttpRequest

from django_natskv import registry
from django_natskv.registry import Details, rules as r
from django_natskv.testing import override_flag


class Features(registry.FlagSet):
    checkout = registry.Flag(owner="payments")
    theme = registry.Variant("old", "new", default="old")
    limit = registry.Variant(10, 50, default=10)
    layout = registry.Variant({"small": {"columns": 1}}, default="small")


def asking(request: HttpRequest) -> None:
    assert_type(Features.checkout.on(request), bool)
    assert_type(Features.checkout.value(key=7, plan="pro"), bool)
    assert_type(Features.theme.value(), str)
    assert_type(Features.limit.value(), int)
    assert_type(Features.layout.value(), dict[str, int])
    assert_type(Features.theme.details(request), Details)
    Features.theme.on(request)  # type: ignore[attr-defined]
    Features.thema  # type: ignore[attr-defined]  # noqa: B018


async def awaiting(request: HttpRequest) -> None:
    assert_type(await Features.checkout.aon(request), bool)
    assert_type(await Features.limit.avalue(request), int)


def changing() -> None:
    assert_type(Features.theme.set("new", when=r.percentage(25), otherwise="old"), int)
    assert_type(Features.theme.definition, dict[str, Any] | None)
    assert_type(Features.theme.reset(), None)
    Features.limit.set("new")  # type: ignore[arg-type]
    with override_flag(Features.checkout, True):
        pass
