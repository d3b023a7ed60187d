"""Signatures: proof that what a bucket holds was written by someone who knows this project's SECRET_KEY.

Owns the keys derived from SECRET_KEY and SECRET_KEY_FALLBACKS. Knows nothing of what is signed, nor of the network.
"""

from __future__ import annotations

import hmac
from functools import cache
from hashlib import blake2b
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.crypto import salted_hmac

SIZE = 32  # bytes of a signature

_SMALL = 64 * 1024  # bytes
_SALT = "django_natskv.cache"


def sign(context: bytes, payload: bytes) -> bytes:
    """Return the signature, of ``SIZE`` bytes, of ``payload`` in ``context``, by SECRET_KEY.

    ``context`` must tell where it ends, so that no two pairs of context and payload are one when joined.
    """
    return _digest(_secrets()[0], context, payload)


def verify(context: bytes, payload: bytes | memoryview, signature: bytes | memoryview) -> bool:
    """Tell whether SECRET_KEY, or one of SECRET_KEY_FALLBACKS, made ``signature`` of ``payload`` in ``context``."""
    for secret in _secrets():  # noqa: SIM110 - the first is nearly always the one, and any() costs half a microsecond
        if hmac.compare_digest(_digest(secret, context, payload), signature):
            return True
    return False


def _digest(secret: bytes, context: bytes, payload: bytes | memoryview) -> bytes:
    if len(payload) < _SMALL:
        # One call, and not three: what a small value costs is the calls.
        return blake2b(context + payload, key=secret, digest_size=SIZE).digest()
    digest = blake2b(context, key=secret, digest_size=SIZE)
    digest.update(payload)
    return digest.digest()


@cache
def _secrets() -> tuple[bytes, ...]:
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return tuple(salted_hmac(_SALT, "values", secret=each, algorithm="sha256").digest() for each in secrets)


def _forget(*, setting: str, **_kwargs: Any) -> None:
    if setting in ("SECRET_KEY", "SECRET_KEY_FALLBACKS"):
        _secrets.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_natskv.cache.signing")
