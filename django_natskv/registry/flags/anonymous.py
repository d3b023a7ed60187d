"""Anonymous ids: a targeting key for a visitor who is not signed in, in a cookie that only we can write.

Owns the ids and their signed form. Knows nothing of requests, nor of when a visitor needs one.
"""

from __future__ import annotations

import secrets
from functools import lru_cache

from django.conf import settings
from django.core import signing

COOKIE = "natskv_visitor"
MAX_AGE = 365 * 24 * 3600
"""Seconds for which a browser keeps the cookie."""

_PREFIX = "anon-"  # no primary key of a user begins like this
_SALT = "django_natskv.registry.flags.anonymous"


def make() -> str:
    """Return a new id, which nobody else has."""
    return _PREFIX + secrets.token_urlsafe(16)


def to_cookie(visitor: str) -> str:
    """Return ``visitor``, an id, as the value of a cookie: signed with SECRET_KEY."""
    return _signer(settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS).sign(visitor)


def from_cookie(value: str | None) -> str | None:
    """Return the id that ``value`` holds; None when there is none, or when it was not signed by this project.

    SECRET_KEY_FALLBACKS are read too. Raises nothing, whatever a browser sends.
    """
    if not value:
        return None
    try:
        visitor = _signer(settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS).unsign(value)
    except (signing.BadSignature, UnicodeError):
        return None
    return visitor if visitor.startswith(_PREFIX) else None


@lru_cache(maxsize=1)  # to make one takes a third of the time of a check
def _signer(key: str | bytes, *fallbacks: str | bytes) -> signing.Signer:
    return signing.Signer(key=key, salt=_SALT, fallback_keys=[*fallbacks])
