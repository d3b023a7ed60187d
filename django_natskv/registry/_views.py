"""What one context of execution sees instead of the newest: pinned moments and overrides.

Owns the context variable of both, and the overrides that hold in the whole process. Knows nothing of how objects are
read where there is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(slots=True)
class Pin:
    """The entries of each bucket as they were when it was first read under this pin."""

    entries: dict[Any, Mapping[str, Any]] = field(default_factory=dict)
    made: dict[Any, Any] = field(default_factory=dict)  # (class, key) -> (entry, snapshot)
    flags: dict[Any, Any] = field(default_factory=dict)  # flag -> what it says, compiled

    def forget(self, place: Any) -> None:
        """Read a bucket anew: this context has written to it."""
        self.entries.pop(place, None)
        # Replaced, not emptied: who is just looking a flag up puts what was found into the one that nobody has now.
        self.flags = {}


@dataclass(frozen=True, slots=True)
class View:
    """What a context sees: a pin, if there is one, and fields by class, the innermost last.

    ``outer`` is what it saw before the last of them.
    """

    pin: Pin | None = None
    overrides: tuple[tuple[Any, Mapping[str, Any]], ...] = ()
    outer: View | None = None
    made: dict[Any, tuple[Any, Any, Any]] = field(default_factory=dict)  # class -> base, overrides, snapshot


view: ContextVar[View | None] = ContextVar("natskv_view", default=None)
everywhere: list[tuple[Any, Mapping[str, Any]]] = []
_made: dict[Any, tuple[Any, Any, Any]] = {}


def current_pin() -> Pin | None:
    """Return the pin of this context."""
    found = view.get()
    return None if found is None else found.pin


def pinned() -> View:
    """Return the view of this context with a pin: the one that it has, else a new one."""
    found = view.get() or View()
    return found if found.pin is not None else replace(found, pin=Pin(), made={})


def unpinned(pin: Pin | None) -> View | None:
    """Return the view of this context without ``pin``, if it has it: as with overrides, it may be another context."""
    found = view.get()
    if found is None or found.pin is not pin:
        return found
    return replace(found, pin=None, outer=None, made={}) if found.overrides else None


def overridden(cls: Any, fields: Mapping[str, Any]) -> View:
    """Return the view of this context with further fields of ``cls``."""
    outer = view.get()
    found = outer or View()
    return replace(found, overrides=(*found.overrides, (cls, fields)), outer=outer, made={})


def without(fields: Mapping[str, Any]) -> View | None:
    """Return the view of this context without the innermost override by these very ``fields``.

    A generator may have begun it in another context, which is gone: then this one does not have it.
    """
    found = view.get()
    if found is None or not any(given is fields for _, given in found.overrides):
        return found
    place = max(place for place, (_, given) in enumerate(found.overrides) if given is fields)
    left = found.overrides[:place] + found.overrides[place + 1 :]
    if not left and found.pin is None:
        return None
    outer = found.outer
    if outer is not None and outer.pin is found.pin and outer.overrides == left:
        return outer  # with the objects that were made for it
    return replace(found, overrides=left, outer=None, made={})


def overrides() -> tuple[tuple[Any, Mapping[str, Any]], ...]:
    """Return the overrides that hold here, by owner, the innermost last."""
    found = view.get()
    return (*everywhere, *(found.overrides if found is not None else ()))


def seen(owner: Any, base: Any, fields: tuple[Mapping[str, Any], ...], make: Any) -> Any:
    """Return ``base``, an object of ``owner``, with ``fields`` over it; one object as long as both are the same."""
    if not fields:
        return base
    found = view.get()
    made = found.made if found is not None else _made
    known = made.get(owner)
    if known is not None and known[0] is base and known[1] == fields:
        return known[2]
    snapshot = make(base, {name: value for given in fields for name, value in given.items()})
    made[owner] = (base, fields, snapshot)
    return snapshot


def overrides_everywhere(of: Any) -> bool:
    """Tell whether an override of a class, of a scope of it, or of a flag holds in the whole process."""
    return any(owner is of or getattr(owner, "model", None) is of for owner, _ in everywhere)
