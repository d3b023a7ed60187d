"""What the shop sells. A real one would keep it in a database; without one, there is nothing to migrate."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Product:
    code: str
    name: str
    kind: str
    price: Decimal
    text: str
    hue: int  # of its tin, in degrees


_ALL = (
    Product("assam", "Assam Hattialli", "Black tea", Decimal("8.90"), "Malty and strong. Takes milk well.", 18),
    Product("sencha", "Sencha Uji", "Green tea", Decimal("12.50"), "Fresh as cut grass. Two minutes at 70 °C.", 140),
    Product(
        "darjeeling", "Darjeeling First Flush", "Black tea", Decimal("18.00"), "Light and flowery, from March.", 42
    ),
    Product("rooibos", "Rooibos Clanwilliam", "Herbal", Decimal("6.40"), "Round and sweet, without caffeine.", 4),
    Product("oolong", "Oolong Dong Ding", "Oolong", Decimal("16.20"), "Half fermented: butter, then stone fruit.", 190),
    Product("earlgrey", "Earl Grey", "Scented", Decimal("7.80"), "Bergamot from Calabria on Ceylon leaves.", 265),
)
PRODUCTS = {product.code: product for product in _ALL}
