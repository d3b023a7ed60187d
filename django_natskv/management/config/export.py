"""``natskv_config export``. Owns the words of it; knows nothing of the form of an export."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config import exports
from django_natskv.management.config.named import add_classes, add_file, classes_of, keys_of
from django_natskv.management.dumps.files import whole_file
from django_natskv.management.terminal.output import Done, Result, counted, to_json
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents


class Export(Verb):
    """Write what is stored as JSON."""

    name = "export"
    help = (
        "Write what is stored of all classes, or of some, as JSON, for natskv_config import here or elsewhere. Without "
        "history, of which natskv_bucket dump has all. A file appears whole or not at all."
    )
    examples: ClassVar[tuple[str, ...]] = ("> config.json", "shop.ShopConfig shop.Carrier --file shop.json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the classes and the file."""
        add_classes(parser)
        add_file(parser, "write to a file, not to stdout")

    def run(self, call: Call) -> Result | None:
        """Write it."""
        content = exports.make(_one_by_one(call), partial(keys_of, call))
        count = sum(len(objects) for objects in content["classes"].values())
        path = call.options["file"]
        if path is None:
            call.write(to_json(content))
            return None
        with whole_file(path) as file:
            file.write(f"{to_json(content)}\n".encode())
        classes = len(content["classes"])
        call.say(f"Wrote {counted(count, 'object')} of {counted(classes, 'class', 'classes')} to {path}.")
        return Done({"file": path, "classes": classes, "objects": count})


def _one_by_one(call: Call) -> Iterator[Any]:
    """Yield the classes that are meant; what goes wrong with one is told of its own connection."""
    for cls in classes_of(call):
        call.alias = documents.declaration(cls).connection
        yield cls
