"""Compression: smaller bytes for large values, and no more memory than allowed to have them back.

Owns the methods by name. Knows nothing of what is compressed, nor of the network.
"""

from __future__ import annotations

import importlib
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured

NAMES = ("zlib", "lzma", "zstd")

_WORKING_MEMORY = 64 * 2**20  # bytes that lzma may use beside its output; what we write needs two megabytes
_ZSTD_WINDOW_LOG = 26  # the same for zstd, as a power of two


class DecompressionError(Exception):
    """What was to be decompressed is damaged, goes on after its end, or is larger than allowed."""


class _Decompressor(Protocol):
    """What the decompressors of the standard library have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Any, max_length: int = ..., /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Method:
    """A way to compress, by its name in ``NAMES``; ``method()`` gives them."""

    name: str
    compress: Callable[[bytes], bytes]
    _decompressor: Callable[[], _Decompressor]
    _errors: tuple[type[Exception], ...]

    def decompress(self, data: bytes | memoryview, most: int | None) -> bytes:
        """Return what ``data`` was before it was compressed, if that is at most ``most`` bytes (None: no bound).

        Raises ``DecompressionError`` if it is more, or if ``data`` is damaged. It never takes much more memory than
        ``most``, whatever ``data`` is.
        """
        decompressor = self._decompressor()
        try:
            found = decompressor.decompress(data, (sys.maxsize if most is None else most + 1))
        except self._errors as error:
            message = f"these are no {self.name} data: {error}"
            raise DecompressionError(message) from error
        if most is not None and len(found) > most:
            message = f"decompressed, this is more than {most:,} bytes"
            raise DecompressionError(message)
        if not decompressor.eof or decompressor.unused_data:
            message = f"these {self.name} data end too early, or too late"
            raise DecompressionError(message)
        return found


@cache
def method(name: str) -> Method:
    """Return the method named ``name``.

    Raises ``ImproperlyConfigured`` if there is none, or if it is "zstd" and neither the interpreter (Python 3.14) nor
    the package ``backports.zstd`` has it.
    """
    if name == "zlib":
        return Method(name, zlib.compress, zlib.decompressobj, (zlib.error,))
    if name == "lzma":
        return Method(name, _lzma_compress, _lzma_decompressor, (lzma.LZMAError, EOFError))
    if name == "zstd":
        return _zstd()
    message = f"There is no compression named {name!r}: choose one of {', '.join(NAMES)}, or None."
    raise ImproperlyConfigured(message)


def _lzma_compress(data: bytes) -> bytes:
    return lzma.compress(data, preset=1)  # of the presets, the one whose time suits a cache


def _lzma_decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WORKING_MEMORY)


def _zstd() -> Method:
    zstd = _import("compression.zstd", "backports.zstd")
    if zstd is None:
        message = (
            'The compression "zstd" needs Python 3.14 or backports.zstd: pip install "django-natskv[zstd]". Or choose '
            '"zlib", which needs nothing.'
        )
        raise ImproperlyConfigured(message)
    options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return Method("zstd", zstd.compress, lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError, EOFError))


def _import(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
