"""The bucket of orders: how to get at it on both faces, and how an entry is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from django_natskv import connections
from django_natskv.kv import Bucket, Entry

BUCKET = "orders"  # made by: manage.py natskv_bucket create orders --history 8


def open_orders() -> Bucket:
    return connections["default"].kv().open_bucket(BUCKET)


async def aopen_orders() -> Bucket:
    context = await connections["default"].akv()
    return await context.aopen_bucket(BUCKET)


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
    return json.dumps(value, ensure_ascii=False)
