"""What ``manage.py check`` says about declared flags.

Owns the rules of flags, each with its id. Must not connect.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from django_natskv import conf
from django_natskv.exceptions import UsageError
from django_natskv.kv.names import check_key, check_name
from django_natskv.registry._declaring import flag_sets
from django_natskv.registry._flag_sets import FlagSet
from django_natskv.registry._flags import AnyFlag

Found = Iterator[checks.CheckMessage]


def flag_problems() -> Found:
    """Yield a message for each declaration of a flag that cannot work, and for each that has expired."""
    names: dict[str, Any] = {}
    for cls in flag_sets:
        yield from _place(cls)
        for flag in cls:
            yield from _name(flag)
            yield from _expiry(flag)
            if flag.name in names:
                text = f'The flag "{flag.name}" is declared by {names[flag.name].__qualname__} too.'
                hint = "A flag is found by its name: give one of them another."
                yield checks.Error(text, hint=hint, obj=cls, id="natskv.E220")
            names[flag.name] = cls


def expired_flags(today: dt.date | None = None) -> list[AnyFlag[Any]]:
    """Return the flags that should have gone from the code by ``today``, the oldest first."""
    day = today or timezone.now().date()
    found = [flag for cls in flag_sets for flag in cls if _is_over(flag, day)]
    return sorted(found, key=lambda flag: (flag.declaration.expires, flag.name))


def _is_over(flag: AnyFlag[Any], day: dt.date) -> bool:
    expires = flag.declaration.expires
    return expires is not None and expires < day


def _place(cls: Any) -> Found:
    where = cls._declaration
    try:
        check_name(where.bucket)
    except UsageError as error:
        yield checks.Error(f"Its Meta.bucket: {error}", obj=cls, id="natskv.E222")
    try:
        aliases = conf.aliases()
    except ImproperlyConfigured:
        return  # told by the checks of the settings
    if where.connection not in aliases:
        text = f"Its Meta.connection {where.connection!r} is no alias of settings.NATSKV."
        yield checks.Error(text, hint=f"There are: {', '.join(aliases) or 'none'}.", obj=cls, id="natskv.E222")


def _name(flag: AnyFlag[Any]) -> Found:
    hint = "Rename it: letters, digits and underscores within; it is the key of the flag."
    if flag.name.startswith("_") or flag.name in {*dir(FlagSet), *dir(type(FlagSet))}:
        text = f'The name "{flag.name}" is taken by FlagSet itself.'
        yield checks.Error(text, hint=hint, obj=flag.flag_set, id="natskv.E221")
    try:
        check_key(flag.name)
    except UsageError as error:
        yield checks.Error(f"A flag cannot be called so: {error}", hint=hint, obj=flag.flag_set, id="natskv.E221")


def _expiry(flag: AnyFlag[Any]) -> Found:
    if _is_over(flag, timezone.now().date()):
        declaration = flag.declaration
        text = f'The flag "{flag.name}" of {declaration.owner or "nobody"} expired on {declaration.expires}.'
        hint = "Remove it from the code, or give it another day. `manage.py natskv_flag expired` lists them all."
        yield checks.Warning(text, hint=hint, obj=flag.flag_set, id="natskv.W220")
