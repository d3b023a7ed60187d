"""What tells a declared bucket from the one that there is.

Pure functions over two configurations. Knows nothing of servers or the terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django_natskv.kv import BucketConfig

UNLIMITED = -1
_FIXED = ("storage", "mirror")  # what the server never changes in place (F16)


class Action(StrEnum):
    """What has to be done with a bucket."""

    CREATE = "create"
    CHANGE = "change"
    UNCHANGED = "unchanged"
    UNDECLARED = "undeclared"


@dataclass(frozen=True, slots=True)
class Difference:
    """One option: as it is, and as it is declared. ``old`` is None for a bucket that is not there."""

    option: str
    old: Any
    new: Any
    in_place: bool = True
    loses_data: bool = False


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """One bucket: what has to be done, and who declares it."""

    bucket: str
    action: Action
    differences: tuple[Difference, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def in_place(self) -> bool:
        """Whether the server can do it without making the bucket anew."""
        return all(difference.in_place for difference in self.differences)

    @property
    def loses_data(self) -> bool:
        """Whether entries may be lost by it."""
        return any(difference.loses_data for difference in self.differences)


def compare(declared: BucketConfig, present: BucketConfig) -> tuple[Difference, ...]:
    """Return what is declared and is otherwise. What is not declared may be as it is."""
    found = []
    for option, value in declared.given().items():
        old, new = _normal(option, getattr(present, option)), _normal(option, value)
        if old != new:
            loses = _LOSES.get(option)
            found.append(
                Difference(option, old, new, in_place=option not in _FIXED, loses_data=bool(loses and loses(old, new)))
            )
    return tuple(found)


def made_anew(declared: BucketConfig) -> tuple[Difference, ...]:
    """Return what is declared of a bucket that is not there yet."""
    given = declared.given()
    return tuple(Difference(option, None, _normal(option, given[option])) for option in given if option != "bucket")


def _normal(option: str, value: Any) -> Any:
    """Return the one way to say ``value``: what is left out and what is empty are the same to the server."""
    if option == "description":
        return value or None
    if option == "placement":
        return {name: part for name, part in (value or {}).items() if part} or None
    if option == "republish" and value is not None:
        return {"source": ">", "headers_only": False, **value} if value else None
    if isinstance(value, Mapping):
        return dict(value)
    return value


def _fewer(old: int, new: int) -> bool:
    return new < old


def _shorter(old: int, new: int) -> bool:
    return new != 0 and (old == 0 or new < old)


def _smaller(old: int, new: int) -> bool:
    return new != UNLIMITED and (old == UNLIMITED or new < old)


def _drops_oldest(_old: str, new: str) -> bool:
    return new == "old"


_LOSES: dict[str, Callable[[Any, Any], bool]] = {
    "history": _fewer,
    "ttl_ms": _shorter,
    "max_value_size": _smaller,
    "max_bucket_size": _smaller,
    "discard": _drops_oldest,
}
