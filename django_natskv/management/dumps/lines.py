"""The lines of a dump: a header, an entry each, and a last line that counts them.

Owns the format, both ways. Must not know where lines come from or go to.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django_natskv.exceptions import UsageError
from django_natskv.kv import BucketConfig, Entry, Operation

FORMAT = "natskv-dump"
VERSION = 1
# What some take for the end of a line, what steers a terminal, and what is no UTF-8: only in strings, where it is
# spelled out.
_UNFIT = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NO_HEADERS: Mapping[str, str] = {}


class DumpError(ValueError):
    """A line that is none of a dump; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What was dumped. ``revision`` was the newest of the bucket when the dump began."""

    bucket: str
    config: Mapping[str, Any]
    time: datetime
    revision: int
    history: bool
    keys: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Line:
    """One revision of one key; ``value`` is None for markers."""

    key: str
    operation: Operation
    revision: int
    created: datetime
    ttl_ms: int | None
    headers: Mapping[str, str]
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Trailer:
    """The end: how many entries there were."""

    entries: int


def write_header(header: Header) -> bytes:
    """Return the first line."""
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "bucket": header.bucket,
            "config": header.config,
            "time": header.time.isoformat(),
            "revision": header.revision,
            "history": header.history,
            "keys": header.keys,
        }
    )


def write_entry(entry: Entry) -> bytes:
    """Return the line of an entry, whose value is bytes."""
    line: dict[str, Any] = {
        "key": entry.key,
        "operation": entry.operation.value,
        "revision": entry.revision,
        "created": entry.created.isoformat(),
    }
    if entry.ttl_ms is not None:
        line["ttl_ms"] = entry.ttl_ms
    line["headers"] = dict(entry.headers)
    if entry.operation is Operation.PUT:
        try:
            line["value"] = entry.value.decode()
        except UnicodeDecodeError:
            line["base64"] = binascii.b2a_base64(entry.value, newline=False).decode()
    return _line(line)


def write_trailer(entries: int) -> bytes:
    """Return the last line."""
    return _line({"entries": entries})


def _line(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, ensure_ascii=False)
    return _UNFIT.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


def read_header(raw: bytes) -> Header:
    """Return what the first line says; ``DumpError``."""
    content = _object(raw)
    if content.get("format") != FORMAT:
        raise DumpError("this is no dump of a bucket")
    if content.get("version") != VERSION:
        raise DumpError(f"this dump is of version {content.get('version')!r}, and {VERSION} is what can be read")
    keys = None if content.get("keys") is None else tuple(_of(content, "keys", list))
    try:
        BucketConfig.parse({**_of(content, "config", dict), "bucket": content.get("bucket")})
    except UsageError as error:
        raise DumpError(f"config is none of a bucket: {error}") from None
    return Header(
        bucket=_of(content, "bucket", str),
        config=_of(content, "config", dict),
        time=_time(content, "time"),
        revision=_of(content, "revision", int),
        history=_of(content, "history", bool),
        keys=keys,
    )


def read_line(raw: bytes) -> Line | Trailer:
    """Return what a line after the first says; ``DumpError``."""
    content = _object(raw)
    if "key" not in content:
        return Trailer(_of(content, "entries", int))
    unknown = content.keys() - _FIELDS
    if unknown:
        raise DumpError(f"{min(unknown)!r} is no field of an entry")
    try:
        operation = Operation(str(content.get("operation")))
    except ValueError:
        raise DumpError(f'operation is "put", "delete" or "purge", not {content.get("operation")!r}') from None
    headers = content.get("headers", _NO_HEADERS)
    ttl_ms = content.get("ttl_ms")
    if not isinstance(headers, Mapping) or not (ttl_ms is None or (type(ttl_ms) is int and ttl_ms >= 0)):
        raise DumpError("headers are a mapping, and ttl_ms is a whole number, 0 or more")
    return Line(
        key=_of(content, "key", str),
        operation=operation,
        revision=_of(content, "revision", int),
        created=_time(content, "created"),
        ttl_ms=ttl_ms,
        headers=headers,
        value=_value(content, operation),
    )


_FIELDS = {"key", "operation", "revision", "created", "ttl_ms", "headers", "value", "base64"}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or deeper than any line of ours
        raise DumpError("this is no line of JSON") from None
    if not isinstance(content, dict):
        raise DumpError("this is no JSON object")
    return content


def _of(content: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = content.get(name)
    if type(value) is not kind:
        raise DumpError(f"{name!r} is missing or not of the type {kind.__name__}")
    return value


def _time(content: Mapping[str, Any], name: str) -> datetime:
    try:
        time = datetime.fromisoformat(_of(content, name, str))
    except ValueError:
        raise DumpError(f"{name!r} is no time in ISO 8601") from None
    if time.tzinfo is None:
        raise DumpError(f"{name!r} has no time zone")
    return time


def _value(content: Mapping[str, Any], operation: Operation) -> bytes | None:
    given = [name for name in ("value", "base64") if name in content]
    if len(given) != (operation is Operation.PUT):
        raise DumpError('a put has one of "value" and "base64", and nothing else has')
    if not given:
        return None
    convert: Callable[[str], bytes] = str.encode if given == ["value"] else _from_base64
    try:
        return convert(_of(content, given[0], str))
    except ValueError:
        raise DumpError(f"{given[0]!r} does not stand for bytes") from None


def _from_base64(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)
