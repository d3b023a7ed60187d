"""Look-ups in memory mean what they mean in a database: the same ones are asked of sqlite."""

from __future__ import annotations

import pytest
from django.core.exceptions import FieldError
from django.db.models import F, Q

from django_natskv.registry._lookups import condition
from tests.registry_classes import Carrier

CARRIERS = [
    Carrier(code="dhl", name="DHL Express", price=5),
    Carrier(code="ups", name="ups", price=None, active=False),
    Carrier(code="fedex", name="FedEx", price=12, options={"air": True}),
    Carrier(code="gls", name="", price=5),
]


def found(*given, **fields):
    met = condition(Carrier, given, fields)
    return [one.code for one in CARRIERS if met(one)]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"code": "ups"}, ["ups"]),
        ({"pk": "ups"}, ["ups"]),
        ({"pk__in": ["ups", "gls"]}, ["ups", "gls"]),
        ({"name__exact": "ups"}, ["ups"]),
        ({"name__iexact": "UPS"}, ["ups"]),
        ({"name__contains": "E"}, ["dhl", "fedex"]),
        ({"name__icontains": "EX"}, ["dhl", "fedex"]),
        ({"name__startswith": "DHL"}, ["dhl"]),
        ({"name__istartswith": "fed"}, ["fedex"]),
        ({"name__endswith": "s"}, ["dhl", "ups"]),
        ({"name__iendswith": "X"}, ["fedex"]),
        ({"name__regex": "^[a-z]+$"}, ["ups"]),
        ({"name__iregex": "^[a-z]+$"}, ["ups", "fedex"]),
        ({"price": "5"}, ["dhl", "gls"]),
        ({"price": None}, ["ups"]),
        ({"price__isnull": True}, ["ups"]),
        ({"price__isnull": False}, ["dhl", "fedex", "gls"]),
        ({"price__gt": 5}, ["fedex"]),
        ({"price__gte": 5}, ["dhl", "fedex", "gls"]),
        ({"price__lt": 12}, ["dhl", "gls"]),
        ({"price__lte": 12}, ["dhl", "fedex", "gls"]),
        ({"price__range": (1, 5)}, ["dhl", "gls"]),
        ({"price__in": []}, []),
        ({"active": False, "price__isnull": True}, ["ups"]),
        ({"active": False, "price": 5}, []),
        ({"options__contains": "air"}, ["fedex"]),
        ({}, ["dhl", "ups", "fedex", "gls"]),
    ],
)
def test_a_lookup_means_what_django_means(asked, expected):
    assert found(**asked) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Q(price=5) | Q(active=False), ["dhl", "ups", "gls"]),
        (Q(price=5) & Q(name=""), ["gls"]),
        (~Q(price=5), ["ups", "fedex"]),
        (~(Q(price=5) | Q(active=False)), ["fedex"]),
        (Q(price=5) ^ Q(name=""), ["dhl"]),
        (Q(), ["dhl", "ups", "fedex", "gls"]),
        (Q(active=True) & ~Q(price__gt=5), ["dhl", "gls"]),
    ],
)
def test_conditions_go_together_as_in_django(asked, expected):
    assert found(asked) == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"nothing": 1},
        {"name__sounds_like": "x"},
        {"name__length__gt": 1},
        {"active__year": 1},
        {"price__in": 5},
        {"price__in": "55"},
    ],
)
def test_what_is_not_known_is_refused(asked):
    with pytest.raises(FieldError):
        condition(Carrier, (), asked)


def test_what_only_a_database_could_say_is_refused():
    with pytest.raises(FieldError):
        condition(Carrier, (Q(F("price")),), {})
