"""Values as they are typed. Owns how a field reads a text: by its own form field. Knows nothing of what is done."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models

from django_natskv.exceptions import UsageError
from django_natskv.management.config.named import said

# A form takes every other text for a tick in a box.
_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "1"), "True"),
    **dict.fromkeys(("false", "no", "off", "0"), "False"),
}


def parse_value(field: Any, text: str) -> Any:
    """Return the value of ``field`` that ``text`` means to its form field; ``UsageError`` when it is none."""
    form = field.formfield()
    if form is None:
        raise UsageError(f"{field.name}: a {type(field).__name__} has no form field that reads a text.")
    try:
        return form.clean(_word(field, text) if isinstance(field, models.BooleanField) else text)
    except ValidationError as error:
        raise UsageError(f"{field.name}: {said(error)}") from error


def _word(field: Any, text: str) -> str:
    if not text and field.null:
        return text
    try:
        return _WORDS[text.lower()]
    except KeyError:
        raise UsageError(f"{field.name}: {text!r} is neither true nor false.") from None
