"""``natskv_config get``. Owns the words of it and how an object looks; knows nothing of how it is read."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config.named import absent, add_target, none_left, target_of
from django_natskv.management.config.values import show_value
from django_natskv.management.terminal.output import Column, Listing, Result, Style, exact, to_json
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents

_COLUMNS = (Column("field", "Field"), Column("value", "Value", show_value), Column("from", "From"))


class _Object:
    """An object: a line a field. JSON has its values, and where each is from."""

    def __init__(self, instance: Any, pk: str | None, names: list[str]) -> None:
        values, origins = documents.as_json(instance), documents.origins(instance)
        self._rows = [{"field": name, "value": values[name], "from": origins[name]} for name in names]
        self._about = {
            "class": documents.label(type(instance)),
            "object": pk,
            "revision": instance.revision,
            "values": {name: values[name] for name in names},
            "from": {name: origins[name] for name in names},
        }

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002 - named as the option is
        """See Result.lines()."""
        if format == "json":
            return [to_json(self._about)]
        return Listing(_COLUMNS, self._rows).lines(format, heading)


class _Value:
    """One value alone."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def lines(self, format: str, heading: Style) -> list[str]:  # noqa: A002, ARG002 - the protocol
        """See Result.lines()."""
        return [to_json(self._value) if format == "json" else exact(self._value)]


class Get(Verb):
    """Show an object, or one field."""

    name = "get"
    help = (
        "Show an object, or the value of one field alone. With each field comes whether its value is stored, the "
        "default, or stands in for one that cannot be read. It is read from the server, not from memory."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "shop.ShopConfig",
        "shop.ShopConfig.banner",
        "shop.Carrier dhl --format json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the object or field."""
        add_target(parser, "CLASS[.FIELD]", "[PK]", "the primary key of an object of a Model")

    def run(self, call: Call) -> Result:
        """Show it."""
        target, rest = target_of(call)
        none_left(rest)
        instance = documents.stored(target.cls, target.key)
        if instance is None:
            raise absent(target)
        if instance.undecodable:
            call.warn(f"Of {target.name} cannot be read: {', '.join(instance.undecodable)}. See natskv_config check.")
        if target.field is not None:
            return _Value(documents.as_json(instance)[target.field])
        return _Object(instance, target.pk, list(documents.fields(target.cls)))
