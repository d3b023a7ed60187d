"""Config and Model: what declared classes are made of.

Owns the methods of an object and of its class. Knows nothing of how any of them is carried out.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import FrozenInstanceError
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import models, transaction

from django_natskv.exceptions import UsageError
from django_natskv.registry import _history, _reading, _writing
from django_natskv.registry._declaring import Declaration, Declared
from django_natskv.registry._history import Revision
from django_natskv.registry._layers import scope_at
from django_natskv.registry._objects import ConfigObjects, ModelObjects, ObjectsAttribute
from django_natskv.registry._scopes import Scope, Scopes
from django_natskv.registry._shown import Collection, Current
from django_natskv.registry._steps import arun, run
from django_natskv.registry._storing import ABSENT, Kept, own_fields, unstorable


class NoDatabase(models.Manager[Any]):
    """The manager that Django finds where it looks for one by itself."""

    def all(self) -> Any:
        """Return ``objects``, for shortcuts such as ``get_object_or_404`` and for generic views."""
        return self.model.objects

    def get_queryset(self) -> NoReturn:
        """Raise ``UsageError``: there is no table."""
        name = self.model.__name__
        message = f"{name} is kept in a bucket and has no table: use {name}.objects."
        raise UsageError(message)


class Stored(models.Model, metaclass=Declared):  # noqa: DJ008 - Config has one, Model the application's
    """What Config and Model have in common: a Django model without a table, kept in a bucket."""

    _declaration: ClassVar[Declaration]
    _kept: Kept = ABSENT
    do_not_call_in_templates = True  # or {{ ShopConfig.current }} would make an object to look at
    _database = NoDatabase()

    if not TYPE_CHECKING:  # a checker would compare the Meta of each subclass with it

        class Meta:
            """See Config and Model."""

            abstract = True

    def __setattr__(self, name: str, value: Any) -> None:
        _refuse_frozen(self)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _refuse_frozen(self)
        super().__delattr__(name)

    def __reduce__(self) -> Any:
        # Django would look for the class among the project's models.
        return _rebuild, (type(self), {**self.__dict__, "_state": copy.copy(self._state)})

    def save(  # type: ignore[override]
        self, *, update_fields: Iterable[str] | None = None, actor: Any = None, comment: str = ""
    ) -> None:
        """Validate (``full_clean``) and save, if what is stored is still what was read.

        ``actor``: who did it, a user for instance; ``comment``: why. Both are kept with the revision. With
        ``update_fields`` only these are saved, over whatever the others have become: a lost race is run again, up to
        60 times. The first save makes the bucket, unless Meta says ``CREATE = False``.

        Raises ``ValidationError``, ``Conflict`` when somebody else was faster, ``BucketNotFound``, ``CodecError`` when
        what is stored cannot be read at all, and ``OperationalError``. After ``OperationTimedOut`` it may have been
        saved; after the others it was not.
        """
        run(_writing.saving(self, update_fields, actor, comment))

    @classmethod
    def _begin(cls) -> None:
        """Set up what a class that was declared just now keeps in this process."""

    @classmethod
    def upgrade(cls, data: dict[str, Any], from_version: int) -> Mapping[str, Any]:  # noqa: ARG003
        """Return stored ``data`` of an earlier ``Meta.version`` in the shape of today. Override it to rename or retype.

        ``data`` is the stored JSON, a copy. Called in reading; what it returns is stored by the next save.
        """
        return data

    @property
    def revision(self) -> int:
        """The revision that this object was read at, or last saved as; 0 when nothing is stored."""
        return self._kept.revision

    @property
    def undecodable(self) -> tuple[str, ...]:
        """The names of fields whose stored values cannot be read; "$" when none of it can."""
        return tuple(self._kept.undecodable)

    def clean_fields(self, exclude: Iterable[str] | None = None) -> None:
        """Validate the fields as Django does, and that each can be stored; ``ValidationError``."""
        left_out = {*(exclude or ())}
        errors: dict[str, Any] = dict(unstorable(self, left_out))
        try:
            super().clean_fields(exclude=left_out | errors.keys())
        except ValidationError as error:
            errors = error.update_error_dict(errors)
        if errors:
            raise ValidationError(errors)

    def validate_unique(self, exclude: Iterable[str] | None = None) -> None:
        """Refuse the primary key of another object, as far as this process knows; ``ValidationError``.

        So that a form shows it. ``save()`` asks the server instead: there it is a ``Conflict``.
        """
        field, saving = self._meta.pk, _writing.validating.get() is self
        if not saving and field.name not in (exclude or ()) and run(_reading.is_taken(self)):
            raise ValidationError({field.name: self.unique_error_message(type(self), (field.name,))})

    def validate_constraints(self, exclude: Any = None) -> None:
        """Do nothing: constraints are a database's."""

    async def asave(  # type: ignore[override]
        self, *, update_fields: Iterable[str] | None = None, actor: Any = None, comment: str = ""
    ) -> None:
        """See save()."""
        await arun(_writing.saving(self, update_fields, actor, comment))

    def save_on_commit(self, *, using: str | None = None, actor: Any = None, comment: str = "") -> None:
        """Validate now, and save when the database transaction is committed; never if it is rolled back.

        ``using`` is the alias of the database. Outside of a transaction it saves at once. What ``save()`` raises then
        comes out of the commit.
        """
        self.full_clean()
        transaction.on_commit(partial(self.save, actor=actor, comment=comment), using=using)

    async def asave_on_commit(self, *, using: str | None = None, actor: Any = None, comment: str = "") -> None:
        """See save_on_commit()."""
        await sync_to_async(self.save_on_commit)(using=using, actor=actor, comment=comment)

    def delete(self, *, actor: Any = None, comment: str = "") -> tuple[int, dict[str, int]]:  # type: ignore[override]
        """Delete what is stored, if it is still what was read; a Config then reads as its defaults.

        Returns how many were deleted, as Django does. Raises ``Conflict`` and ``OperationalError``.
        """
        return run(_writing.deleting(self, actor, comment))

    async def adelete(  # type: ignore[override]
        self, *, actor: Any = None, comment: str = ""
    ) -> tuple[int, dict[str, int]]:
        """See delete()."""
        return await arun(_writing.deleting(self, actor, comment))

    def refresh(self) -> None:
        """Take the values that the server has now, whatever was changed here; ``DoesNotExist`` when they are gone."""
        run(_writing.refreshing(self))

    async def arefresh(self) -> None:
        """See refresh()."""
        await arun(_writing.refreshing(self))

    def refresh_from_db(self, *_arguments: Any, **_options: Any) -> None:
        """Do what refresh() does, by Django's name for it."""
        self.refresh()

    async def arefresh_from_db(self, *_arguments: Any, **_options: Any) -> None:
        """See refresh_from_db()."""
        await self.arefresh()


class Config(Stored):
    """One object, declared like a Django model: subclass it, with fields that all have a default.

    ``class Meta`` may say ``bucket`` ("config"), ``key`` (the label, such as "shop.ShopConfig"), ``connection``
    ("default"), ``history`` (revisions to keep, 20), ``version`` (of the fields, 1), ``CREATE`` (whether the first save
    makes the bucket, True), ``scopes`` (names by which it has further values, see ``for_scope()``) and ``fieldsets``,
    beside what Django knows.
    """

    _many = False
    _scopes: ClassVar[Scopes]

    if TYPE_CHECKING:
        current: ClassVar[Self]
        objects: ClassVar[ConfigObjects[Self]]
    else:
        objects = ObjectsAttribute(ConfigObjects)

    if not TYPE_CHECKING:  # a checker would compare the Meta of each subclass with it

        class Meta:
            """See Config."""

            abstract = True

    def __str__(self) -> str:
        scope = ", ".join(f"{name}={value}" for name, value in self.scope.items())
        return f"{self._meta.verbose_name} ({scope})" if scope else str(self._meta.verbose_name)

    @classmethod
    def _begin(cls) -> None:
        cls.current = Current()  # type: ignore[assignment]
        cls._scopes = Scopes(cls)

    @classmethod
    def for_scope(cls, **values: Any) -> Scope[Self]:
        """Return this Config as one scope has it: ``for_scope(site=3)``, by the names of ``Meta.scopes``.

        A value is a text, a number, a UUID or a saved object, which stands for its primary key; as text they are what
        names a scope. With several names, the later one in ``Meta.scopes`` wins, and both together win over each. The
        same object for the same scope. Raises ``UsageError`` for another name or an empty value.
        """
        try:  # at the price of two look-ups, for it is asked in each request
            [(name, value)] = values.items()
            return cls._scopes.given[name, value, value.__class__]
        except (KeyError, TypeError, ValueError):
            return cls._scopes.find(values)

    @property
    def scope(self) -> dict[str, str]:
        """The scope that this object is of: names and texts; empty for the one of everybody."""
        return scope_at(self._declaration, self.pk) or {}

    @property
    def own_fields(self) -> tuple[str, ...]:
        """The names of the fields that would be stored: in a scope, those that it sets itself."""
        return own_fields(self)

    def own(self, *fields: str) -> None:
        """Let a scope set these fields itself, though they read as what it falls back to; until ``inherit()``.

        Raises ``UsageError`` for what is no scope: there, what is as by default is not stored.
        """
        _writing.owning(self, fields)

    def inherit(self, *fields: str) -> None:
        """Let these fields follow what a scope falls back to again; their defaults, where this is no scope."""
        _writing.inheriting(self, fields)

    @classmethod
    def history(cls) -> list[Revision[Self]]:
        """Return the revisions that the bucket keeps, oldest first."""
        return run(_history.reading(cls, cls._declaration.key))

    @classmethod
    async def ahistory(cls) -> list[Revision[Self]]:
        """See history()."""
        return await arun(_history.reading(cls, cls._declaration.key))

    @classmethod
    def rollback(cls, revision: int, *, actor: Any = None, comment: str = "") -> Self:
        """Save what was stored at ``revision`` again, validated, as a new revision, and return it.

        Raises ``DoesNotExist`` when that revision is not kept, ``ValidationError``, and ``Conflict`` when somebody
        saves at the same time. ``comment`` says which revision it was, by default.
        """
        return run(_history.rolling_back(cls, cls._declaration.key, revision, actor, comment))  # type: ignore[no-any-return]

    @classmethod
    async def arollback(cls, revision: int, *, actor: Any = None, comment: str = "") -> Self:
        """See rollback()."""
        return await arun(_history.rolling_back(cls, cls._declaration.key, revision, actor, comment))

    @classmethod
    def as_of(cls, when: datetime) -> Self:
        """Return a snapshot of what was stored at ``when``; ``DoesNotExist`` when that is not kept any more.

        A ``when`` without a time zone is in Django's current one; what is no datetime is a ``TypeError``.
        """
        return run(_history.as_of(cls, cls._declaration.key, when))  # type: ignore[no-any-return]

    @classmethod
    async def aas_of(cls, when: datetime) -> Self:
        """See as_of()."""
        return await arun(_history.as_of(cls, cls._declaration.key, when))


class Model(Stored):  # noqa: DJ008 - the application's
    """Many objects, a key each, declared like a Django model: subclass it, with a field that is the primary key.

    ``class Meta`` as in Config; an object's key is ``Meta.key``, a dot and its primary key, escaped.
    """

    _many = True
    _collection: ClassVar[Collection]

    if TYPE_CHECKING:
        objects: ClassVar[ModelObjects[Self]]
    else:
        objects = ObjectsAttribute(ModelObjects)

    if not TYPE_CHECKING:  # a checker would compare the Meta of each subclass with it

        class Meta:
            """See Config."""

            abstract = True

    @classmethod
    def _begin(cls) -> None:
        cls._collection = Collection()

    @classmethod
    def history(cls, pk: Any) -> list[Revision[Self]]:
        """Return the revisions that the bucket keeps of the object ``pk``, oldest first."""
        return run(_history.reading(cls, _reading.key_of(cls, pk)))

    @classmethod
    async def ahistory(cls, pk: Any) -> list[Revision[Self]]:
        """See history()."""
        return await arun(_history.reading(cls, _reading.key_of(cls, pk)))

    @classmethod
    def rollback(cls, pk: Any, revision: int, *, actor: Any = None, comment: str = "") -> Self:
        """Save what was stored of the object ``pk`` at ``revision`` again. See Config.rollback()."""
        return run(_history.rolling_back(cls, _reading.key_of(cls, pk), revision, actor, comment))  # type: ignore[no-any-return]

    @classmethod
    async def arollback(cls, pk: Any, revision: int, *, actor: Any = None, comment: str = "") -> Self:
        """See rollback()."""
        return await arun(_history.rolling_back(cls, _reading.key_of(cls, pk), revision, actor, comment))

    @classmethod
    def as_of(cls, pk: Any, when: datetime) -> Self:
        """Return a snapshot of the object ``pk`` as it was at ``when``; ``DoesNotExist`` if it was not, or unknown.

        See Config.as_of().
        """
        return run(_history.as_of(cls, _reading.key_of(cls, pk), when))  # type: ignore[no-any-return]

    @classmethod
    async def aas_of(cls, pk: Any, when: datetime) -> Self:
        """See as_of()."""
        return await arun(_history.as_of(cls, _reading.key_of(cls, pk), when))


def _refuse_frozen(instance: Stored) -> None:
    if instance.__dict__.get("_frozen"):
        message = (
            f"This {type(instance).__name__} is a snapshot, which everybody shares: change and save what "
            "`objects.get()` gives."
        )
        raise FrozenInstanceError(message)


def _rebuild(cls: type[Stored], attributes: dict[str, Any]) -> Stored:
    made = cls.__new__(cls)
    made.__dict__.update(attributes)
    return made
