"""Classes, fields and objects as arguments.

Owns that what is named there is, before anything is sent. Must not know which verb they are for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.terminal.command import NOT_FOUND
from django_natskv.management.terminal.units import parse_number
from django_natskv.management.terminal.verb import Call
from django_natskv.registry import documents


@dataclass(frozen=True, slots=True)
class Target:
    """An object of a class, and maybe one field of it.

    ``pk`` is None for the one object of a Config, and the text of a scope for that of a scope.
    """

    cls: Any
    pk: str | None
    field: str | None
    key: str

    @property
    def many(self) -> bool:
        """Whether its class has many objects."""
        return documents.declaration(self.cls).many

    @property
    def where(self) -> tuple[str, ...]:
        """What names the object to the methods of ``source``."""
        return (str(self.pk),) if self.many else ()

    @property
    def source(self) -> Any:
        """The class, or its scope: what has ``objects``, ``history`` and ``rollback``."""
        return self.cls if self.many or self.pk is None else self.cls.for_scope(**documents.read_scope(self.pk))

    @property
    def name(self) -> str:
        """The object in words."""
        return name_of(self.cls, self.pk)


def name_of(cls: Any, pk: str | None) -> str:
    """Return an object in words: "shop.ShopConfig", "shop.Carrier dhl", "shop.ShopConfig site=3"."""
    return f"{documents.label(cls)} {pk}" if pk else documents.label(cls)


def add_target(parser: CommandParser, target: str, rest: str, text: str) -> None:
    """Add what the verb is for, and the arguments behind it."""
    parser.usage = f"%(prog)s [options] {target}{' ' if rest else ''}{rest}"
    one_field = ", or shop.ShopConfig.banner for one field" if "FIELD" in target else ""
    parser.add_argument("target", metavar=target, help=f"shop.ShopConfig{one_field}")
    parser.add_argument("rest", nargs="*", default=[], metavar=rest or "PK", help=text)
    add_scope(parser, "of a Config, its value for a site, tenant, ... as Meta.scopes names it; repeatable")


def add_classes(parser: CommandParser) -> None:
    """Add the choice of classes."""
    parser.add_argument("classes", nargs="*", default=[], metavar="CLASS", help="only these, such as shop.ShopConfig")
    add_scope(parser, "only what is stored for this site, tenant, ..., which else is included; repeatable")


def add_scope(parser: CommandParser, text: str) -> None:
    """Add the choice of a scope."""
    parser.add_argument("--scope", metavar="NAME=VALUE", action="append", default=[], help=text)


def add_file(parser: CommandParser, text: str) -> None:
    """Add a file to write."""
    parser.add_argument("--file", metavar="PATH", help=text)


def target_of(call: Call) -> tuple[Target, list[str]]:
    """Return what the verb is for, and the arguments behind it; ``UsageError``."""
    text, rest = call.options["target"], list(call.options["rest"])
    cls, field = _split(text)
    _settle(call, cls)
    pk = None
    if documents.declaration(cls).many:
        if not rest:
            raise UsageError(f"PK is missing: {documents.label(cls)} has many objects, of which one is meant.")
        pk = rest.pop(0)
    scope = scope_of(call)
    if scope:
        if documents.declaration(cls).many:
            raise UsageError(f"--scope is for a Config: {documents.label(cls)} has many objects.")
        pk = documents.scope_text(scope)
    try:
        key = documents.key_of(cls, pk)
    except (ValidationError, ValueError) as error:
        raise UsageError(f"{pk!r} cannot be a primary key of {documents.label(cls)}: {said(error)}") from error
    return Target(cls, documents.pk_of(cls, key) if scope else pk, field, key), rest


def scope_of(call: Call) -> dict[str, str]:
    """Return the scope that ``--scope`` names, empty where none is; ``UsageError``."""
    found: dict[str, str] = {}
    for each in call.options["scope"]:
        name, equals, value = each.partition("=")
        if not equals:
            raise UsageError(f"--scope: {each!r} is not NAME=VALUE.")
        if name in found:
            raise UsageError(f"--scope: {name} is given twice.")
        found[name] = value
    return found


def scope_in(call: Call, cls: Any) -> str:
    """Return the text of the scope that ``--scope`` names, as objects of the class are called; empty where none is."""
    scope = scope_of(call)
    return documents.pk_of(cls, documents.key_of(cls, documents.scope_text(scope))) if scope else ""


def keys_of(call: Call, cls: Any, keys: Iterable[str]) -> list[str]:
    """Return those of ``keys`` of a class that are of the scope which was asked for; all where none was."""
    scope = scope_of(call)
    if not scope:
        return list(keys)
    wanted = documents.key_of(cls, documents.scope_text(scope))
    return [key for key in keys if key == wanted]


def classes_of(call: Call) -> list[Any]:
    """Return the classes that were named, all where none was; with ``--using`` those of that connection."""
    return classes_named(call, call.options["classes"])


def classes_named(call: Call, names: list[str]) -> list[Any]:
    """Return these classes, all where none is named; with ``--using`` those of that connection; ``UsageError``."""
    using = call.options["using"]
    if using is not None:
        call.connection  # noqa: B018 - an alias that is none is a mistake also where no class is kept
    scope = scope_of(call)
    if not names:
        chosen = [cls for cls in documents.classes() if using in (None, documents.declaration(cls).connection)]
        found = [cls for cls in chosen if scope.keys() <= {*documents.declaration(cls).scopes}]
        if chosen and not found:
            raise UsageError(f"--scope: no class has the scopes {', '.join(scope)}.")
        return found
    chosen = list(dict.fromkeys(_class(name) for name in names))
    for cls in chosen:
        _settle(call, cls)
    return chosen


def field_of(cls: Any, name: str) -> str:
    """Return ``name`` if it is a field that is stored; ``UsageError``."""
    known = documents.fields(cls)
    if name not in known:
        raise UsageError(f"{documents.label(cls)} has no field {name!r}. It has: {', '.join(known) or 'none'}.")
    return name


def none_left(rest: list[str]) -> None:
    """Refuse arguments that nothing is done with."""
    if rest:
        raise UsageError(f"There are too many arguments: {' '.join(rest)}.")


def no_field(target: Target, verb: str) -> None:
    """Refuse a field where the whole object is meant."""
    if target.field is not None:
        raise UsageError(f"{verb} is for whole objects: leave out the field {target.field!r}.")


def number_of(given: str, source: str, lowest: int = 1) -> int:
    """Return a revision; ``UsageError`` that names ``source``."""
    try:
        number = parse_number(given)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error
    if number < lowest:
        raise UsageError(f"{source}: a revision is at least {lowest}, not {number}.")
    return number


def absent(target: Target) -> CommandError:
    """Return the error for an object that is not there."""
    where = documents.declaration(target.cls)
    return CommandError(f"There is no {target.name} in bucket {where.bucket!r}.", returncode=NOT_FOUND)


def not_kept(target: Target, revision: int) -> CommandError:
    """Return the error for a revision that cannot be shown."""
    text = f"{target.name} has no revision {revision}, or it is no longer kept, or it is a deletion."
    return CommandError(f"{text} See natskv_config history.", returncode=NOT_FOUND)


def said(error: Exception) -> str:
    """Return what a ``ValidationError`` says, in one line, with the names of fields."""
    if not isinstance(error, ValidationError):
        return str(error)
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    parts = error.message_dict.items()
    return "; ".join(" ".join(texts) if name == "__all__" else f"{name}: {' '.join(texts)}" for name, texts in parts)


def _class(name: str) -> Any:
    for cls in documents.classes():
        if documents.label(cls) == name:
            return cls
    known = ", ".join(documents.label(cls) for cls in documents.classes()) or "none"
    raise UsageError(f"No class {name!r} is declared. Declared are: {known}.")


def _split(text: str) -> tuple[Any, str | None]:
    """Return the class and the field that ``shop.ShopConfig.banner`` means."""
    for cls in documents.classes():
        own = documents.label(cls)
        if text.startswith(f"{own}."):
            return cls, field_of(cls, text.removeprefix(f"{own}."))
    return _class(text), None


def _settle(call: Call, cls: Any) -> None:
    """Take the connection of the class; ``UsageError`` where another one was asked for."""
    where = documents.declaration(cls).connection
    if call.options["using"] not in (None, where):
        raise UsageError(f"--using: {documents.label(cls)} is kept on the connection {where!r}.")
    call.alias = where
