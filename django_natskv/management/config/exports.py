"""The form of exports. Owns what is in one and what is refused as none; must not know what is done with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

from django.core.management.base import CommandError
from django.utils import timezone

from django_natskv.exceptions import UsageError
from django_natskv.management.config.named import name_of
from django_natskv.management.dumps.files import called, readable_twice
from django_natskv.registry import documents

FORMAT, VERSION = "natskv-config", 1


class Item(TypedDict):
    """One object in an export: the revision that it had, and its stored document."""

    revision: int
    values: dict[str, Any]


# Class -> primary key -> object; of a Config "", and the text of each scope.
Export = Mapping[str, Mapping[str, Item]]


def given(cls: Any, objects: Mapping[str, Item]) -> dict[str, Mapping[str, Any]]:
    """Return the documents of a class in an export by key, for scopes that fall back to them; ``CommandError``."""
    if documents.declaration(cls).many:
        return {}
    try:
        return {documents.key_of(cls, pk): item["values"] for pk, item in objects.items()}
    except UsageError as error:
        raise CommandError(f"{documents.label(cls)} in the export: {error}") from error


def make(classes: Iterable[Any], chosen: Callable[[Any, Iterable[str]], list[str]]) -> dict[str, Any]:
    """Return the export of all that is stored of ``classes`` at ``chosen`` keys; ``CommandError`` if it is broken."""
    content: dict[str, dict[str, Any]] = {}
    for cls in classes:
        there = documents.entries(cls)
        found = {documents.pk_of(cls, key): _item(cls, key, there[key]) for key in chosen(cls, there)}
        where = documents.declaration(cls)
        if not where.many and "" not in found and chosen(cls, [where.key]):
            # That nothing is stored is what there is to say.
            found = {"": {"revision": 0, "values": {}}, **found}
        content[documents.label(cls)] = found
    return {"format": FORMAT, "version": VERSION, "time": timezone.now().isoformat(), "classes": content}


def _item(cls: Any, key: str, entry: Any) -> dict[str, Any]:
    try:
        document = documents.parse(entry.value)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        name = name_of(cls, documents.pk_of(cls, key))
        raise CommandError(f"What is stored of {name} cannot be read. See natskv_config check.")
    return {"revision": entry.revision, "values": document}


def read(path: str) -> Export:
    """Return the classes of the export in a file; ``CommandError`` when it is none."""
    with readable_twice(path) as file:
        data = file.read()
    try:
        content = json.loads(data)
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # as it is going to be stored
    except (ValueError, RecursionError) as error:
        raise _no_export(path, f"it is not JSON ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _no_export(path, f'it has no "format": "{FORMAT}"')
    if content.get("version") != VERSION:
        raise _no_export(path, f"its version is {content.get('version')!r}, and this release reads {VERSION}")
    classes = content.get("classes")
    if classes is None or not _is_well_formed(classes):
        raise _no_export(path, 'its "classes" are not as natskv_config export writes them')
    found: Export = classes
    return found


def _is_well_formed(classes: Any) -> bool:
    return isinstance(classes, dict) and all(
        isinstance(objects, dict) and all(_is_item(item) for item in objects.values()) for objects in classes.values()
    )


def _is_item(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("values"), dict) and type(item.get("revision")) is int


def _no_export(path: str, why: str) -> CommandError:
    return CommandError(f"{called(path)} is no export of natskv_config: {why}.")
