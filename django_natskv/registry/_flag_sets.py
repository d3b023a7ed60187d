"""Sets of flags: the classes that flags are declared in, and flags found by their names.

Owns the list of what was declared, and what a name is that nobody declared. Knows nothing of how a flag is asked.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django_natskv.conf.flags import is_strict
from django_natskv.exceptions import UsageError
from django_natskv.registry import _flag_pages, _flag_writing
from django_natskv.registry._declaring import DEFAULT_HISTORY, Declaration, flag_sets
from django_natskv.registry._flags import AnyFlag
from django_natskv.registry._place import Place, place_of
from django_natskv.registry._steps import arun, run
from django_natskv.registry.flags import definitions
from django_natskv.registry.flags.evaluator import ERROR, Details, require

logger = logging.getLogger("django_natskv.flags")

DEFAULT_BUCKET = "flags"
_OPTIONS = ("bucket", "connection", "history", "CREATE")


class UnknownFlag(UsageError, AttributeError, LookupError):  # noqa: N818 - reads like the errors of the taxonomy
    """No FlagSet declares a flag of this name."""

    type = "unknown-flag"


class Undeclared(AnyFlag[Any]):
    """What a name that nobody declared is in production: off, None, with an error in ``details()``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.declaration = definitions.flag(name)

    def on(self, *_given: Any, **_named: Any) -> bool:
        """Return False."""
        return False

    async def aon(self, *_given: Any, **_named: Any) -> bool:
        """See on()."""
        return False

    def value(self, *_given: Any, **_named: Any) -> None:
        """Return None."""

    async def avalue(self, *_given: Any, **_named: Any) -> None:
        """See value()."""

    def details(self, *_given: Any, **_named: Any) -> Details:
        """Return that there is no such flag."""
        text = f'No flag is declared under the name "{self.name}".'
        return Details(None, None, ERROR, error=text, error_code="FLAG_NOT_FOUND")

    async def adetails(self, *_given: Any, **_named: Any) -> Details:
        """See details()."""
        return self.details()

    def _look(self, view: Any) -> Any:
        del view
        raise self._unknown()

    def _where(self) -> Place:
        raise self._unknown()

    @property
    def flag_set(self) -> Any:
        """Raise ``UnknownFlag``: it cannot be changed."""
        raise self._unknown()

    def _unknown(self) -> UnknownFlag:
        return UnknownFlag(f'No flag is declared under the name "{self.name}".')


_undeclared: dict[str, Undeclared] = {}
MOST_UNDECLARED = 1_000
"""Names that are logged and kept: a name may come from a browser."""


def _unknown(name: str, where: str = "") -> Undeclared:
    """Return what stands in for a flag that nobody declared; ``UnknownFlag`` where mistakes may raise."""
    message = f'No flag is declared under the name "{name}"{where}.'
    if is_strict():
        raise UnknownFlag(message)
    found = _undeclared.get(name)
    if found is None:
        found = Undeclared(name)
        if len(_undeclared) < MOST_UNDECLARED:
            logger.error("%s It is off.", message)
            _undeclared[name] = found
    return found


class FlagSetType(type):
    """The metaclass of FlagSet."""

    _flags: dict[str, AnyFlag[Any]]
    _declaration: Declaration

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> Any:
        """Make the class."""
        made: Any = super().__new__(cls, name, bases, attrs)
        if not bases:
            return made
        made._flags = {key: value for key, value in attrs.items() if isinstance(value, AnyFlag)}
        for key, flag in made._flags.items():
            flag.declared_in(made, key)  # not by __set_name__, whose errors Python 3.11 wraps
        # Not by getattr(), which in production finds a flag of every name.
        meta = next((vars(base)["Meta"] for base in made.__mro__ if "Meta" in vars(base)), None)
        made._declaration = _declaration(name, made.__module__, meta)
        if made._flags:
            require()  # now, and not in a view
            flag_sets.append(made)
        return made

    def __iter__(cls) -> Any:
        """Yield its flags in the order of their declaration."""
        return iter(cls._flags.values())

    @property
    def shared_rules(cls) -> dict[str, Any]:
        """The shared rules of its bucket, by name, as far as this process knows: a copy."""
        return copy.deepcopy(dict(_flag_pages.page_of(place_of(cls._declaration)).rules))

    if not TYPE_CHECKING:  # a checker is to find a name that is not declared

        def __getattr__(cls, name: str) -> Any:
            """Return what stands in for a flag that is not declared, where a mistake may not raise."""
            if name.startswith("_"):
                raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")
            return _unknown(name, f" in {cls.__name__}")


def _declaration(name: str, module: str, meta: Any) -> Declaration:
    given = {} if meta is None else {key: getattr(meta, key) for key in dir(meta) if not key.startswith("_")}
    unknown = ", ".join(key for key in given if key not in _OPTIONS)
    if unknown:
        message = f"'class Meta' of {name} got invalid attribute(s): {unknown}"
        raise TypeError(message)
    return Declaration(
        bucket=given.get("bucket", DEFAULT_BUCKET),
        key=f"{module}.{name}",
        connection=given.get("connection", "default"),
        history=given.get("history", DEFAULT_HISTORY),
        version=1,
        create=given.get("CREATE", True),
        many=False,
        fieldsets=None,
    )


class FlagSet(metaclass=FlagSetType):
    """Flags, declared in the body of a subclass: ``new_checkout = Flag(default=False)``.

    Each is stored under its own name, in the bucket ``Meta.bucket`` ("flags") of ``Meta.connection``; ``Meta.history``
    is how many revisions of each are kept (20), ``Meta.CREATE = False`` keeps the first write from making the bucket.
    A name that is not declared raises ``UnknownFlag`` (an ``AttributeError``) with DEBUG and in tests; in production
    it logs once and is off. Iterate over the class for its flags.
    """

    do_not_call_in_templates: ClassVar[bool] = True

    @classmethod
    def share_rules(cls, rules: Mapping[str, Any], *, actor: Any = None, comment: str = "") -> int:
        """Store ``rules``, flagd targeting by name, for all flags of the bucket; replaces those before.

        A definition refers to one by ``{"$ref": name}``. Returns the revision. Raises ``InvalidDefinition``.
        """
        return run(_flag_writing.sharing(cls._declaration, rules, actor, comment))

    @classmethod
    async def ashare_rules(cls, rules: Mapping[str, Any], *, actor: Any = None, comment: str = "") -> int:
        """See share_rules()."""
        return await arun(_flag_writing.sharing(cls._declaration, rules, actor, comment))


def all_flags() -> list[AnyFlag[Any]]:
    """Return all declared flags, by name."""
    return sorted((flag for cls in flag_sets for flag in cls), key=lambda flag: str(flag.name))


def find_flag(name: str) -> AnyFlag[Any]:
    """Return the flag ``name``, whichever FlagSet declares it.

    Raises ``UnknownFlag`` with DEBUG and in tests when none does; in production that is logged once, and what is
    returned is off.
    """
    return declared_flag(name) or _unknown(name)


def declared_flag(name: str) -> AnyFlag[Any] | None:
    """Return the flag ``name``, whichever FlagSet declares it; None when none does."""
    for cls in flag_sets:
        found: AnyFlag[Any] | None = cls._flags.get(name)
        if found is not None:
            return found
    return None


def unread_flags() -> str:
    """Return why the definitions of some declared flag cannot be read; "" when all can. The first call may wait."""
    pages = (_flag_pages.newest(place) for place in _places())
    return next((page.unread for page in pages if page.unread), "")


def flags_are_cut_off() -> bool:
    """Tell whether a connection that flags are kept on is gone: what was read last holds meanwhile."""
    return any(place.connection.status in ("disconnected", "closed") for place in _places())


def stored_flags() -> set[str]:
    """Return the names of the declared flags that have a definition, as far as this process knows."""
    return {
        flag.name
        for cls in flag_sets
        for flag in cls
        if flag.name in _flag_pages.newest(place_of(cls._declaration)).entries
    }


def _places() -> set[Place]:
    return {place_of(cls._declaration) for cls in flag_sets}
