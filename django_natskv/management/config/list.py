"""``natskv_config list``. Owns the words of it; knows nothing of how a list looks."""

from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_natskv.management.config.named import add_classes, classes_of, keys_of
from django_natskv.management.config.values import show_value
from django_natskv.management.terminal.output import Column, Listing, Result
from django_natskv.management.terminal.verb import Call, Verb
from django_natskv.registry import documents

_CLASSES = (
    Column("class", "Class"),
    Column("kind", "Kind"),
    Column("connection", "Connection"),
    Column("bucket", "Bucket"),
    Column("key", "Key"),
    Column("stored", "Stored", right=True),
    Column("description", "Description"),
)
_OBJECTS = (
    Column("class", "Class"),
    Column("object", "Object", lambda pk: pk or ""),
    Column("revision", "Revision", right=True),
    Column("values", "Not as by default", show_value),
)


class List(Verb):
    """List what is declared."""

    name = "list"
    help = (
        "List the classes that the project declares, or the objects of some. Of each class where it is kept and how "
        "many objects are stored; of each stored object the revision and what is not as by default."
    )
    examples: ClassVar[tuple[str, ...]] = ("", "shop.Carrier", "--format json")

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the classes."""
        add_classes(parser)

    def run(self, call: Call) -> Result:
        """List them."""
        chosen = classes_of(call)
        if call.options["classes"]:
            rows = [row for cls in chosen for row in _objects(call, cls)]
            if not rows:
                call.say(f"Nothing is stored of {', '.join(map(documents.label, chosen))}.")
            return Listing(_OBJECTS, rows)
        if not chosen:
            call.say("No class is declared.")
        return Listing(_CLASSES, [_class(call, cls) for cls in chosen])


def _class(call: Call, cls: Any) -> dict[str, Any]:
    where = documents.declaration(cls)
    call.alias = where.connection
    return {
        "class": documents.label(cls),
        "kind": "model" if where.many else "config",
        "connection": where.connection,
        "bucket": where.bucket,
        "key": where.key,
        "stored": len(keys_of(call, cls, documents.entries(cls))),
        "description": str(cls._meta.verbose_name),
    }


def _objects(call: Call, cls: Any) -> list[dict[str, Any]]:
    rows = []
    there = documents.objects(cls)
    for key in keys_of(call, cls, there):
        instance = there[key]
        values, origins = documents.as_json(instance), documents.origins(instance)
        mine = {name: value for name, value in values.items() if origins[name] in ("stored", documents.UNDECODABLE)}
        pk = documents.pk_of(cls, key) or None
        rows.append({"class": documents.label(cls), "object": pk, "revision": instance.revision, "values": mine})
    return rows
