"""Every error that django-natskv raises, in two families.

This module owns the taxonomy and imports nothing of the project.

::

    NatsKVError
    ├── OperationalError        conditions that correct code must handle
    │   ├── ConnectFailed
    │   ├── NotConnected
    │   ├── AuthInvalid
    │   ├── PermissionsViolation
    │   ├── OperationTimedOut   (also a TimeoutError)
    │   ├── JetStreamNotEnabled
    │   ├── JetStreamApiError
    │   ├── BucketNotFound
    │   ├── BucketExists
    │   ├── BucketFull
    │   ├── ValueTooLarge
    │   ├── WrongRevision
    │   └── CodecError
    └── UsageError              (also a ValueError) mistakes in the call, raised before anything is sent
        ├── InvalidName
        ├── InvalidKey
        ├── InvalidKeys
        ├── InvalidDeliver
        ├── InvalidTTL
        ├── UnknownConfigKey
        └── MissingRequiredKey

Who detects it decides the family (ADR 0004): we, before the wire, a ``UsageError``; the server or the
network, an ``OperationalError``. Messages never hold credentials or values.
"""

from __future__ import annotations

from typing import Any, ClassVar


class NatsKVError(Exception):
    """The root of every error of this package.

    ``type`` is a stable slug of the class ("wrong-revision"), for logs, metrics and other languages.
    Keyword data given at construction is kept as attributes, and survives pickling.
    """

    type: ClassVar[str] = "natskv-error"

    def __init__(self, message: str = "", **data: Any) -> None:
        super().__init__(message)
        self.__dict__.update(data)

    def __reduce__(self) -> tuple[Any, ...]:
        # BaseException would call the class with ``args`` alone, which subclasses with required keywords refuse.
        return (_rebuild, (self.__class__, self.args, self.__dict__.copy()))


def _rebuild(cls: type[NatsKVError], args: tuple[Any, ...], data: dict[str, Any]) -> NatsKVError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(data)
    return error


class OperationalError(NatsKVError):
    """A condition of the server or the network that correct code must be ready for."""

    type = "operational-error"


class UsageError(NatsKVError, ValueError):
    """A mistake in the call. Nothing was sent; the state of the bucket is as it was."""

    type = "usage-error"


class ConnectFailed(OperationalError):
    """No connection could be made: nothing listens, TLS failed, or the server is not one that we can use."""

    type = "connect-failed"


class NotConnected(OperationalError):
    """The connection is down and being restored in the background. The operation was not sent."""

    type = "not-connected"


class AuthInvalid(OperationalError):
    """The server refused the credentials; ``reason`` is what it said."""

    type = "auth-invalid"

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class PermissionsViolation(OperationalError):
    """The server refused this user the operation.

    ``action`` is "publish" or "subscribe", ``subject`` the permission that the operator has to grant. This is
    the one error that names a subject, because the server's permissions are written in subjects.
    """

    type = "permissions-violation"

    def __init__(self, message: str = "", *, action: str = "", subject: str = "") -> None:
        super().__init__(message)
        self.action = action
        self.subject = subject


class OperationTimedOut(OperationalError, TimeoutError):
    """No answer came in time.

    ``may_have_been_applied`` is True when the operation was a write whose outcome is not known: it may have
    been applied, and may yet be. A read that timed out changed nothing.
    """

    type = "operation-timed-out"

    def __init__(self, message: str = "", *, may_have_been_applied: bool = False) -> None:
        super().__init__(message)
        self.may_have_been_applied = may_have_been_applied


class JetStreamNotEnabled(OperationalError):
    """The server, or this account on it, has JetStream switched off, and key-value needs it."""

    type = "jetstream-not-enabled"


class JetStreamApiError(OperationalError):
    """The server refused the operation with an error of its own.

    ``code`` is the server's error code (for instance 10052), ``description`` its words.
    """

    type = "jetstream-api-error"

    def __init__(self, message: str = "", *, code: int = 0, description: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.description = description


class _BucketScoped(OperationalError):
    """The shared constructor of the errors that are about one bucket, named by ``bucket``."""

    def __init__(self, message: str = "", *, bucket: str = "") -> None:
        super().__init__(message)
        self.bucket = bucket


class BucketNotFound(_BucketScoped):
    """There is no bucket of this name."""

    type = "bucket-not-found"


class BucketExists(_BucketScoped):
    """A bucket of this name exists with another configuration. It was left as it was."""

    type = "bucket-exists"


class BucketFull(_BucketScoped):
    """The bucket has reached its ``max_bucket_size``. The value was not stored."""

    type = "bucket-full"


class ValueTooLarge(_BucketScoped):
    """The encoded value exceeds what the bucket or the server takes. It was not stored.

    ``size`` and ``limit`` are in bytes; ``size`` includes the headers that travel with the value.
    """

    type = "value-too-large"

    def __init__(self, message: str = "", *, bucket: str = "", key: str = "", size: int = 0, limit: int = 0) -> None:
        super().__init__(message, bucket=bucket)
        self.key = key
        self.size = size
        self.limit = limit


class WrongRevision(_BucketScoped):
    """A compare-and-set was lost: ``key`` has moved on, or exists already (``create``). Nothing was written."""

    type = "wrong-revision"

    def __init__(self, message: str = "", *, bucket: str = "", key: str = "") -> None:
        super().__init__(message, bucket=bucket)
        self.key = key


class CodecError(_BucketScoped):
    """A value could not be encoded (nothing was written), or stored bytes could not be decoded."""

    type = "codec-error"

    def __init__(self, message: str = "", *, bucket: str = "", key: str = "") -> None:
        super().__init__(message, bucket=bucket)
        self.key = key


class InvalidName(UsageError):
    """``name`` cannot be a bucket's name: 1 to 128 characters of ``A-Z a-z 0-9 _ -``."""

    type = "invalid-name"

    def __init__(self, message: str = "", *, name: Any = None) -> None:
        super().__init__(message)
        self.name = name


class InvalidKey(UsageError):
    """``key`` cannot be a key: 1 to 1,024 characters of ``A-Z a-z 0-9 - _ / = .``, no dot first, last or doubled."""

    type = "invalid-key"

    def __init__(self, message: str = "", *, key: Any = None) -> None:
        super().__init__(message)
        self.key = key


class InvalidKeys(UsageError):
    """``keys`` is not a key pattern, nor a non-empty list of them."""

    type = "invalid-keys"

    def __init__(self, message: str = "", *, keys: Any = None) -> None:
        super().__init__(message)
        self.keys = keys


class InvalidDeliver(UsageError):
    """``deliver`` is none of "latest", "history" and "updates"."""

    type = "invalid-deliver"

    def __init__(self, message: str = "", *, deliver: Any = None) -> None:
        super().__init__(message)
        self.deliver = deliver


class InvalidTTL(UsageError):
    """``ttl_ms`` is not a time to live: whole milliseconds, at least 1,000."""

    type = "invalid-ttl"

    def __init__(self, message: str = "", *, ttl_ms: Any = None) -> None:
        super().__init__(message)
        self.ttl_ms = ttl_ms


class UnknownConfigKey(UsageError):
    """``key`` is not an option of a bucket's configuration."""

    type = "unknown-config-key"

    def __init__(self, message: str = "", *, key: Any = None) -> None:
        super().__init__(message)
        self.key = key


class MissingRequiredKey(UsageError):
    """``key`` is missing from a bucket's configuration."""

    type = "missing-required-key"

    def __init__(self, message: str = "", *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


__all__ = [
    "AuthInvalid",
    "BucketExists",
    "BucketFull",
    "BucketNotFound",
    "CodecError",
    "ConnectFailed",
    "InvalidDeliver",
    "InvalidKey",
    "InvalidKeys",
    "InvalidName",
    "InvalidTTL",
    "JetStreamApiError",
    "JetStreamNotEnabled",
    "MissingRequiredKey",
    "NatsKVError",
    "NotConnected",
    "OperationTimedOut",
    "OperationalError",
    "PermissionsViolation",
    "UnknownConfigKey",
    "UsageError",
    "ValueTooLarge",
    "WrongRevision",
]
