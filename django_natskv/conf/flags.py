"""``settings.NATSKV_FLAGS``, read as of now. Owns its keys and what they may be; knows nothing of flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_natskv.conf._problem import Problem, at, quoted

SETTING = "NATSKV_FLAGS"
CONTEXT = "CONTEXT"
_EXAMPLE = f'It is the dotted path of a function of a request: {SETTING} = {{"{CONTEXT}": "shop.flags.context"}}.'


def is_strict() -> bool:
    """Tell whether a mistake may raise where production goes on: with DEBUG, and under Django's test environment."""
    return bool(settings.DEBUG) or hasattr(mail, "outbox")  # which is what sets up a test environment


def flag_problems() -> Iterator[Problem]:
    """Yield each mistake in ``settings.NATSKV_FLAGS`` as it is now; imports the function that it names."""
    declared = getattr(settings, SETTING, {})
    if not isinstance(declared, Mapping):
        yield Problem("E223", SETTING, f"is {type(declared).__name__}, not a mapping.", _EXAMPLE)
        return
    for key in declared:
        if key != CONTEXT:
            yield Problem("E224", SETTING, f"has an unknown key {quoted(key)}.", f"It knows {CONTEXT} alone.")
    path = declared.get(CONTEXT)
    if path is not None:
        try:
            _function(path)
        except ImproperlyConfigured as error:
            yield Problem("E225", at(SETTING, CONTEXT), str(error), _EXAMPLE)


def context_function() -> Callable[..., Any] | None:
    """Return the project's function that adds to the context of flags; None when there is none.

    Raises ``ImproperlyConfigured`` for a setting that cannot be used.
    """
    declared = getattr(settings, SETTING, {})
    if isinstance(declared, Mapping) and declared.keys() <= {CONTEXT}:
        path = declared.get(CONTEXT)
        if path is None:
            return None
        try:
            return _function(path)
        except ImproperlyConfigured as error:
            raise ImproperlyConfigured(f"{at(SETTING, CONTEXT)} {error}") from error
    raise ImproperlyConfigured(" ".join(problem.message for problem in flag_problems()))


@cache
def _imported(path: str) -> Callable[..., Any]:
    try:
        function = import_string(path)
    except Exception as error:
        # Importing someone's module can raise anything.
        message = f"is {path!r}, which cannot be imported: {type(error).__name__}: {error}"
        raise ImproperlyConfigured(message) from error
    if not callable(function):
        message = f"is {path!r}, which is no function of a request."
        raise ImproperlyConfigured(message)
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        message = f"is {path!r}, which does not take a request alone: {error}."
        raise ImproperlyConfigured(message) from error
    except ValueError:
        pass  # one in C that does not tell
    return function  # type: ignore[no-any-return]


def _function(path: object) -> Callable[..., Any]:
    if not isinstance(path, str):
        message = f"is {type(path).__name__}, not a string."
        raise ImproperlyConfigured(message)
    return _imported(path)
