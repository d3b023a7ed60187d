"""Values: between what a program caches and the bytes and headers that a bucket keeps.

Owns the formats of values. Knows nothing of buckets, chunks or the network, and of keys only that a value is bound to
the one that it is stored under.

A format is named in the header ``Natskv-Format``:

==================  ============================  =============================================================
codec               header                        bytes
==================  ============================  =============================================================
"pickle"            none                          an integer, in ASCII decimals: any NATS client reads it
"pickle"            ``pickle``                    a signature of 32 bytes, then the pickle
"pickle"            ``pickle+zlib`` (or other)    a signature of 32 bytes, then the compressed pickle
any other           none                          what the codec made
any other           ``json+zlib`` (or other)      what the codec made, compressed ("custom" for an object)
==================  ============================  =============================================================

The signature covers the key, the format and all that follows it, and is verified before anything is decompressed or
unpickled. Integers and the values of other codecs are not signed: whoever may write to the bucket may write those.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from django_natskv.cache import compression, signing
from django_natskv.exceptions import CodecError
from django_natskv.kv.codecs import Codec, resolve

FORMAT = "Natskv-Format"
PICKLE = "pickle"

COMPRESS_MIN = 1024  # bytes; below, compression costs more than it saves
MOST_UNSIGNED = 128 * 2**20  # bytes that an unsigned value may have when decompressed

# Whatever sys.set_int_max_str_digits says, 640 digits may be converted, and cost nothing.
_INT_BITS = 2_000
_INT_DIGITS = 640
_SMALL = 4096  # bytes


class UnreadableValueError(CodecError):
    """Stored bytes are no value that can be given out: a cache takes them for a miss.

    ``reason`` is "format" (no format of this codec), "signature" (not signed by this project, or for another key),
    "compression" or "codec" (does not decode, or does not unpickle). The cause, if there is one, is ``__cause__``.
    """

    def __init__(self, message: str = "", *, bucket: str = "", key: str = "", reason: str = "") -> None:
        super().__init__(message, bucket=bucket, key=key)
        self.reason = reason


class Values:
    """Turns values into what is stored, and back, by one codec.

    ``codec`` is "pickle", a name or dotted path that ``kv`` knows ("json", "msgpack"), or an object with ``encode`` and
    ``decode``. ``compress`` is None or the method for values of at least ``compress_min`` encoded bytes, "zlib",
    "lzma" or "zstd"; what does not get smaller is left as it is, and what any method compressed can be read, whatever
    ``compress`` is now. ``most_unsigned`` is how many bytes a value that is not signed may have when decompressed; a
    larger one is stored as it is.

    Raises ``UsageError`` for a codec, and ``ImproperlyConfigured`` for a method, that does not exist here.
    """

    def __init__(
        self,
        codec: Any = PICKLE,
        *,
        compress: str | None = None,
        compress_min: int = COMPRESS_MIN,
        most_unsigned: int = MOST_UNSIGNED,
    ) -> None:
        self._codec: Codec | None = None if codec == PICKLE else resolve(codec)
        self._name = codec if isinstance(codec, str) and "." not in codec else "custom"
        self._method = None if compress is None else compression.method(compress)
        self._compress_min = compress_min
        self._most_unsigned = most_unsigned

    def dump(self, key: str, value: Any) -> tuple[bytes, dict[str, str]]:
        """Return the bytes and the headers, not to be changed, to store for ``value`` under the stored key ``key``.

        What the codec raises passes: ``PicklingError``, ``AttributeError``, ``TypeError``, ... Nothing was stored then.
        """
        if self._codec is not None:
            payload, form = self._compressed(self._codec.encode(value), self._most_unsigned)
            return payload, _said(form) if form != self._name else _NOTHING
        if type(value) is int and value.bit_length() <= _INT_BITS:  # a bool or an IntEnum has to come back as one
            return str(value).encode(), _NOTHING
        payload, form = self._compressed(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        return signing.sign(_context(key, form), payload) + payload, _said(form)

    def load(self, key: str, data: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """Return the value of ``data``, as found under the stored key ``key`` with ``headers``.

        Raises ``UnreadableValueError``, and nothing else, for what this codec did not store under this key.
        """
        form = headers.get(FORMAT) if headers else None
        if self._codec is not None:
            return self._decode(self._codec, key, data, form)
        if form is None:
            return _load_int(key, data)
        return self._load_signed(key, data, form)

    def maker(self, key: str, data: bytes, headers: Mapping[str, str] | None = None) -> Callable[[], Any]:
        """Return what gives the value of what ``load`` has read before, each time anew, without verifying it again."""
        form = headers.get(FORMAT) if headers else None
        if self._codec is not None or form is None:
            return partial(self.load, key, data, headers)
        payload, method = memoryview(data)[signing.SIZE :], self._method_of(key, form)
        return partial(pickle.loads, payload if method is None else _decompress(method, key, payload, None))

    def _load_signed(self, key: str, data: bytes, form: str) -> Any:
        method = None if form == self._name else self._method_of(key, form)
        # To copy a small value costs less than to view it.
        payload = data[signing.SIZE :] if len(data) < _SMALL else memoryview(data)[signing.SIZE :]
        if not signing.verify(_context(key, form), payload, data[: signing.SIZE]):
            message = (
                f"The value of {key!r} is not signed with this project's SECRET_KEY for this key: it was not read."
            )
            raise UnreadableValueError(message, key=key, reason="signature")
        pickled = payload if method is None else _decompress(method, key, payload, None)
        try:
            return pickle.loads(pickled)  # noqa: S301 - verified above
        except Exception as error:  # a class that is gone, and whatever else a class does when it is made
            raise _undecodable(key) from error

    def _decode(self, codec: Codec, key: str, data: bytes, form: str | None) -> Any:
        method = None if form is None else self._method_of(key, form)
        encoded = data if method is None else _decompress(method, key, data, self._most_unsigned)
        try:
            return codec.decode(encoded)
        except Exception as error:  # a codec raises whatever suits it
            raise _undecodable(key) from error

    def _compressed(self, payload: bytes, most: int | None = None) -> tuple[bytes, str]:
        size = len(payload)
        if self._method is None or size < self._compress_min or (most is not None and size > most):
            return payload, self._name
        smaller = self._method.compress(payload)
        return (smaller, f"{self._name}+{self._method.name}") if len(smaller) < size else (payload, self._name)

    def _method_of(self, key: str, form: str) -> compression.Method | None:
        name, plus, method = form.partition("+")
        if name != self._name or (plus and method not in compression.NAMES):
            message = f"The value of {key!r} is in a format that the codec {self._name!r} does not write."
            raise UnreadableValueError(message, key=key, reason="format")
        if not plus:
            return None
        try:
            return compression.method(method)
        except ImproperlyConfigured as error:  # "zstd", written where there is one
            message = f"The value of {key!r} cannot be decompressed: {error}"
            raise UnreadableValueError(message, key=key, reason="compression") from error


_NOTHING: dict[str, str] = {}


@cache
def _said(form: str) -> dict[str, str]:
    """Return the headers that name a format: the same ones each time, so that many values have them in common."""
    return {FORMAT: form}


def _context(key: str, form: str) -> bytes:
    """Return what a signature covers beside the payload; with the length, so that it is told from the payload."""
    return f"{form}:{len(key)}:{key}".encode()


def _load_int(key: str, data: bytes) -> int:
    digits = data[1:] if data[:1] == b"-" else data
    if digits.isdigit() and len(digits) <= _INT_DIGITS:  # int() alone takes spaces and underscores too
        return int(data)
    message = f"The value of {key!r} is neither an integer nor signed: it was not read."
    raise UnreadableValueError(message, key=key, reason="format")


def _decompress(method: compression.Method, key: str, data: bytes | memoryview, most: int | None) -> bytes:
    try:
        return method.decompress(data, most)
    except compression.DecompressionError as error:
        message = f"The value of {key!r} cannot be decompressed: {error}."
        raise UnreadableValueError(message, key=key, reason="compression") from error


def _undecodable(key: str) -> UnreadableValueError:
    return UnreadableValueError(f"The value of {key!r} cannot be decoded.", key=key, reason="codec")
