"""The basket: what of it is in the session, and what it comes to. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from example_project.shop.catalog import PRODUCTS, Product
from example_project.shop.config import Carrier, ShopConfig

SESSION_KEY = "basket"
MOST = 20  # of one product


@dataclass(frozen=True)
class Line:
    product: Product
    count: int

    @property
    def price(self) -> Decimal:
        return self.product.price * self.count


class Basket:
    """Counts by product code, as the session keeps them; what is not sold any more is not in it."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = {code: count for code, count in counts.items() if code in PRODUCTS}

    def put(self, code: str, count: int) -> None:
        """Have ``count`` of a product; none takes it out."""
        if count > 0:
            self.counts[code] = min(count, MOST)
        else:
            self.counts.pop(code, None)

    @property
    def lines(self) -> list[Line]:
        return [Line(PRODUCTS[code], count) for code, count in self.counts.items()]

    @property
    def total(self) -> Decimal:
        return sum((line.price for line in self.lines), Decimal(0))

    @property
    def missing(self) -> Decimal:
        """What it lacks to be sent free of charge."""
        return max(ShopConfig.current.free_shipping_from - self.total, Decimal(0))

    def shipping(self, carrier: Carrier | None) -> Decimal:
        """What it costs to send it; nothing without a carrier, who fetches it pays nobody."""
        return carrier.price if carrier is not None and self.missing else Decimal(0)


def carriers() -> Iterable[Carrier]:
    return Carrier.objects.filter(active=True)
