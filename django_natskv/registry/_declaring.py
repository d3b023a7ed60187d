"""Declaring: how a class statement becomes a Django model that no database and no migration knows.

Owns the metaclass, what ``class Meta`` may say beyond Django's own options, and the list of what was declared. Knows
nothing of how objects are stored or read.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import new_class
from typing import Any

from django.apps import apps as project
from django.apps.registry import Apps
from django.db import models
from django.db.models.base import ModelBase
from django.db.models.options import DEFAULT_NAMES

DEFAULT_BUCKET = "config"
DEFAULT_HISTORY = 20
_OPTIONS = ("bucket", "key", "connection", "history", "version", "CREATE", "fieldsets", "scopes")

# Not the project's: whatever is in there gets migrations, a table in tests, and a place in the content types.
apps = Apps()

declared: list[Any] = []
flag_sets: list[Any] = []
"""The classes of flags, which have a ``_declaration`` too, and are no models."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """What ``class Meta`` says of where and how a class is kept.

    ``history`` is None where nothing was said; ``version`` is that of the fields as they are declared now; ``create``
    is whether the first write may make the bucket; ``many`` whether there is an object a key below ``key``; ``scopes``
    are the names by which a Config has further values.
    """

    bucket: str
    key: str
    connection: str
    history: int | None
    version: int
    create: bool
    many: bool
    fieldsets: Any
    scopes: tuple[str, ...] = ()

    def key_of(self, token: str) -> str:
        """Return the key of the object under ``token``."""
        return f"{self.key}.{token}"


class Declared(ModelBase):
    """The metaclass of everything that the registry keeps."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any], **options: Any) -> Any:
        """Make the class."""
        given = attrs.get("Meta") or _inherited_meta(bases)
        abstract = "Meta" in attrs and getattr(given, "abstract", False)
        module = attrs["__module__"]
        _refuse(name, bases, attrs.get("Meta"))
        label = _label(module, given)
        attrs["Meta"] = _meta(given, module, None if abstract else label)
        many = attrs.get("_many", next((base._many for base in bases if hasattr(base, "_many")), True))
        declaration = None if abstract else _declaration(given, f"{label}.{name}", many=many)
        if declaration is not None and not many:
            # Every model has a primary key; that of the one object there is, is its key.
            attrs.setdefault("id", _identity(declaration.key))
        made: Any = super().__new__(cls, name, bases, attrs, **options)
        if declaration is not None:
            made._declaration = declaration
            made._begin()
            declared.append(made)
        return made


def _identity(key: str) -> Any:
    return models.CharField(primary_key=True, editable=False, max_length=1024, default=key, auto_created=True)


def _inherited_meta(bases: tuple[type, ...]) -> Any:
    return next((base.Meta for base in bases if hasattr(base, "Meta")), None)


def _label(module: str, given: Any) -> str:
    label = getattr(given, "app_label", None)
    if label is None:
        config = project.get_containing_app_config(module)
        # Outside of every application the package stands in: config is often kept beside the settings.
        label = config.label if config is not None else (module.rpartition(".")[0] or module).rpartition(".")[2]
    return str(label)


def _refuse(name: str, bases: tuple[type, ...], given: Any) -> None:
    stored = [base.__name__ for base in bases if hasattr(base, "_declaration")]
    if stored:
        message = f"{name} inherits from {stored[0]}, which is stored itself: share fields by an abstract class."
        raise TypeError(message)
    known = {*DEFAULT_NAMES, *_OPTIONS}
    own = {} if given is None else vars(given)
    unknown = [option for option in own if not option.startswith("_") and option not in known]
    if unknown:
        message = f"'class Meta' of {name} got invalid attribute(s): {', '.join(unknown)}"
        raise TypeError(message)


def _meta(given: Any, module: str, label: str | None) -> type:
    # A subclass: Django finds its options wherever they are, and refuses others only in the class itself.
    said: dict[str, Any] = {"__module__": module, "apps": apps, "managed": False}
    if label is not None:
        said["app_label"] = label
    return new_class("Meta", () if given is None else (given,), exec_body=lambda space: space.update(said))


def _declaration(given: Any, label: str, *, many: bool) -> Declaration:
    scopes = getattr(given, "scopes", ())
    return Declaration(
        bucket=getattr(given, "bucket", DEFAULT_BUCKET),
        key=getattr(given, "key", label),
        connection=getattr(given, "connection", "default"),
        history=getattr(given, "history", None),
        version=getattr(given, "version", 1),
        create=getattr(given, "CREATE", True),
        many=many,
        fieldsets=getattr(given, "fieldsets", None),
        scopes=(scopes,) if isinstance(scopes, str) else tuple(scopes),
    )
