"""Objects: what ``ShopConfig.objects`` and ``Carrier.objects`` are.

Owns the public face of reading one object to change it, and of writing without having read. Knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from django_natskv.registry import _reading, _writing
from django_natskv.registry._lookups import find_field
from django_natskv.registry._query import Query
from django_natskv.registry._steps import Operation, arun, run
from django_natskv.registry._storing import copy_of

M = TypeVar("M")


class ObjectsAttribute:
    """The attribute ``objects`` of a class."""

    def __init__(self, kind: Callable[[Any], Any]) -> None:
        self._kind = kind

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self._kind(owner)


class ConfigObjects(Generic[M]):
    """``objects`` of a Config, of which there is one, or of one scope of it."""

    def __init__(self, cls: type[M], *, key: str | None = None, strong: bool = False) -> None:
        self.model = cls
        self._given = key
        self._strong = strong

    @property
    def _key(self) -> str:
        return _reading.key_of(self.model, self._given)

    def strong(self) -> ConfigObjects[M]:
        """Return the same, but ``get()`` asks the server, at the leader, instead of this process's memory."""
        return ConfigObjects(self.model, key=self._given, strong=True)

    def get(self) -> M:
        """Return the config as it is stored, to be changed and saved; its defaults where nothing is.

        Overrides do not show in it: what is saved must never hold them.
        """
        return run(self._get())

    async def aget(self) -> M:
        """See get()."""
        return await arun(self._get())

    def update(self, change: Callable[[M], Any], *, actor: Any = None, comment: str = "") -> M:
        """Have ``change(config)`` change what is stored now, save it and return it.

        Read anew and changed again, up to 60 times, when somebody else was faster: ``change`` must bear being called
        more than once. Then ``Conflict``. ``actor`` and ``comment`` as in ``save()``.
        """
        return run(_writing.updating(self.model, self._key, change, actor, comment))  # type: ignore[no-any-return]

    async def aupdate(self, change: Callable[[M], Any], *, actor: Any = None, comment: str = "") -> M:
        """See update()."""
        return await arun(_writing.updating(self.model, self._key, change, actor, comment))

    def _get(self) -> Operation[M]:
        read = _reading.stored_one if self._strong else _reading.shown_one
        return copy_of((yield from read(self.model, self._key)))  # type: ignore[no-any-return]


class ModelObjects(Query[M]):
    """``objects`` of a Model: all of them, and how to make and change one."""

    def create(self, *, actor: Any = None, comment: str = "", **fields: Any) -> M:
        """Make an object of ``fields``, save it and return it; ``Conflict`` when there is one with that primary key.

        ``actor`` and ``comment`` as in ``save()``.
        """
        return run(self._create(fields, actor, comment))

    async def acreate(self, *, actor: Any = None, comment: str = "", **fields: Any) -> M:
        """See create()."""
        return await arun(self._create(fields, actor, comment))

    def get_or_create(
        self, defaults: Mapping[str, Any] | None = None, *, actor: Any = None, comment: str = "", **fields: Any
    ) -> tuple[M, bool]:
        """Return the stored object with the primary key in ``fields``, and False; else a new one, saved, and True.

        A new one is made of ``fields`` and ``defaults``, whose values may be callables. One that is there is returned
        whatever its other fields are.
        """
        return run(self._get_or_create(defaults, fields, actor, comment))

    async def aget_or_create(
        self, defaults: Mapping[str, Any] | None = None, *, actor: Any = None, comment: str = "", **fields: Any
    ) -> tuple[M, bool]:
        """See get_or_create()."""
        return await arun(self._get_or_create(defaults, fields, actor, comment))

    def update(self, pk: Any, change: Callable[[M], Any], *, actor: Any = None, comment: str = "") -> M:
        """Have ``change(instance)`` change the stored object ``pk``, save it and return it; ``DoesNotExist``.

        Read anew and changed again, up to 60 times, when somebody else was faster: ``change`` must bear being called
        more than once. Then ``Conflict``. ``actor`` and ``comment`` as in ``save()``.
        """
        return run(self._update(pk, change, actor, comment))

    async def aupdate(self, pk: Any, change: Callable[[M], Any], *, actor: Any = None, comment: str = "") -> M:
        """See update()."""
        return await arun(self._update(pk, change, actor, comment))

    # --- the operations behind both faces ---

    def _update(self, pk: Any, change: Callable[[M], Any], actor: Any, comment: str) -> Operation[M]:
        key = _reading.key_of(self.model, pk)
        return (yield from _writing.updating(self.model, key, change, actor, comment))  # type: ignore[no-any-return]

    def _create(self, fields: dict[str, Any], actor: Any, comment: str) -> Operation[M]:
        instance = self.model(**fields)
        yield from _writing.saving(instance, None, actor, comment)
        return instance

    def _get_or_create(
        self, defaults: Mapping[str, Any] | None, fields: dict[str, Any], actor: Any, comment: str
    ) -> Operation[tuple[M, bool]]:
        cls: Any = self.model
        for name in (*fields, *(defaults or {})):
            find_field(cls, name)
        pk = fields.get("pk", fields.get(cls._meta.pk.name))
        if pk is None:
            message = f"get_or_create() needs the primary key, {cls._meta.pk.name!r}."
            raise TypeError(message)

        new = partial(_new, cls, fields, defaults or {})
        found: tuple[M, bool] = yield from _writing.getting_or_creating(
            cls, _reading.key_of(cls, pk), new, actor, comment
        )
        return found


def _new(cls: Any, fields: dict[str, Any], defaults: Mapping[str, Any]) -> Any:
    settled = {name: value() if callable(value) else value for name, value in defaults.items()}
    return cls(**{**fields, **settled})
