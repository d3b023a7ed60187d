"""Queries: the objects of a class, filtered and ordered, in the manner of Django's querysets.

Owns the public face of reading many. Knows nothing of where its source takes the objects from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from django.core.exceptions import ValidationError
from django.db.models import Q

from django_natskv.registry import _reading
from django_natskv.registry._lookups import Condition, condition, find_field
from django_natskv.registry._steps import Operation, arun, run
from django_natskv.registry._storing import copy_of

M = TypeVar("M")
_SHOWN = 20


class Query(Generic[M]):
    """Objects of one class. Nothing is read before it is evaluated: iterated, counted, indexed, asked for one.

    Each evaluation reads anew, and gives copies that may be changed and saved. Every method that reads has an a-twin;
    from memory neither waits, but for the first read of the process; behind ``strong()`` both ask the server.
    """

    def __init__(
        self,
        cls: type[M],
        conditions: tuple[Condition, ...] = (),
        order: tuple[str, ...] | None = None,
        *,
        strong: bool = False,
    ) -> None:
        self.model = cls
        self._strong = strong
        self._conditions = conditions
        self._order = order

    def __repr__(self) -> str:
        found = list(self[: _SHOWN + 1])
        shown = [repr(one) for one in found[:_SHOWN]] + ["..."] * (len(found) > _SHOWN)
        return f"<{type(self).__name__} [{', '.join(shown)}]>"

    # --- narrowed, without reading ---

    def all(self) -> Query[M]:
        """Return the same query."""
        return self._with(self._conditions, self._order)

    def filter(self, *given: Q, **fields: Any) -> Query[M]:
        """Return the query for those that meet all conditions, in Django's words; ``FieldError`` for other words.

        The lookups are exact, iexact, gt, gte, lt, lte, contains, icontains, startswith, istartswith, endswith,
        iendswith, regex, iregex, in, range and isnull.
        """
        return self._with((*self._conditions, condition(self.model, given, fields)), self._order)

    def exclude(self, *given: Q, **fields: Any) -> Query[M]:
        """Return the query for those that do not meet all conditions. See filter()."""
        met = condition(self.model, given, fields)
        return self._with((*self._conditions, lambda one: not met(one)), self._order)

    def order_by(self, *names: str) -> Query[M]:
        """Return the query in the order of fields, a leading "-" reverses one; without names, in that of keys."""
        for name in names:
            find_field(self.model, name.removeprefix("-"))
        return self._with(self._conditions, names)

    def strong(self) -> Query[M]:
        """Return the query that asks the server, at the leader, instead of this process's memory."""
        return Query(self.model, self._conditions, self._order, strong=True)

    def _with(self, conditions: tuple[Condition, ...], order: tuple[str, ...] | None) -> Query[M]:
        return Query(self.model, conditions, order, strong=self._strong)

    # --- read ---

    def __iter__(self) -> Iterator[M]:
        return iter([copy_of(one) for one in run(self._found())])

    async def __aiter__(self) -> AsyncIterator[M]:
        for one in await arun(self._found()):
            yield copy_of(one)

    def __len__(self) -> int:
        return self.count()

    def __bool__(self) -> bool:
        return self.exists()

    @overload
    def __getitem__(self, index: int) -> M: ...
    @overload
    def __getitem__(self, index: slice) -> list[M]: ...
    def __getitem__(self, index: int | slice) -> M | list[M]:
        found = run(self._found())
        return [copy_of(one) for one in found[index]] if isinstance(index, slice) else copy_of(found[index])

    def get(self, *given: Q, **fields: Any) -> M:
        """Return the only object that meets the conditions; the class's ``DoesNotExist``, ``MultipleObjectsReturned``.

        Conditions as in ``filter``. By a primary key alone nothing else is looked at.
        """
        return run(self._get(given, fields))

    async def aget(self, *given: Q, **fields: Any) -> M:
        """See get()."""
        return await arun(self._get(given, fields))

    def first(self) -> M | None:
        """Return the first object, or None."""
        return run(self._at(0))

    async def afirst(self) -> M | None:
        """See first()."""
        return await arun(self._at(0))

    def last(self) -> M | None:
        """Return the last object, or None."""
        return run(self._at(-1))

    async def alast(self) -> M | None:
        """See last()."""
        return await arun(self._at(-1))

    def count(self) -> int:
        """Return how many there are."""
        return run(self._count())

    async def acount(self) -> int:
        """See count()."""
        return await arun(self._count())

    def exists(self) -> bool:
        """Tell whether there is one."""
        return run(self._count()) > 0

    async def aexists(self) -> bool:
        """See exists()."""
        return await arun(self._count()) > 0

    def in_bulk(self, pks: Iterable[Any] | None = None) -> dict[Any, M]:
        """Return the objects by primary key: those with the given ones, or all."""
        return run(self._in_bulk(pks))

    async def ain_bulk(self, pks: Iterable[Any] | None = None) -> dict[Any, M]:
        """See in_bulk()."""
        return await arun(self._in_bulk(pks))

    def values(self, *names: str) -> list[dict[str, Any]]:
        """Return, for each object, a dict of the named fields, or of all."""
        return run(self._values(names))

    async def avalues(self, *names: str) -> list[dict[str, Any]]:
        """See values()."""
        return await arun(self._values(names))

    def values_list(self, *names: str, flat: bool = False) -> list[Any]:
        """Return, for each object, a tuple of the named fields, or of all; with ``flat`` the one field itself."""
        return run(self._values_list(names, flat))

    async def avalues_list(self, *names: str, flat: bool = False) -> list[Any]:
        """See values_list()."""
        return await arun(self._values_list(names, flat))

    # --- the operations behind both faces ---

    def _found(self) -> Operation[list[Any]]:
        found = yield from (_reading.stored if self._strong else _reading.shown)(self.model)
        chosen = [one for one in found if all(met(one) for met in self._conditions)]
        order = self._order if self._order is not None else self.model._meta.ordering  # type: ignore[attr-defined]
        for name in reversed(order):
            field = find_field(self.model, name.removeprefix("-"))
            chosen.sort(key=_null_first(field.attname), reverse=name.startswith("-"))
        return chosen

    def _get(self, given: tuple[Q, ...], fields: dict[str, Any]) -> Operation[M]:
        cls: Any = self.model
        by_key = len(fields) == 1 and fields.keys() <= {"pk", cls._meta.pk.name}
        alone = by_key and not given and not self._conditions
        found = yield from (self._by_key(*fields.values()) if alone else self.filter(*given, **fields)._found())
        if len(found) == 1:
            return copy_of(found[0])  # type: ignore[no-any-return]
        if not found:
            message = f"There is no such {cls.__name__}."
            raise cls.DoesNotExist(message)
        message = f"There are {len(found)} such {cls.__name__}, not one."
        raise cls.MultipleObjectsReturned(message)

    def _by_key(self, pk: Any) -> Operation[list[Any]]:
        try:
            key = _reading.key_of(self.model, pk)
        except ValidationError:  # it cannot be the key of anything
            return []
        found = yield from (_reading.stored_one if self._strong else _reading.shown_one)(self.model, key)
        return [] if found is None else [found]

    def _at(self, index: int) -> Operation[M | None]:
        found = yield from self._found()
        return copy_of(found[index]) if found else None

    def _count(self) -> Operation[int]:
        return len((yield from self._found()))

    def _in_bulk(self, pks: Iterable[Any] | None) -> Operation[dict[Any, M]]:
        found = {one.pk: one for one in (yield from self._found())}
        cls: Any = self.model
        wanted = found if pks is None else [cls._meta.pk.to_python(pk) for pk in pks]
        return {pk: copy_of(found[pk]) for pk in wanted if pk in found}

    def _values(self, names: tuple[str, ...]) -> Operation[list[dict[str, Any]]]:
        fields = self._fields(names)
        found = yield from self._found()
        return [{name: getattr(one, attname) for name, attname in fields} for one in map(copy_of, found)]

    def _values_list(self, names: tuple[str, ...], flat: bool) -> Operation[list[Any]]:
        fields = self._fields(names)
        if flat and len(fields) != 1:
            message = "'flat' is for one field."
            raise TypeError(message)
        found = yield from self._found()
        rows = [tuple(getattr(one, attname) for _, attname in fields) for one in map(copy_of, found)]
        return [row[0] for row in rows] if flat else rows

    def _fields(self, names: tuple[str, ...]) -> list[tuple[str, str]]:
        cls: Any = self.model
        wanted = names or tuple(field.name for field in cls._meta.concrete_fields)
        return [(name, find_field(cls, name).attname) for name in wanted]


def _null_first(attname: str) -> Callable[[Any], tuple[bool, Any]]:
    def key(one: Any) -> tuple[bool, Any]:
        value = getattr(one, attname)
        return value is not None, value

    return key
