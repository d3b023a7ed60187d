"""Changes: what an entry of a bucket that changed means for the class that it belongs to.

Owns ``config_changed``. Knows nothing of who changed it: the headers of the entry tell.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from django.core.exceptions import ValidationError

from django_natskv import signals
from django_natskv.registry import _reading
from django_natskv.registry._declaring import declared, flag_sets
from django_natskv.registry._flag_pages import SHARED
from django_natskv.registry._layers import chain, owns
from django_natskv.registry._models import Config
from django_natskv.registry._names import from_headers
from django_natskv.registry._place import place_of
from django_natskv.registry._storing import changed_fields, frozen, stored_fields

logger = logging.getLogger("django_natskv.registry")


def entry_changed(*, connection: Any, bucket: str, key: str, old: Any, new: Any, revision: int, **_: Any) -> None:
    """Send ``config_changed`` if the entry is one of the registry's, as its own copies of buckets tell it."""
    if not all(entry is None or isinstance(entry.value, bytes) for entry in (old, new)):
        return  # told by another copy of the bucket, one of the application's
    for cls in declared:
        where = cls._declaration
        if (where.connection, where.bucket) == (getattr(connection, "alias", None), bucket) and owns(where, key):
            _send(cls, key, old, new, revision)
    for flags in flag_sets:
        where = flags._declaration
        known = key == SHARED or key in flags._flags
        if known and (where.connection, where.bucket) == (getattr(connection, "alias", None), bucket):
            _tell(flags, new, _json(old), _json(new), (key,), revision)


def _json(entry: Any) -> Any:
    try:
        return None if entry is None else json.loads(entry.value)
    except (ValueError, RecursionError):
        return None


def _send(cls: Any, key: str, old: Any, new: Any, revision: int) -> None:
    if cls._declaration.scopes:
        _send_scopes(cls, key, old, new, revision)
        return
    try:
        before, after = (_snapshot(cls, key, entry) for entry in (old, new))
    except (ValidationError, ValueError):
        return  # a key that holds no primary key
    if before is None or after is None:
        changed = tuple(field.name for field in stored_fields(cls))
    else:
        changed = changed_fields(before, after)
    _tell(cls, new, before, after, changed, revision)


def _send_scopes(cls: Any, key: str, old: Any, new: Any, revision: int) -> None:
    """Tell of the document that changed, and of each scope that reads otherwise because of it."""
    if not signals.config_changed.has_listeners(cls):
        return
    where, place = cls._declaration, place_of(cls._declaration)
    entries = place.entries({})
    stored = {each for each in entries if owns(where, each)}
    asked_for = {scope.key for scope in cls._scopes.alive()}
    for each in (key, *sorted((stored | asked_for) - {key})):
        keys = chain(where, each)
        if key in keys:
            before, after = (
                frozen(_reading.stacked(cls, keys, [entry if one == key else entries.get(one) for one in keys]))
                for entry in (old, new)
            )
            changed = changed_fields(before, after)
            if changed or each == key:
                _tell(cls, new, before, after, changed, revision)


def _tell(cls: Any, entry: Any, old: Any, new: Any, changed: tuple[str, ...], revision: int) -> None:
    actor, comment = from_headers({} if entry is None else entry.headers)
    about = {"revision": revision, "actor": actor, "comment": comment}
    scope = new.scope if isinstance(new, Config) else {}
    told = {"old": old, "new": new, "changed": changed, **about, "scope": scope}
    for receiver, result in signals.config_changed.send_robust(cls, **told):
        if isinstance(result, Exception):
            logger.error("A receiver of config_changed failed: %r", receiver, exc_info=result)


def _snapshot(cls: Any, key: str, entry: Any) -> Any:
    if entry is None and cls._declaration.many:
        return None
    return frozen(_reading.of_entry(cls, key, entry))


signals.config_changed.derive(entry_changed)
