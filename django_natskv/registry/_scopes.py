"""Scopes: one Config with a value for each site, tenant, or whatever else the class names.

Owns the public face of one scope, and that there is one such object a scope. Knows nothing of documents.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar
from weakref import WeakSet, WeakValueDictionary

from django_natskv.registry import _history, _views
from django_natskv.registry._history import Revision
from django_natskv.registry._layers import chain, key_in, scope_at, settled
from django_natskv.registry._objects import ConfigObjects
from django_natskv.registry._shown import Layered
from django_natskv.registry._steps import arun, run

M = TypeVar("M")
MOST_KEPT = 10_000  # scopes of a class that a process keeps ready; a further one costs making it again


class Scope(Layered, Generic[M]):
    """A Config as one site, tenant, ... has it: what ``ShopConfig.for_scope(site=3)`` gives.

    Each field reads as the scope sets it, else as the next wider scope does, else as the Config itself does.
    """

    __slots__ = ("__weakref__", "values")
    do_not_call_in_templates = True

    def __init__(self, model: type[M], values: Mapping[str, str]) -> None:
        declaration = model._declaration  # type: ignore[attr-defined]
        super().__init__(model, chain(declaration, key_in(declaration, values)))
        self.values = values

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"

    def __reduce__(self) -> Any:
        return _again, (self.model, dict(self.values))

    @property
    def current(self) -> M:
        """The snapshot: cannot be changed, and is one object until it, or what it falls back to, changes."""
        seen = self._seen
        if _views.view.get() is None and self._cache.moment is seen[0]:
            return seen[2]  # type: ignore[no-any-return]
        return self.read(self.model)  # type: ignore[no-any-return]

    @property
    def objects(self) -> ConfigObjects[M]:
        """As ``objects`` of the Config: what is saved is what the scope sets itself."""
        return ConfigObjects(self.model, key=self.key)

    def history(self) -> list[Revision[M]]:
        """Return the kept revisions of what the scope sets, oldest first, over what it falls back to now."""
        return run(_history.reading(self.model, self.key))

    async def ahistory(self) -> list[Revision[M]]:
        """See history()."""
        return await arun(_history.reading(self.model, self.key))

    def rollback(self, revision: int, *, actor: Any = None, comment: str = "") -> M:
        """Have the scope set again what it set at ``revision``, and nothing else. See Config.rollback()."""
        return run(_history.rolling_back(self.model, self.key, revision, actor, comment))  # type: ignore[no-any-return]

    async def arollback(self, revision: int, *, actor: Any = None, comment: str = "") -> M:
        """See rollback()."""
        return await arun(_history.rolling_back(self.model, self.key, revision, actor, comment))

    def as_of(self, when: datetime) -> M:
        """Return a snapshot of ``when``, what the scope fell back to then included. See Config.as_of()."""
        return run(_history.as_of(self.model, self.key, when))  # type: ignore[no-any-return]

    async def aas_of(self, when: datetime) -> M:
        """See as_of()."""
        return await arun(_history.as_of(self.model, self.key, when))


def _again(model: Any, values: dict[str, str]) -> Any:
    return model.for_scope(**values)


_all: WeakSet[Scopes] = WeakSet()


class Scopes:
    """The scopes of one class in this process."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Lock()  # for whoever makes one
        self.given: dict[Any, Scope[Any]] = {}  # as they were asked for: name, value and its class, of one name
        _all.add(self)
        self._alive: WeakValueDictionary[str, Scope[Any]] = WeakValueDictionary()

    def find(self, values: dict[str, Any]) -> Scope[Any]:
        """Return the scope of these values, the same object for the same scope; ``UsageError``."""
        if len(values) == 1:
            [(name, value)] = values.items()
            given: Any = (name, value, value.__class__)
        else:
            given = (*values.items(), *map(type, values.values()))
        try:
            found = self.given.get(given)
        except TypeError:  # not to be hashed: refused below
            found = None
        return found if found is not None else self._find(values, given)

    def at(self, key: str) -> Scope[Any]:
        """Return the scope whose own document is at ``key``, which is one."""
        return self._named(scope_at(self._model._declaration, key) or {})

    def alive(self) -> list[Scope[Any]]:
        """Return the scopes that somebody has asked for."""
        with self._lock:
            return list(self._alive.values())

    def _find(self, values: dict[str, Any], given: Any) -> Scope[Any]:
        found = self._named(settled(self._model._declaration, self._model.__name__, values))
        # An object that a scope was asked for by may be another one tomorrow: kept is only what is plain.
        plain = all(type(value) in (str, int) for value in values.values())
        with self._lock:
            self.given[given if plain else found.key] = found
            while len(self.given) > MOST_KEPT:
                del self.given[next(iter(self.given))]
        return found

    def _named(self, scope: Mapping[str, str]) -> Scope[Any]:
        key = key_in(self._model._declaration, scope)
        with self._lock:
            found = self._alive.get(key)
            if found is None:
                found = self._alive[key] = Scope(self._model, scope)
        return found

    def forked(self) -> None:
        """Take, in a forked child, a lock that no thread of the parent holds."""
        self._lock = threading.Lock()


def _forked() -> None:
    for scopes in list(_all):
        scopes.forked()


os.register_at_fork(after_in_child=_forked)
