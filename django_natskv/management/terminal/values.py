"""A value that is to be written: from the arguments, from stdin or from a file.

Owns how its text becomes the bytes to store. Must not know which verb writes them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import CommandParser

from django_natskv.exceptions import UsageError
from django_natskv.kv import Codec
from django_natskv.kv.codecs import BytesCodec, TextCodec
from django_natskv.management.terminal.reading import add_codec, codec_of
from django_natskv.management.terminal.verb import Call

STDIN = "-"
_ARGUMENT = "VALUE"  # where a value is from, in words


def add_value(parser: CommandParser, after: str = "") -> None:
    """Add the argument VALUE, what may stand in its place, and how it is read; ``after`` may follow VALUE."""
    parser.usage = f"%(prog)s [options] BUCKET KEY VALUE{after}"
    parser.add_argument(
        "value",
        nargs="*",
        metavar=f"VALUE{after}",
        help="the value, read by the codec: JSON under json; - reads it from stdin; -- before one that begins with a -"
        + (", and the revision that the key must still be at" if after else ""),
    )
    add_value_file(parser)
    reading = parser.add_mutually_exclusive_group()
    reading.add_argument("--text", action="store_true", help="the value is a text, whatever the codec")
    reading.add_argument("--raw", action="store_true", help="store the bytes as they are, without a codec")
    add_codec(parser)


def add_value_file(parser: CommandParser) -> None:
    """Add the file that may stand in the place of VALUE."""
    parser.add_argument("--file", metavar="PATH", help="read the value from a file instead")


def split_value(call: Call, following: int = 0) -> tuple[str | None, list[str]]:
    """Return VALUE, None with ``--file``, and at most ``following`` arguments behind it; ``UsageError``."""
    given: list[str] = list(call.options["value"])
    value = None
    if call.options["file"] is None:
        if not given:
            raise UsageError("VALUE is missing: give it, or - to read it from stdin, or --file PATH.")
        value = given.pop(0)
    if len(given) > following:
        if call.options["file"] is not None:
            raise UsageError("--file stands in the place of VALUE: give one of them.")
        raise UsageError("There are too many arguments: quote a VALUE that has spaces.")
    return value, given


def bytes_of(call: Call, value: str | None) -> bytes:
    """Return what to store for VALUE; ``UsageError``, naming where it is from, for what cannot be read as asked."""
    if call.options["raw"] and call.options["codec"] is not None:
        raise UsageError("--raw contradicts --codec: give one of them.")
    codec = BytesCodec() if call.options["raw"] else codec_of(call)
    source, content = _content(call, value)
    if isinstance(codec, BytesCodec) and not call.options["text"]:
        return content
    text = _decoded(source, content, " --raw stores bytes as they are.")
    if isinstance(codec, BytesCodec):
        return content
    if call.options["text"] or isinstance(codec, TextCodec):
        return _encode(codec, text, source)
    return _encode(codec, _from_json(text, source), source)


def text_of(call: Call, value: str | None) -> str:
    """Return the text of VALUE, of stdin or of a file, without the end of its last line; ``UsageError``."""
    source, content = _content(call, value)
    text = _decoded(source, content)
    return text if source == _ARGUMENT else text.removesuffix("\n").removesuffix("\r")


def _decoded(source: str, content: bytes, advice: str = "") -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8{':' if advice else '.'}{advice}") from error


def _content(call: Call, value: str | None) -> tuple[str, bytes]:
    """Return where the value is from, in words, and its bytes."""
    path = call.options["file"]
    if STDIN in (value, path):
        return "stdin", call.read_stdin()
    if value is not None:
        return _ARGUMENT, os.fsencode(value)  # the very bytes of the argument, of which not all are text
    try:
        return "The file", Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--file: {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error


def _from_json(text: str, source: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        where = str(error)
    raise UsageError(f"{source} is not JSON ({where}): quote it as JSON, or store it as a text with --text.")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _encode(codec: Codec, value: Any, source: str) -> bytes:
    try:
        return bytes(codec.encode(value))
    except Exception as error:
        message = f"{source} holds a number or a text that the codec cannot store ({type(error).__name__})."
        raise UsageError(message) from error
