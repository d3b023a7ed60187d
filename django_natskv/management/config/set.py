"""``natskv_config set``. Owns the words of it; knows nothing of how fields read a text."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.management.config.named import Target, add_target, field_of, target_of
from django_natskv.management.config.parsing import parse_value
from django_natskv.management.config.writing import add_guard, save
from django_natskv.management.terminal.author import add_author
from django_natskv.management.terminal.output import Result
from django_natskv.management.terminal.values import add_value_file, text_of
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents


class Set(Verb):
    """Set fields."""

    name = "set"
    help = (
        "Set one field of an object, or several at once. Each value is read as the field's own form field reads it, "
        "and the object is validated and saved only if nobody else changes it meanwhile. The new revision is shown; "
        "the same one if it is that already. The value of one field may come from stdin or a file: a line end at its "
        "end is no part of it."
    )
    examples: ClassVar[tuple[str, ...]] = (
        "shop.ShopConfig.banner 'Summer sale' --comment promo",
        "shop.ShopConfig closed=true banner='Back on Monday'",
        "shop.Carrier.active dhl off --if-revision 12",
        "shop.Carrier ups --create",
        "shop.ShopConfig.limits - < limits.json",
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the object and the values."""
        text = (
            "the primary key of an object of a Model; then the value of the one field, - for stdin, or FIELD=VALUE ..."
        )
        add_target(parser, "CLASS[.FIELD]", "[PK] VALUE|FIELD=VALUE ...", text)
        add_value_file(parser)
        parser.add_argument("--create", action="store_true", help="make the object of a Model if it is not there")
        add_author(parser)
        add_guard(parser)

    def run(self, call: Call) -> Result:
        """Set them."""
        target, rest = target_of(call)
        create = call.options["create"]
        if create and not target.many:
            raise UsageError("--create is for objects of a Model: a Config is always there.")
        texts = _one_text(call, target.field, rest) if target.field else _texts(call, target, rest, may_be_empty=create)
        values = {name: parse_value(documents.fields(target.cls)[name], text) for name, text in texts.items()}

        def change(instance: Any) -> None:
            for name, value in values.items():
                documents.reset(instance, name)  # what could not be read there is no reason to keep it
                documents.fields(target.cls)[name].save_form_data(instance, value)
                documents.choose(instance, name)

        return save(call, target, change, create=create, invalid=UsageError)


def _one_text(call: Call, field: str, rest: list[str]) -> dict[str, str]:
    """Return the text that the field is to be read from; ``UsageError``."""
    file = call.options["file"]
    if file is not None and rest:
        raise UsageError("--file stands in the place of VALUE: give one of them.")
    if file is None and not rest:
        raise UsageError("VALUE is missing: give it, or - to read it from stdin, or --file PATH.")
    if len(rest) > 1:
        raise UsageError("There are too many arguments: quote a VALUE that has spaces.")
    return {field: text_of(call, rest[0] if rest else None)}


def _texts(call: Call, target: Target, rest: list[str], *, may_be_empty: bool) -> dict[str, str]:
    """Return the text that each field is to be read from; ``UsageError``."""
    if call.options["file"] is not None:
        raise UsageError("--file is for the value of one field: name it, as CLASS.FIELD.")
    if not rest and not may_be_empty:
        raise UsageError("FIELD=VALUE is missing: what is to be set?")
    found: dict[str, str] = {}
    for each in rest:
        name, equals, text = each.partition("=")
        if not equals:
            raise UsageError(f"{each!r} is not FIELD=VALUE.")
        if field_of(target.cls, name) in found:
            raise UsageError(f"{name} is given twice.")
        found[name] = text
    return found
