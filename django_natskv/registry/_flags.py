"""Flags as code has them: asked for whoever asks, and changed.

Owns the public face of one flag. Knows nothing of how a definition is kept or evaluated, nor of who declares it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar, overload

from django_natskv.exceptions import CodecError
from django_natskv.registry import _flag_pages, _flag_writing, _views
from django_natskv.registry._history import Revision
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._steps import arun, run
from django_natskv.registry.flags import definitions
from django_natskv.registry.flags.context import Context
from django_natskv.registry.flags.evaluator import Compiled, Details
from django_natskv.registry.flags.rules import Rule

T = TypeVar("T")
V = TypeVar("V", bound=Mapping[str, Any])
CONTEXT = "_natskv_context"
"""The attribute of a request that holds its context."""

_view = _views.view.get
_everywhere = _views.everywhere
_SAME: Any = object()  # in place of a value: the declared default


class _Unread:
    """Stands in for a local cache, and never is at the same moment as before."""

    @property
    def moment(self) -> object:
        return object()


_NOT_YET: Any = (_Unread(), None, None)


def context_of(request: Any) -> Context:
    """Return the context of ``request``, made on first use: what was found out once is not asked again."""
    found: Context | None = getattr(request, CONTEXT, None)
    if found is None:
        found = Context(request)
        with suppress(AttributeError):  # no request at all: asking says so, and nothing is raised when a rule is added
            setattr(request, CONTEXT, found)
    return found


def _context(request: Any, user: Any, key: Any, attributes: Mapping[str, Any]) -> Context:
    if request is None:
        return Context(user=user, key=key, attributes=attributes)
    own = context_of(request)
    if user is None and key is None and not attributes:
        return own
    return Context(request, user=user, key=key, attributes=attributes, parent=own)


class AnyFlag(Generic[T]):
    """A declared flag of any type. Ask it with a request, or with a user, a key and attributes.

    ``user`` and ``key`` (the targeting key, what percentages go by) go before what the request has, and further
    attributes before both. To ask never raises: what fails gives the declared default, and ``details()`` says why.
    """

    name: str
    declaration: definitions.Declaration
    flag_set: Any

    def __init__(self) -> None:
        # One tuple, replaced as a whole: two threads that read at once can then never mix two moments.
        self._seen: tuple[Any, Any, Compiled] = _NOT_YET
        self._place: Place

    def declared_in(self, owner: Any, name: str) -> None:
        """Take the name and the class that it was declared with."""
        self.name = name
        self.flag_set = owner
        self.declaration = self._declare(name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy: it is itself there, too."""
        return getattr, (self.flag_set, self.name)

    def _declare(self, name: str) -> definitions.Declaration:
        raise NotImplementedError

    # --- asked ---

    def value(self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any) -> T:
        """Return its value for whoever asks.

        Inside a running event loop, where it asks for a user that is not loaded yet: the default; use ``avalue()``.
        """
        # _now() in full: a call of it is a fifth of what this costs.
        view = _view()
        if view is None:
            cache, moment, found = self._seen
            if cache.moment is not moment:
                found = self._look(None)
        else:
            known = None if view.overrides or _everywhere or view.pin is None else view.pin.flags.get(self)
            found = known or self._look(view)
        if (constant := found.constant) is not None:
            return constant.value  # type: ignore[no-any-return]
        return found.details(_context(request, user, key, attributes)).value  # type: ignore[no-any-return]

    async def avalue(self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any) -> T:
        """See value()."""
        found = await self._anow()
        if (constant := found.constant) is not None:
            return constant.value  # type: ignore[no-any-return]
        return (await found.adetails(_context(request, user, key, attributes))).value  # type: ignore[no-any-return]

    def details(self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any) -> Details:
        """Return value, variant, reason, metadata, error and revision. See value()."""
        return self._now().details(_context(request, user, key, attributes))

    async def adetails(
        self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any
    ) -> Details:
        """See details()."""
        return await (await self._anow()).adetails(_context(request, user, key, attributes))

    def details_for(self, context: Context) -> Details:
        """Return what ``details()`` does, for a context that was made beforehand."""
        return self._now().details(context)

    async def adetails_for(self, context: Context) -> Details:
        """See details_for()."""
        return await (await self._anow()).adetails(context)

    # --- changed ---

    def set(
        self, value: T, *, when: Rule | None = None, otherwise: Any = _SAME, actor: Any = None, comment: str = ""
    ) -> int:
        """Store that it has ``value`` where ``when`` holds, and ``otherwise`` (the declared default) elsewhere.

        Without ``when``, for everyone. Replaces what was stored. Returns the revision. ``actor`` (a user, or a name)
        and ``comment`` are kept with it. Raises ``UsageError`` for a value that is not declared; the errors of the
        network.
        """
        make = partial(_made, value, when, otherwise)
        return run(_flag_writing.defining(self, make, actor, comment, "set"))

    async def aset(
        self, value: T, *, when: Rule | None = None, otherwise: Any = _SAME, actor: Any = None, comment: str = ""
    ) -> int:
        """See set()."""
        make = partial(_made, value, when, otherwise)
        return await arun(_flag_writing.defining(self, make, actor, comment, "set"))

    def define(self, definition: Mapping[str, Any], *, actor: Any = None, comment: str = "") -> int:
        """Store ``definition``, a flagd flag definition, as it is; return the revision.

        Raises ``InvalidDefinition``, which names each mistake by its path, for one that flagd's schema does not allow,
        whose values are not of this flag's type, or which names a shared rule that is not there.
        """
        return run(_flag_writing.defining(self, partial(_given, definition), actor, comment, "define"))

    async def adefine(self, definition: Mapping[str, Any], *, actor: Any = None, comment: str = "") -> int:
        """See define()."""
        return await arun(_flag_writing.defining(self, partial(_given, definition), actor, comment, "define"))

    def reset(self, *, actor: Any = None, comment: str = "") -> None:
        """Remove what is stored: back to the declared default. Nothing happens where nothing is stored."""
        run(_flag_writing.resetting(self, actor, comment))

    async def areset(self, *, actor: Any = None, comment: str = "") -> None:
        """See reset()."""
        await arun(_flag_writing.resetting(self, actor, comment))

    def history(self) -> list[Revision[dict[str, Any]]]:
        """Return the revisions that are kept, oldest first: ``value`` is the definition, None when it was removed.

        ``changes`` has the parts of the definition that changed. Asks the server.
        """
        return run(_flag_writing.reading(self))

    async def ahistory(self) -> list[Revision[dict[str, Any]]]:
        """See history()."""
        return await arun(_flag_writing.reading(self))

    @property
    def definition(self) -> dict[str, Any] | None:
        """What is stored, as far as this process knows, as a copy; None when nothing is. Raises ``CodecError``."""
        entry = _flag_pages.page_of(self._where()).entries.get(self.name)
        if entry is None:
            return None
        found = _flag_pages.decoded(self._where(), entry)
        if not isinstance(found, dict):
            message = f'What is stored of the flag "{self.name}" is {type(found).__name__}, not an object.'
            raise CodecError(message, bucket=self._where().bucket, key=self.name)
        return found

    # --- looked up ---

    def _now(self) -> Compiled:
        """Return what this context sees of it."""
        view = _view()
        if view is None:
            cache, moment, found = self._seen
            return found if cache.moment is moment else self._look(None)
        known = None if view.overrides or _everywhere or view.pin is None else view.pin.flags.get(self)
        return known or self._look(view)

    async def _anow(self) -> Compiled:
        await arun(_flag_pages.settled(self._where()))
        return self._now()

    def _look(self, view: _views.View | None) -> Compiled:
        overrides = (*_views.everywhere, *(view.overrides if view is not None else ()))
        for owner, given in reversed(overrides):
            if owner is self:
                return given["compiled"]  # type: ignore[no-any-return]
        pinned = view.pin.flags if view is not None and view.pin is not None else None  # before what it will hold
        page = _flag_pages.page_of(self._where())
        found = page.of(self)
        if pinned is not None:
            pinned[self] = found
        if view is None:
            self._seen = (page.cache, page.moment, found)
            # An override of the whole process is looked up at each read; one that began meanwhile, too.
            if _views.overrides_everywhere(self):
                self._seen = _NOT_YET
        return found

    def slow_down(self) -> None:
        """Look everything up at the next read."""
        self._seen = _NOT_YET

    def _where(self) -> Place:
        return place_of(self.flag_set._declaration)


class Flag(AnyFlag[bool]):
    """A switch: on or off. It belongs into the body of a ``FlagSet``.

    ``default`` holds while nothing is stored and whenever something fails. ``owner``, ``description`` and ``expires``
    (the day after which it should be gone from the code, and a check warns) are for people; ``public`` lets browsers
    see it (``flags_json``).
    """

    def __init__(
        self,
        *,
        default: bool = False,
        owner: str = "",
        description: str = "",
        expires: dt.date | None = None,
        public: bool = False,
    ) -> None:
        super().__init__()
        self._default = default
        self._about = {"owner": owner, "description": description, "expires": expires, "public": public}

    def _declare(self, name: str) -> definitions.Declaration:
        return definitions.flag(name, default=self._default, **self._about)

    def on(self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any) -> bool:
        """Tell whether it is on for whoever asks. See value()."""
        # _now() in full: a call of it is a fifth of what this costs.
        view = _view()
        if view is None:
            cache, moment, found = self._seen
            if cache.moment is not moment:
                found = self._look(None)
        else:
            known = None if view.overrides or _everywhere or view.pin is None else view.pin.flags.get(self)
            found = known or self._look(view)
        if (constant := found.constant) is not None:
            return constant.value  # type: ignore[no-any-return]
        return found.details(_context(request, user, key, attributes)).value  # type: ignore[no-any-return]

    async def aon(self, request: Any = None, /, *, user: Any = None, key: Any = None, **attributes: Any) -> bool:
        """See on()."""
        found = await self._anow()
        if (constant := found.constant) is not None:
            return constant.value  # type: ignore[no-any-return]
        return (await found.adetails(_context(request, user, key, attributes))).value  # type: ignore[no-any-return]


class Variant(AnyFlag[T]):
    """A choice among values of one type: strings, whole numbers, floats; or objects, by one mapping of their names.

    ``default`` is one of the values; of objects, the name of one. Strings are asked for by code and stay as declared;
    a definition may have other numbers and objects. What else there is to say is as for ``Flag``.
    """

    @overload
    def __init__(
        self: Variant[V],
        named: Mapping[str, V],
        /,
        *,
        default: str,
        owner: str = "",
        description: str = "",
        expires: dt.date | None = None,
        public: bool = False,
    ) -> None: ...
    @overload
    def __init__(
        self,
        *values: T,
        default: T,
        owner: str = "",
        description: str = "",
        expires: dt.date | None = None,
        public: bool = False,
    ) -> None: ...
    def __init__(
        self,
        *values: Any,
        default: Any,
        owner: str = "",
        description: str = "",
        expires: dt.date | None = None,
        public: bool = False,
    ) -> None:
        super().__init__()
        self._values = values
        self._default = default
        self._about = {"owner": owner, "description": description, "expires": expires, "public": public}

    def _declare(self, name: str) -> definitions.Declaration:
        return definitions.variant(name, *self._values, default=self._default, **self._about)


def _given(definition: Any, _: definitions.Declaration) -> Any:
    return dict(definition) if isinstance(definition, Mapping) else definition  # any other is refused with a reason


def _made(value: Any, when: Rule | None, otherwise: Any, declaration: definitions.Declaration) -> dict[str, Any]:
    more = {} if otherwise is _SAME else {"otherwise": otherwise}
    return definitions.definition(declaration, value, when=when, **more)
