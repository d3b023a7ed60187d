"""The frozen values of the facade: entries, a bucket's configuration and its status.

Owns their shapes and the rules of a configuration. Knows nothing of how they travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from django_natskv.exceptions import InvalidDeliver, InvalidTTL, MissingRequiredKey, UnknownConfigKey, UsageError
from django_natskv.kv.names import check_name

MAX_HISTORY = 64
SECOND = 1_000  # milliseconds
MAX_TTL_MS = 100 * 366 * 86_400_000  # a century; the server adds it to the time, in nanoseconds and 63 bits
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_MAX_VALUE_SIZE = 2**31 - 1  # what the server can count to
_MAX_BUCKET_SIZE = 2**63 - 1


class Operation(StrEnum):
    """What a revision did to its key."""

    PUT = "put"
    DELETE = "delete"
    PURGE = "purge"


class Deliver(StrEnum):
    """What a watch delivers first: each key's current value, the whole history, or nothing but what is new."""

    LATEST = "latest"
    HISTORY = "history"
    UPDATES = "updates"

    @classmethod
    def check(cls, deliver: object) -> Deliver:
        """Return the mode that ``deliver`` names, else raise ``InvalidDeliver``."""
        try:
            return cls(deliver)  # type: ignore[arg-type]
        except ValueError:
            message = f"deliver is one of 'latest', 'history' and 'updates', not {deliver!r}."
            raise InvalidDeliver(message, deliver=deliver) from None


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision of one key.

    ``value`` is decoded by the bucket's codec; a marker (``operation`` "delete" or "purge") has None, undecoded.
    ``created`` is aware, in UTC, as the server noted it. ``delta`` is the distance from the key's newest revision
    (0 for the newest) in history and watch, and None elsewhere. ``headers`` are those that the application wrote
    with the value. ``ttl_ms`` is the time to live, in milliseconds, that it was given when it was written: None for
    that of its bucket, and in a local cache; 0 for one that outlives its bucket's.
    """

    bucket: str
    key: str
    value: Any
    revision: int
    created: datetime
    operation: Operation
    delta: int | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, hash=False)
    ttl_ms: int | None = field(default=None, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy: a view of headers cannot be."""
        values: list[Any] = [getattr(self, name) for name in _names(type(self))]
        headers = _names(type(self)).index("headers")
        values[headers] = dict(self.headers)
        return _entry, (type(self), headers, values)


_new = object.__new__
_bucket, _key, _value, _revision, _created, _operation, _delta, _headers, _ttl_ms = (
    vars(Entry)[each.name].__set__ for each in fields(Entry)
)


def make_entry(  # noqa: PLR0913, PLR0917 - the fields of an entry
    bucket: str,
    key: str,
    value: Any,
    revision: int,
    created: datetime,
    operation: Operation,
    delta: int | None,
    headers: Mapping[str, str],
    ttl_ms: int | None,
) -> Entry:
    """Return the entry of all these: in half the time that a frozen dataclass takes to make itself."""
    entry = _new(Entry)
    _bucket(entry, bucket)
    _key(entry, key)
    _value(entry, value)
    _revision(entry, revision)
    _created(entry, created)
    _operation(entry, operation)
    _delta(entry, delta)
    _headers(entry, headers)
    _ttl_ms(entry, ttl_ms)
    return entry


def _names(cls: type[Entry]) -> list[str]:
    return [each.name for each in fields(cls)]


def _entry(cls: type[Entry], headers: int, values: list[Any]) -> Entry:
    values[headers] = MappingProxyType(values[headers]) if values[headers] else NO_HEADERS
    return cls(*values)


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """How a bucket is made: the closed set of options. None means "not given".

    ``history``: revisions kept a key, 1 to 64. ``ttl_ms`` and ``limit_marker_ttl_ms``: milliseconds.
    ``max_value_size`` and ``max_bucket_size``: bytes, -1 for no limit; the
    server counts headers with a value, which take up to 80 bytes in a guarded write or a delete.
    ``storage``: "file" or "memory". ``discard``: what a bucket that is full does with the next value:
    "new" refuses it with ``BucketFull``, "old" takes it and drops the oldest writes, of any key.
    ``replicas``: 1 to 5. ``placement``: ``{"cluster": str, "tags": [str]}``. ``republish``:
    ``{"source": pattern, "destination": pattern, "headers_only": bool}``. ``mirror``: a bucket's name, or
    ``{"bucket": name, "domain": str}``; ``sources``: a list of the same.

    In an update, a description is taken back by "", a TTL by 0, a limit by -1, ``metadata``, ``placement`` and
    ``republish`` by an empty mapping and ``sources`` by an empty list. A mirror stays one, and the storage as it is.
    """

    bucket: str
    description: str | None = None
    history: int | None = None
    ttl_ms: int | None = None
    max_value_size: int | None = None
    max_bucket_size: int | None = None
    storage: str | None = None
    discard: str | None = None
    replicas: int | None = None
    compression: bool | None = None
    limit_marker_ttl_ms: int | None = None
    metadata: Mapping[str, str] | None = None
    placement: Mapping[str, Any] | None = None
    republish: Mapping[str, Any] | None = None
    mirror: Mapping[str, Any] | None = None
    sources: tuple[Mapping[str, Any], ...] | None = None

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the names of all options, ``bucket`` first."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def parse(cls, config: Mapping[str, Any] | BucketConfig) -> BucketConfig:
        """Return ``config`` checked and normalized.

        Raises ``MissingRequiredKey`` without ``bucket``, ``UnknownConfigKey`` for an option that is none,
        ``InvalidName`` for a bad name and ``UsageError`` for a value of the wrong type or out of range.
        """
        given: object = config.given() if isinstance(config, BucketConfig) else config
        if not isinstance(given, Mapping):
            message = f"A bucket's configuration is a mapping, not {type(config).__name__}."
            raise UsageError(message)
        for key in given:
            if key not in cls.__slots__:
                raise UnknownConfigKey(_unknown(key, cls.keys()), key=key)
        if given.get("bucket") is None:
            message = 'A bucket\'s configuration needs its name under "bucket".'
            raise MissingRequiredKey(message, key="bucket")
        # None means "not given", except where it has a meaning of its own: no description is an empty one.
        values = {key: _CLEARED.get(key) if value is None else value for key, value in given.items()}
        return cls(**{key: _RULES[key](key, value) for key, value in values.items() if value is not None})

    def given(self) -> dict[str, Any]:
        """Return the options that were given, the bucket's name among them."""
        values = {name: getattr(self, name) for name in self.keys()}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """A bucket's configuration as the server applied it, with its counters.

    ``description`` is None when unset, ``ttl_ms`` and ``limit_marker_ttl_ms`` 0 when none, sizes -1 when unlimited.
    ``values`` counts live entries: neither markers nor older revisions. ``bytes`` is the stored size.
    """

    bucket: str
    description: str | None
    history: int
    ttl_ms: int
    max_value_size: int
    max_bucket_size: int
    storage: str
    discard: str
    replicas: int
    compression: bool
    limit_marker_ttl_ms: int
    metadata: Mapping[str, str]
    placement: Mapping[str, Any] | None
    republish: Mapping[str, Any] | None
    mirror: Mapping[str, Any] | None
    sources: tuple[Mapping[str, Any], ...]
    values: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A copy of a bucket on another server than the leader.

    ``current``: it has all that the leader had lately; ``lag`` counts the writes that it is behind. ``silent_ms``: how
    long ago the leader heard of it.
    """

    name: str
    current: bool
    online: bool
    lag: int
    silent_ms: int


@dataclass(frozen=True, slots=True)
class BucketHealth:
    """How a bucket is kept, which costs no look at its entries.

    ``keys`` counts distinct keys, those of which only a marker is left among them; ``revisions`` all that is kept.
    ``cluster`` and ``leader`` are None where there is no cluster; ``replicas`` are the copies beside the leader's.
    ``written`` is when the newest revision that is kept was written, None for an empty bucket.
    """

    bucket: str
    created: datetime
    keys: int
    revisions: int
    first_revision: int
    last_revision: int
    cluster: str | None
    leader: str | None
    replicas: tuple[Replica, ...]
    written: datetime | None = None


_CLEARED: dict[str, Any] = {"description": ""}


def _unknown(key: object, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for it

    close = get_close_matches(str(key), known, n=1)
    return f"{key!r} is not an option of a bucket." + (f" Did you mean {close[0]!r}?" if close else "")


def _wrong(key: str, wanted: str, value: object) -> UsageError:
    return UsageError(f"{key} is {wanted}, not {value!r}.")


def _integer(low: int, high: int, wanted: str) -> Any:
    def check(key: str, value: object) -> int:
        # A bool is an int to Python, and never meant as one here.
        if type(value) is not int or not low <= value <= high:
            raise _wrong(key, wanted, value)
        return value

    return check


def _marker_ttl(key: str, value: object) -> int:
    checked: int = _milliseconds(key, value)
    if 0 < checked < SECOND:
        # The server counts the life of markers in whole seconds and refuses less (F14).
        message = f"{key} is 0 or at least 1,000 milliseconds, not {checked}."
        raise InvalidTTL(message, ttl_ms=checked)
    return checked


def _size(high: int) -> Any:
    def check(key: str, value: object) -> int:
        # 0 would mean "unlimited" to the server, which is not what someone who writes 0 expects to read back.
        if type(value) is not int or value > high or (value < 1 and value != -1):
            raise _wrong(key, f"a number of bytes from 1 to {high:,}, or -1 for no limit", value)
        return value

    return check


def _milliseconds(key: str, value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TTL_MS:
        raise _wrong(key, "whole milliseconds, 0 for none and at most a century", value)
    return value


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "a string", value)
    if not _is_utf8(value):
        raise _wrong(key, "a text that UTF-8 can hold", value)
    return value


def _is_utf8(text: str) -> bool:
    # The server keeps something else of what is not, in silence.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _some_text(key: str, value: object) -> str:
    # An empty one the server takes in silence, and does nothing.
    if not _text(key, value):
        raise _wrong(key, "not empty", value)
    return str(value)


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "True or False", value)
    return value


def _storage(key: str, value: object) -> str:
    if value not in ("file", "memory"):
        raise _wrong(key, '"file" or "memory"', value)
    return str(value)


def _discard(key: str, value: object) -> str:
    if value not in ("new", "old"):
        raise _wrong(key, '"new" or "old"', value)
    return str(value)


def _metadata(key: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for item in value.items() for part in item):
        raise _wrong(key, "a mapping of strings to strings", value)
    if not all(_is_utf8(part) for item in value.items() for part in item):
        raise _wrong(key, "a mapping of texts that UTF-8 can hold", value)
    return dict(value)


def _closed(required: tuple[str, ...], optional: tuple[str, ...]) -> Any:
    known = required + optional

    def check(key: str, value: object) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(key, f"a mapping with {', '.join(known)}", value)
        for inner in value:
            if inner not in known:
                raise UnknownConfigKey(f"{key}: {_unknown(inner, known)}", key=f"{key}.{inner}")
        for inner in required:
            if value.get(inner) is None:
                raise MissingRequiredKey(f"{key} needs {inner!r}.", key=f"{key}.{inner}")
        return {inner: _INNER[inner](f"{key}.{inner}", part) for inner, part in value.items() if part is not None}

    return check


def _tags(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not all(isinstance(tag, str) for tag in value):
        raise _wrong(key, "a list of strings", value)
    return tuple(_text(key, tag) for tag in value)


def _inner_name(_key: str, value: object) -> str:
    return check_name(value)


_INNER: dict[str, Any] = {
    "cluster": _text,
    "tags": _tags,
    "source": _text,
    "destination": _some_text,
    "headers_only": _flag,
    "bucket": _inner_name,
    "domain": _text,
}
_origin_mapping = _closed(("bucket",), ("domain",))
_republish_mapping = _closed(("destination",), ("source", "headers_only"))


def _origin(key: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, str):
        return {"bucket": check_name(value)}
    return _origin_mapping(key, value)  # type: ignore[no-any-return]


def _republish(key: str, value: object) -> Mapping[str, Any]:
    if value == {}:
        return {}  # none at all
    return _republish_mapping(key, value)  # type: ignore[no-any-return]


def _mirror(key: str, value: object) -> Mapping[str, Any]:
    if value == {}:
        # From 2.12 the server would, and the entries would be left at their origin's name, which nobody reads here.
        message = (
            "A mirror stays one: its entries have the name of their origin. For a bucket of its own that has the same "
            "entries, create one with sources."
        )
        raise MissingRequiredKey(message, key=f"{key}.bucket")
    return _origin(key, value)


def _origins(key: str, value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list | tuple):
        raise _wrong(key, "a list of buckets", value)
    return tuple(_origin(f"{key}[{position}]", item) for position, item in enumerate(value))


_RULES: dict[str, Any] = {
    "bucket": lambda _key, value: check_name(value),
    "description": _text,
    "history": _integer(1, MAX_HISTORY, f"a whole number from 1 to {MAX_HISTORY}"),
    "ttl_ms": _milliseconds,
    "max_value_size": _size(_MAX_VALUE_SIZE),
    "max_bucket_size": _size(_MAX_BUCKET_SIZE),
    "storage": _storage,
    "discard": _discard,
    "replicas": _integer(1, 5, "a whole number from 1 to 5"),
    "compression": _flag,
    "limit_marker_ttl_ms": _marker_ttl,
    "metadata": _metadata,
    "placement": _closed((), ("cluster", "tags")),
    "republish": _republish,
    "mirror": _mirror,
    "sources": _origins,
}
