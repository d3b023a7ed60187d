"""The bucket of orders: how to get at it on both faces, what is kept in it, and how an entry is shown.

Anybody may write anything under any key, by the page of orders or by another program: what is no order is shown too.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django_natskv import connections
from django_natskv.exceptions import BucketNotFound, OperationalError
from django_natskv.kv import Bucket, Entry
from example_project.shop.basket import MOST, Basket
from example_project.shop.config import Carrier

logger = logging.getLogger(__name__)

BUCKET = "orders"  # made by: manage.py natskv_bucket create orders --history 8


class Unreadable(str):
    """What an entry holds that is not JSON, as text."""

    __slots__ = ()


class OrderCodec:
    """JSON. What is none is ``Unreadable``, and no error: one such entry would close the page of all the others."""

    def encode(self, value: Any) -> bytes:
        return json.dumps(value, allow_nan=False).encode()

    def decode(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return Unreadable(data.decode(errors="backslashreplace"))


def open_orders() -> Bucket:
    return connections["default"].kv().open_bucket(BUCKET, codec=OrderCodec())


async def aopen_orders() -> Bucket:
    context = await connections["default"].akv()
    return await context.aopen_bucket(BUCKET, codec=OrderCodec())


def new_key() -> str:
    """Return a key that sorts by time, and that nobody guesses who has ordered at the same second."""
    return f"order.{datetime.now(UTC):%y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def order_of(basket: Basket, name: str, carrier: Carrier | None) -> dict[str, Any]:
    """Return what is kept of an order."""
    return {
        "items": basket.counts,
        "name": name,
        "carrier": carrier.code if carrier is not None else "",
        "total": str(basket.total + basket.shipping(carrier)),
        "state": "new",
    }


def sold(code: str) -> int | None:
    """Return how many of a product were ever ordered; None if nobody can tell. Reads every order: to be cached."""
    try:
        bucket = open_orders()
        entries = bucket.get_many(bucket.keys("order.*"))
    except BucketNotFound:
        return 0
    except OperationalError as error:
        logger.warning("Nothing that was ordered is counted. %s", error)
        return None
    return sum(_count(entry.value, code) for entry in entries.values())


def _count(order: Any, code: str) -> int:
    items = order.get("items") if isinstance(order, dict) else None
    count = items.get(code) if isinstance(items, dict) else None
    return count if type(count) is int and 0 < count <= MOST else 0


def newest_first(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """Return what the page shows of each entry, the last change on top."""
    return [shown(entry) for entry in sorted(entries, key=lambda entry: entry.revision, reverse=True)]


def shown(entry: Entry) -> dict[str, Any]:
    """Return what the page shows of an entry, in the first rendering and in each update alike."""
    return {
        "key": entry.key,
        "value": as_text(entry.value),
        "revision": entry.revision,
        "created": entry.created.isoformat(timespec="milliseconds"),
        "operation": entry.operation,
    }


def as_text(value: Any) -> str:
    """Return the JSON of a value."""
    try:
        return value if isinstance(value, Unreadable) else _printable(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        return "It is nested too deeply to be shown."


def text_in(order: Any, field: str) -> str:
    """Return a text of an order; "" when there is none."""
    found = order.get(field) if isinstance(order, dict) else None
    return _printable(found) if isinstance(found, str) else ""


def _printable(text: str) -> str:
    # Half a character, which JSON may hold and a page may not, stays escaped.
    return text.encode(errors="backslashreplace").decode()
