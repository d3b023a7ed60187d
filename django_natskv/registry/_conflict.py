"""Conflict: a save that somebody else was faster than.

Owns what the two sides changed, and how they go together. Knows nothing of how they were read.
"""

from __future__ import annotations

from typing import Any

from django_natskv.exceptions import WrongRevision
from django_natskv.registry._storing import copy_of, same, take, touched_fields, values


class Conflict(WrongRevision):
    """An object was changed, made or deleted by somebody else since it was read. Nothing was written.

    ``base`` is the object as it was read, ``mine`` as it was to be saved, ``theirs`` as it is stored now, None when it
    was deleted. ``fields`` are the names of those that both sides changed, each to something else.
    """

    type = "conflict"

    def __init__(
        self, message: str = "", *, base: Any = None, theirs: Any = None, mine: Any = None, **place: str
    ) -> None:
        super().__init__(message, **place)
        self.base = base
        self.theirs = theirs
        self.mine = mine
        self.fields = _clashing(base, theirs, mine)

    def merge(self) -> Any:
        """Return ``theirs`` with what ``mine`` changed, to be saved; raise this conflict when a field is in both."""
        if self.fields or self.theirs is None:
            raise self
        merged = copy_of(self.theirs)
        take(merged, self.mine, touched_fields(self.base, self.mine))
        return merged


def _clashing(base: Any, theirs: Any, mine: Any) -> tuple[str, ...]:
    ours = touched_fields(base, mine)
    if theirs is None:
        return ours
    wanted, found = values(mine), values(theirs)
    others = touched_fields(base, theirs)
    return tuple(name for name in ours if name in others and not same(wanted[name], found[name]))
