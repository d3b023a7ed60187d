"""Gathering: the saves and deletes of a block that are to be carried out together.

Owns what is gathered, and the context variable that says so. Knows nothing of how it is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django_natskv.exceptions import UsageError
from django_natskv.kv import Change, Operation as Done
from django_natskv.registry._steps import Step


@dataclass(frozen=True, slots=True)
class Gathered:
    """One save or delete: of whose object, what is written, and what to do with the revision."""

    owner: Any
    target: Any
    change: Change
    took: tuple[Callable[[int], None], ...]


@dataclass(slots=True)
class Gathering:
    """What is gathered in one block."""

    place: Any = None
    makes: bool = True  # every class lets its first write make the bucket
    found: dict[str, Gathered] = field(default_factory=dict)
    afterwards: list[tuple[Any, Step]] = field(default_factory=list)  # each with whose object it is about
    broken: bool = False  # a block inside it failed
    over: bool = False

    def add(self, place: Any, gathered: Gathered) -> None:
        """Take one more; ``UsageError`` when it cannot go together with the others."""
        key = gathered.change.key
        if self.over:
            message = f"The registry.atomic() block that {key!r} would belong to is over."
            raise UsageError(message)
        if self.place not in (None, place):
            message = (
                f"One registry.atomic() block writes to one bucket: {key!r} is in {place.bucket!r}, and it began with "
                f"{self.place.bucket!r}."
            )
            raise UsageError(message)
        known = self.found.get(key)
        if known is not None and known.owner is not gathered.owner:
            message = (
                f"{key!r} is changed twice in one registry.atomic() block, by two objects that do not know of each "
                "other: change the first one."
            )
            raise UsageError(message)
        self.place = place
        self.makes = self.makes and type(gathered.owner)._declaration.create
        self.found[key] = gathered

    def owned(self, key: str, owner: Any) -> Gathered | None:
        """Return what was gathered of ``owner`` at ``key``."""
        known = self.found.get(key)
        return known if known is not None and known.owner is owner else None

    def forget(self, key: str, owner: Any) -> bool:
        """Take back what was gathered of ``owner`` at ``key``, and what was to follow; tell whether there was any."""
        if self.owned(key, owner) is None:
            return False
        del self.found[key]
        self.afterwards = [each for each in self.afterwards if each[0] is not owner]
        return True

    def saved(self, key: str) -> Any:
        """Return the object that is to be saved at ``key``, or None."""
        known = self.found.get(key)
        return known.target if known is not None and known.change.operation is Done.PUT else None


current: ContextVar[Gathering | None] = ContextVar("natskv_gathering", default=None)
