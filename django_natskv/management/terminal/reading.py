"""Stored bytes as a person, or a tool, reads them.

Owns what becomes of bytes that the codec does not understand. Must not know which verb shows them.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from django.core.management.base import CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from django_natskv.exceptions import UsageError
from django_natskv.kv import Codec
from django_natskv.kv.codecs import BytesCodec, TextCodec, resolve
from django_natskv.management.terminal.output import to_json_line
from django_natskv.management.terminal.verb import Call


@dataclass(frozen=True, slots=True)
class Reading:
    """A value to show: as something that JSON can hold, beside the ``data`` that is stored.

    ``is_text``: a text that nothing has quoted. ``is_strange``: the codec does not understand the data.
    """

    data: bytes
    value: Any
    is_text: bool = False
    is_strange: bool = False

    def __str__(self) -> str:
        """A text as it is, everything else as JSON in one line."""
        return str(self.value) if self.is_text else to_json_line(self.value)


class Reader:
    """The codec of a handle whose values are to be shown: reads what ``codec`` reads, and everything else too.

    One value that another program wrote must not hide all others. What is not understood is a text if it is UTF-8,
    else base64. What is written goes as it is.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    @staticmethod
    def encode(value: bytes) -> bytes:
        """Return ``value``."""
        return value

    def decode(self, data: bytes) -> Reading:
        """Return what is to be shown of ``data``."""
        if isinstance(self._codec, BytesCodec | TextCodec):
            shown = _bare(data)
            return _bare(data, is_strange=isinstance(self._codec, TextCodec) and not shown.is_text)
        try:
            # There and back: dates and such become what JSON has, and what it cannot hold is found out.
            text = json.dumps(self._codec.decode(data), cls=_Encoder, ensure_ascii=False, allow_nan=False)
            return Reading(data, json.loads(text))
        except Exception:  # noqa: BLE001 - a codec may raise whatever suits it
            return _bare(data, is_strange=True)


class _Encoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        return _base64(bytes(o)) if isinstance(o, bytes | bytearray | memoryview) else super().default(o)


def _bare(data: bytes, *, is_strange: bool = False) -> Reading:
    try:
        return Reading(data, data.decode(), is_text=True, is_strange=is_strange)
    except UnicodeDecodeError:
        return Reading(data, _base64(data), is_strange=is_strange)


def _base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def add_codec(parser: CommandParser) -> None:
    """Add the choice of a codec."""
    parser.add_argument(
        "--codec",
        metavar="CODEC",
        help="how values are stored: json, text, bytes, msgpack or a dotted path (default: CODEC of the connection)",
    )


def codec_of(call: Call) -> Codec:
    """Return the codec that was asked for, else the connection's; ``UsageError``."""
    name = call.options["codec"]
    if name is None:
        return resolve(call.connection.settings.codec)
    try:
        return resolve(name)
    except UsageError as error:
        raise UsageError(f"--codec: {error}") from error


def note_strange(call: Call, key: str, revision: int) -> None:
    """Say that what is shown is not what the codec would give."""
    name = call.options["codec"] or call.connection.settings.codec
    codec = f"the codec {name!r}" if isinstance(name, str) else "the codec of the connection"
    call.warn(f"Revision {revision} of {key!r} is not what {codec} writes: it is shown as text, or in base64.")
