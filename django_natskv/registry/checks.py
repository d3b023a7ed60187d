"""What ``manage.py check`` says about declared configs and models.

Owns the rules of declarations, each with its id. Must not connect: what the server has is ``natskv_bucket sync``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.fields import NOT_PROVIDED
from django.utils.connection import ConnectionDoesNotExist

from django_natskv import conf
from django_natskv.exceptions import UsageError
from django_natskv.kv.entries import MAX_HISTORY
from django_natskv.kv.names import check_key, check_name
from django_natskv.registry._declaring import DEFAULT_HISTORY, declared, flag_sets
from django_natskv.registry._flag_checks import flag_problems
from django_natskv.registry._flag_pages import SHARED
from django_natskv.registry._layers import MOST_NAMES
from django_natskv.registry._models import Config, Model, NoDatabase

Found = Iterator[checks.CheckMessage]


def check_registry(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Return a message for each declaration that cannot work. The network is not touched."""
    found: list[checks.CheckMessage] = []
    for cls in declared:
        for rule in _RULES:
            found.extend(rule(cls))
    found.extend(_keys_taken_twice())
    found.extend(_keys_of_flags())
    found.extend(_makers_that_disagree())
    found.extend(flag_problems())
    return found


def _fields(cls: Any) -> list[Any]:
    return [*cls._meta.local_fields, *cls._meta.local_many_to_many, *cls._meta.private_fields]


def _relations(cls: Any) -> Found:
    for field in _fields(cls):
        if field.is_relation and not getattr(field.remote_field, "parent_link", False):
            hint = "Keep the primary key of the other object in a plain field, and look it up."
            yield checks.Error("A relation needs a database.", hint=hint, obj=field, id="natskv.E200")


def _files(cls: Any) -> Found:
    for field in _fields(cls):
        if isinstance(field, models.FileField):
            hint = "Keep the name or the address of the file in a CharField or a URLField."
            yield checks.Error("A file cannot be kept in a bucket.", hint=hint, obj=field, id="natskv.E201")


def _filled_by_a_database(cls: Any) -> Found:
    for field in cls._meta.concrete_fields:
        automatic = isinstance(field, models.AutoField) and not field.auto_created
        given = getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED
        if automatic or given or getattr(field, "generated", False):
            hint = "Use a field that the application fills, by `default`: a UUIDField with one for instance."
            yield checks.Error("Only a database could fill this field.", hint=hint, obj=field, id="natskv.E202")


def _keys_taken_twice() -> Found:
    for position, cls in enumerate(declared):
        for other in declared[:position]:
            if _meet(cls._declaration, other._declaration):
                where = f"bucket {cls._declaration.bucket!r}"
                text = f"Its key {cls._declaration.key!r} in {where} is also that of {other._meta.label}."
                yield checks.Error(text, hint="Give one of them another Meta.key.", obj=cls, id="natskv.E203")


def _keys_of_flags() -> Found:
    for cls in declared:
        where = cls._declaration
        for flags in flag_sets:
            that = flags._declaration
            same = (where.connection, where.bucket) == (that.connection, that.bucket)
            if same and (where.key == SHARED or where.key in {flag.name for flag in flags}):
                text = f"Its key {where.key!r} in bucket {where.bucket!r} is one of {flags.__qualname__}."
                yield checks.Error(text, hint="Give it another Meta.key.", obj=cls, id="natskv.E203")
                break


def _makers_that_disagree() -> Found:
    for position, cls in enumerate(declared):
        where = cls._declaration
        for other in declared[:position]:
            that = other._declaration
            if (where.connection, where.bucket) == (that.connection, that.bucket) and where.create != that.create:
                makes, leaves = (cls, other) if where.create else (other, cls)
                text = (
                    f"Its bucket {where.bucket!r} is made by the first save of {makes._meta.label}, and "
                    f"{leaves._meta.label} says that no save makes it (CREATE = False)."
                )
                hint = "Let all classes of the bucket say the same."
                yield checks.Error(text, hint=hint, obj=cls, id="natskv.E210")
                break


def _meet(one: Any, other: Any) -> bool:
    if (one.connection, one.bucket) != (other.connection, other.bucket):
        return False
    if one.many != other.many and (_is_below_a_scope(one, other) or _is_below_a_scope(other, one)):
        return True
    if one.many != other.many:
        many, single = (one, other) if one.many else (other, one)
        # A config at the key of one of the objects; at the key above them it is in nobody's way.
        return bool(single.key.rpartition(".")[0] == many.key)
    return bool(one.key == other.key) or _is_below_a_scope(one, other) or _is_below_a_scope(other, one)


def _is_below_a_scope(one: Any, other: Any) -> bool:
    """Tell whether ``other`` is kept where the scopes of ``one`` are."""
    return any(f"{other.key}.".startswith(f"{one.key}.{name}.") for name in one.scopes)


def _names(cls: Any) -> Found:
    for name, check in (("bucket", check_name), ("key", check_key)):
        try:
            check(getattr(cls._declaration, name))
        except UsageError as error:
            yield checks.Error(f"Its Meta.{name}: {error}", obj=cls, id="natskv.E204")


def _scopes(cls: Any) -> Found:
    names = cls._declaration.scopes
    if names and issubclass(cls, Model):
        hint = "Make what they distinguish a part of the primary key, or this a Config."
        yield checks.Error("A Model has no Meta.scopes.", hint=hint, obj=cls, id="natskv.E211")
    wrong = [name for name in names if not (isinstance(name, str) and name.isascii() and name.isidentifier())]
    if wrong:
        text = f"Its Meta.scopes are names as Python has them, in ASCII, not {wrong[0]!r}."
        yield checks.Error(text, obj=cls, id="natskv.E211")
    if len({*names}) < len(names):
        yield checks.Error("Its Meta.scopes have a name twice.", obj=cls, id="natskv.E211")
    if len(names) > MOST_NAMES:
        text = f"Its Meta.scopes are {len(names)} names of at most {MOST_NAMES}."
        hint = "Each further name doubles the documents that a scope of all names falls back to."
        yield checks.Error(text, hint=hint, obj=cls, id="natskv.E211")


def _defaults(cls: Any) -> Found:
    for field in cls._meta.concrete_fields if issubclass(cls, Config) else ():
        empty = field.empty_strings_allowed and field.blank
        if not (field.primary_key or field.has_default() or field.null or empty):
            hint = "Give it a default, which is what it reads as while nothing is stored."
            yield checks.Error("A field of a Config needs a default.", hint=hint, obj=field, id="natskv.E205")


def _primary_key(cls: Any) -> Found:
    pk = cls._meta.pk
    if issubclass(cls, Model) and pk.auto_created:
        hint = "Declare a field with primary_key=True; its value is part of the object's key."
        yield checks.Error("A Model needs a primary key.", hint=hint, obj=cls, id="natskv.E206")
    if issubclass(cls, Config) and not pk.auto_created:
        hint = "Remove primary_key=True: there is one object. Or make it a Model, to have several."
        yield checks.Error("A Config has no primary key.", hint=hint, obj=pk, id="natskv.E206")


def _reserved(cls: Any) -> Found:
    base = Config if issubclass(cls, Config) else Model
    for field in _fields(cls):
        taken = hasattr(base, field.name) or field.name in _TAKEN
        if taken or (field.name == "id" and not field.primary_key):
            text = f"The name {field.name!r} is taken by {base.__name__} itself."
            yield checks.Error(text, hint="Rename the field.", obj=field, id="natskv.E207")


_TAKEN = {"current", "pk", "DoesNotExist", "MultipleObjectsReturned"}
_TAKEN |= {"_collection", "_declaration", "_frozen", "_scopes", "_state"}  # what classes and objects keep of themselves


def _connection(cls: Any) -> Found:
    try:
        aliases = conf.aliases()
    except ImproperlyConfigured:
        return  # told by the checks of the settings
    if cls._declaration.connection not in aliases:
        text = f"Its Meta.connection {cls._declaration.connection!r} is no alias of settings.NATSKV."
        yield checks.Error(text, hint=f"There are: {', '.join(aliases) or 'none'}.", obj=cls, id="natskv.E208")


def _numbers(cls: Any) -> Found:
    history, version = cls._declaration.history, cls._declaration.version
    if history is not None and (type(history) is not int or not 1 <= history <= MAX_HISTORY):
        text = f"Its Meta.history is a number of revisions from 1 to {MAX_HISTORY}, not {history!r}."
        yield checks.Error(text, obj=cls, id="natskv.E209")
    if type(version) is not int or version < 1:
        text = f"Its Meta.version is a whole number from 1, not {version!r}."
        yield checks.Error(text, obj=cls, id="natskv.E209")


def _django(cls: Any) -> Found:
    for field in cls._meta.local_fields:
        if not (field.is_relation or isinstance(field, models.FileField)):
            yield from field.check(databases=())
    yield from cls._check_ordering()


def _ordering(cls: Any) -> Found:
    for name in cls._meta.ordering:
        if not isinstance(name, str) or name == "?":
            hint = "Order by the names of fields, a leading '-' reverses one; or sort what a query gives."
            yield checks.Error("Only a database could order so.", hint=hint, obj=cls, id="natskv.E212")


def _managers(cls: Any) -> Found:
    for manager in cls._meta.managers:
        if not isinstance(manager, NoDatabase):
            hint = "Remove it; a class method can return objects.filter(...)."
            text = f"Its manager {manager.name!r} would ask a database."
            yield checks.Error(text, hint=hint, obj=cls, id="natskv.E213")


def _history(cls: Any) -> Found:
    declaration = cls._declaration
    wanted = DEFAULT_HISTORY if declaration.history is None else declaration.history
    try:
        buckets = conf.connection_settings(declaration.connection).buckets
    except (ImproperlyConfigured, ConnectionDoesNotExist):
        return  # told by another rule
    kept = buckets.get(declaration.bucket, {}).get("history")
    if type(wanted) is int and kept is not None and kept < wanted:
        few = "one revision" if kept == 1 else f"{kept} revisions"
        text = (
            f"Its bucket {declaration.bucket!r} is declared in settings.NATSKV to keep {few} of a key, and "
            f"it wants {wanted}" + (", so that history(), rollback() and as_of() have nothing." if kept == 1 else ".")
        )
        hint = f"Raise the bucket's history, or say `history = {kept}` in Meta if that is what is meant."
        if kept == 1 and declaration.history is not None:
            yield checks.Error(text, hint=hint, obj=cls, id="natskv.E214")
        else:
            yield checks.Warning(text, hint=hint, obj=cls, id="natskv.W200")


def _unique(cls: Any) -> Found:
    for field in _fields(cls):
        if getattr(field, "unique", False) and not field.primary_key:
            hint = "Only the primary key is unique. Check the others in clean(), as far as that can tell."
            yield checks.Warning("unique=True does nothing here.", hint=hint, obj=field, id="natskv.W201")
    if cls._meta.constraints or cls._meta.unique_together:
        hint = "Check in clean() what they say."
        yield checks.Warning("Constraints do nothing here.", hint=hint, obj=cls, id="natskv.W201")


_RULES: tuple[Callable[[Any], Found], ...] = (
    _relations,
    _files,
    _filled_by_a_database,
    _names,
    _scopes,
    _defaults,
    _primary_key,
    _reserved,
    _connection,
    _numbers,
    _django,
    _ordering,
    _managers,
    _history,
    _unique,
)
