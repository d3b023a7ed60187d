"""The one table from the server's error codes to our errors.

Owns what each code means for a bucket. Knows nothing of requests or connections.
"""

from __future__ import annotations

from typing import Any

from django_natskv.exceptions import (
    BucketExists,
    BucketFull,
    BucketNotFound,
    JetStreamApiError,
    JetStreamNotEnabled,
    OperationalError,
    ValueTooLarge,
    WrongRevision,
)

NO_MESSAGE = 10037
NO_STORE = 10049
BUCKET_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
WRONG_REVISION = frozenset({10071, 10164})  # the second on a replicated bucket, for writers at the same time (F17)


def _not_found(what: str, bucket: str, _key: str) -> OperationalError:
    message = f"There is no bucket {bucket!r}: {what} was not done. Create it with `manage.py natskv_bucket create`."
    return BucketNotFound(message, bucket=bucket)


def _exists(_what: str, bucket: str, _key: str) -> OperationalError:
    message = f"A bucket {bucket!r} exists with another configuration: open it, or update it, instead of creating it."
    return BucketExists(message, bucket=bucket)


def _full(what: str, bucket: str, _key: str) -> OperationalError:
    message = f"The bucket {bucket!r} is full: {what} was not done. Raise max_bucket_size or remove entries."
    return BucketFull(message, bucket=bucket)


def _too_large(what: str, bucket: str, key: str) -> OperationalError:
    message = f"The bucket {bucket!r} does not take values of this size: {what} was not done. Raise max_value_size."
    return ValueTooLarge(message, bucket=bucket, key=key)


def _wrong_revision(what: str, bucket: str, key: str) -> OperationalError:
    why = "the key is there already" if what.startswith("creating") else "the key is no longer at that revision"
    message = f"{what[:1].upper()}{what[1:]} lost a race: {why}. Nothing was written."
    return WrongRevision(message, bucket=bucket, key=key)


def _not_enabled(_what: str, _bucket: str, _key: str) -> OperationalError:
    return not_enabled()


def not_enabled() -> JetStreamNotEnabled:
    """Return the error for a server or an account without JetStream."""
    message = "JetStream is not enabled on this server, or not for this account, and key-value needs it."
    return JetStreamNotEnabled(message)


def not_jetstream(what: str) -> JetStreamNotEnabled:
    """Return the error for an answer that no JetStream gives."""
    return JetStreamNotEnabled(f"What answered {what} is not JetStream, and key-value needs it.")


_TABLE: dict[int, Any] = {
    BUCKET_NOT_FOUND: _not_found,
    10058: _exists,
    10077: _full,
    10054: _too_large,
    10039: _not_enabled,
    10076: _not_enabled,
    **dict.fromkeys(WRONG_REVISION, _wrong_revision),
}


def api_error(error: dict[str, Any], what: str, bucket: str = "", key: str = "") -> OperationalError:
    """Return our error for the ``error`` part of a server's answer to ``what``."""
    code = int(error.get("err_code") or error.get("code") or 0)
    if code in _TABLE:
        return _TABLE[code](what, bucket, key)  # type: ignore[no-any-return]
    description = str(error.get("description") or "no description")
    message = f"The server refused {what}: {description} (code {code})."
    return JetStreamApiError(message, code=code, description=description)


def too_large_for_bucket(what: str, bucket: str, key: str, size: int, limit: int) -> ValueTooLarge:
    """Return the error for a value over the bucket's ``max_value_size``."""
    message = (
        f"{what[:1].upper()}{what[1:]} needs {size:,} bytes with headers, and the bucket takes {limit:,}. Nothing was "
        "written. Raise max_value_size or store less."
    )
    return ValueTooLarge(message, bucket=bucket, key=key, size=size, limit=limit)


def too_large_for_server(what: str, bucket: str, key: str, size: int, limit: int) -> ValueTooLarge:
    """Return the error for a value over the server's ``max_payload``."""
    message = (
        f"{what[:1].upper()}{what[1:]} needs {size:,} bytes with headers, and the server takes {limit:,} at once. "
        "Nothing was sent. Raise max_payload in the server's configuration or store less."
    )
    return ValueTooLarge(message, bucket=bucket, key=key, size=size, limit=limit)


def wrong_revision(what: str, bucket: str, key: str) -> OperationalError:
    """Return the error for a compare-and-set that we found lost by reading."""
    return _wrong_revision(what, bucket, key)


def too_large(what: str, size: int, limit: int) -> ValueTooLarge:
    """Return the error for a message over the server's limit."""
    message = f"{what} would send {size:,} bytes and the server takes {limit:,} in one message. Nothing was sent."
    return ValueTooLarge(message, size=size, limit=limit)
