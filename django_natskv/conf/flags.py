"""``settings.NATSKV_FLAGS``, read as of now. Owns its keys; knows nothing of flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

SETTING = "NATSKV_FLAGS"


def is_strict() -> bool:
    """Tell whether a mistake may raise where production goes on: with DEBUG, and under Django's test environment."""
    return bool(settings.DEBUG) or hasattr(mail, "outbox")  # which is what sets up a test environment


def context_function() -> Callable[..., Any] | None:
    """Return the project's function that adds to the context of flags; None when there is none.

    Raises ``ImproperlyConfigured`` for a setting that cannot be used.
    """
    declared = getattr(settings, SETTING, {})
    if not isinstance(declared, Mapping):
        raise ImproperlyConfigured(
            f'{SETTING} is {type(declared).__name__}, not a mapping: {{"CONTEXT": "shop.flags.context"}}.'
        )
    unknown = ", ".join(map(repr, sorted(set(declared) - {"CONTEXT"}, key=str)))
    if unknown:
        raise ImproperlyConfigured(f'{SETTING} has unknown keys: {unknown}. It knows "CONTEXT".')
    path = declared.get("CONTEXT")
    if path is None:
        return None
    try:
        function = import_string(path)
    except (ImportError, AttributeError, TypeError) as error:
        raise ImproperlyConfigured(f'{SETTING}["CONTEXT"] cannot be imported: {error}') from error
    if not callable(function):
        raise ImproperlyConfigured(f'{SETTING}["CONTEXT"] is {path!r}, which is no function of a request.')
    return function  # type: ignore[no-any-return]
