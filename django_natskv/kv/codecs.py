"""Codecs: between values and the bytes that are stored.

Owns the protocol, the registry of names and the codecs that need no secret. Knows nothing of buckets or of Django's
settings: the signed "pickle" codec is registered by the cache, which holds the key (API.md 5).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from django_natskv.exceptions import UsageError


@runtime_checkable
class Codec(Protocol):
    """Turns values into bytes and back. Both methods raise whatever suits them; callers see ``CodecError``."""

    def encode(self, value: Any) -> bytes:
        """Return the bytes to store for ``value``."""

    def decode(self, data: bytes) -> Any:
        """Return the value that ``data`` stands for."""


class JSONCodec:
    """JSON as UTF-8, with the types that Django's own JSON encoder adds (dates, Decimal, UUID, lazy strings).

    What comes back is plain JSON: a datetime is read as the string that it was written as. ``NaN`` and infinities,
    which are not JSON, are refused. Readable by any NATS client.
    """

    def __init__(self) -> None:
        # Imported when first used, so that the facade itself needs no Django (ADR 0002).
        encoder = importlib.import_module("django.core.serializers.json").DjangoJSONEncoder
        self._encode: Callable[[Any], str] = encoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as compact JSON; ``TypeError`` or ``ValueError`` for what JSON cannot hold."""
        return self._encode(value).encode()

    def decode(self, data: bytes) -> Any:
        """Return what the JSON in ``data`` says; ``ValueError`` if it is none."""
        return json.loads(data)


class BytesCodec:
    """Bytes as they are. Takes ``bytes``, ``bytearray`` and ``memoryview``; gives ``bytes``."""

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as ``bytes``; ``TypeError`` for anything that is not bytes already."""
        if type(value) is bytes:
            return value
        if type(value) is bytes:
            return value
        if not isinstance(value, bytes | bytearray | memoryview):
            message = f"the bytes codec takes bytes, not {type(value).__name__}"
            raise TypeError(message)
        return bytes(value)

    def decode(self, data: bytes) -> bytes:
        """Return ``data``."""
        return data


class TextCodec:
    """Text as UTF-8."""

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as UTF-8; ``TypeError`` for anything that is not ``str``."""
        if not isinstance(value, str):
            message = f"the text codec takes str, not {type(value).__name__}"
            raise TypeError(message)
        return value.encode()

    def decode(self, data: bytes) -> str:
        """Return the text of ``data``; ``UnicodeDecodeError`` if it is not UTF-8."""
        return data.decode()


class MsgpackCodec:
    """MessagePack, with aware datetimes. Needs the ``msgpack`` extra."""

    def __init__(self) -> None:
        try:
            self._msgpack = importlib.import_module("msgpack")
        except ImportError as error:
            message = 'The "msgpack" codec needs msgpack: pip install "django-natskv[msgpack]".'
            raise UsageError(message) from error

    def encode(self, value: Any) -> bytes:
        """Return ``value`` as MessagePack; ``TypeError`` or ``ValueError`` for what it cannot hold."""
        packed: bytes = self._msgpack.packb(value, datetime=True)
        return packed

    def decode(self, data: bytes) -> Any:
        """Return what ``data`` holds; ``ValueError`` if it is not MessagePack."""
        # What may be written has to be read again: keys of a map that are not text, too.
        return self._msgpack.unpackb(data, timestamp=3, strict_map_key=False)


_factories: dict[str, Callable[[], Codec]] = {
    "json": JSONCodec,
    "bytes": BytesCodec,
    "text": TextCodec,
    "msgpack": MsgpackCodec,
}
_made: dict[str, Codec] = {}


def register(name: str, factory: Callable[[], Codec]) -> None:
    """Give the codec that ``factory`` makes, on first use, the name ``name``; a later registration replaces it."""
    _factories[name] = factory
    _made.pop(name, None)


def names() -> tuple[str, ...]:
    """Return the registered names."""
    return tuple(_factories)


def resolve(codec: Any) -> Codec:
    """Return the codec that ``codec`` means: a registered name, a dotted path, or an object that is one.

    Raises ``UsageError`` for anything else. A class at the end of a dotted path is called without arguments.
    """
    if isinstance(codec, str):
        if codec not in _made:
            _made[codec] = _make(codec)
        return _made[codec]
    if callable(getattr(codec, "encode", None)) and callable(getattr(codec, "decode", None)):
        if isinstance(codec, type):
            message = f"A codec is an object: pass {codec.__name__}(), not the class."
            raise UsageError(message)
        return codec  # type: ignore[no-any-return]
    message = f"{type(codec).__name__} is no codec: it needs encode(value) -> bytes and decode(bytes) -> value."
    raise UsageError(message)


def _make(name: str) -> Codec:
    if name in _factories:
        return _factories[name]()
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        message = f"There is no codec at {name!r}: {error}."
        raise UsageError(message) from error
    if found is None:
        message = f"There is no codec named {name!r}: choose one of {', '.join(_factories)}, or give a dotted path."
        raise UsageError(message)
    return resolve(found() if isinstance(found, type) else found)
