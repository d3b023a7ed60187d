"""The rules for single values: texts, paths, numbers, subjects, secrets, codecs and buckets.

Owns what a value may be and how it is read. Must not know which key it belongs to, nor any other key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django_natskv.conf._problem import Problem, at
from django_natskv.exceptions import InvalidName, UnknownConfigKey, UsageError
from django_natskv.kv import codecs
from django_natskv.kv.entries import BucketConfig
from django_natskv.kv.names import check_name

Check = Callable[[str, Any], Iterator[Problem]]

# Far above any sensible wait, and below what locks and event loops take without an overflow.
MAX_SECONDS = 86_400

# Registered by the cache, which holds the key that signs it; known by name wherever settings are checked.
_SIGNED_CODECS = ("pickle",)

_BREAKS_LINES = re.compile(r"[\r\n\0]")
_WORD = r"[^\s.*>\x00-\x1f\x7f]+"
_SUBJECT = re.compile(rf"{_WORD}(?:\.{_WORD})*\Z")
_DOMAIN = re.compile(rf"{_WORD}\Z")
_SEED = re.compile(r"S[A-Z2-7]{57}\Z")
_BLOCKS = ("-----BEGIN NATS USER JWT-----", "-----BEGIN USER NKEY SEED-----")


@dataclass(frozen=True, slots=True)
class Value:
    """What one key takes: ``check`` yields the problems of a value, ``read`` converts one that has none."""

    check: Check
    read: Callable[[Any], Any]


def wrong_type(path: str, value: object, wanted: str) -> Problem:
    """Return the problem of a value of the wrong type. Shows the type and never the value."""
    return Problem("E005", path, f"is {type(value).__name__}, not {wanted}.", f"Give {wanted}.")


# -- texts ------------------------------------------------------------------------------------------------------------


def broken_line(path: str, text: str) -> Iterator[Problem]:
    """Yield the problem of a text that holds a line break or a NUL, which the protocol has no room for."""
    if _BREAKS_LINES.search(text):
        yield Problem(
            "E007",
            path,
            "holds a line break or a NUL character.",
            "Remove it. A secret that is read from a file often ends in a line break: use .strip().",
        )


def _check_text(path: str, value: Any) -> Iterator[Problem]:
    if value is None:
        return
    if isinstance(value, str):
        yield from broken_line(path, value)
    else:
        yield wrong_type(path, value, "a string")


def _to_text(value: Any) -> str:
    return os.fspath(value) if value else ""


def _to_text_or_none(value: Any) -> str | None:
    return _to_text(value) or None


def _check_flag(path: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, bool):
        yield wrong_type(path, value, "True or False")


# -- parts of subjects ------------------------------------------------------------------------------------------------


def _check_prefix(path: str, value: Any) -> Iterator[Problem]:
    yield from _check_subject(
        path,
        value,
        Problem(
            "E008",
            path,
            "is not a prefix that the server can take.",
            "Give words joined by single dots, without spaces, control characters, * and >, and no dot first or last.",
        ),
        _SUBJECT,
    )


def _check_domain(path: str, value: Any) -> Iterator[Problem]:
    yield from _check_subject(
        path,
        value,
        Problem(
            "E009",
            path,
            "is not the name of a JetStream domain.",
            "Give one word, without dots, spaces, control characters, * and >.",
        ),
        _DOMAIN,
    )


def _check_subject(path: str, value: Any, problem: Problem, pattern: re.Pattern[str]) -> Iterator[Problem]:
    if value is not None and not isinstance(value, str):
        yield wrong_type(path, value, "a string or None")
    elif value and not pattern.match(value):
        yield problem


# -- files and secrets ------------------------------------------------------------------------------------------------


def _check_path(path: str, value: Any) -> Iterator[Problem]:
    if value is None:
        return
    try:
        text = os.fspath(value)
    except TypeError:
        text = value
    if isinstance(text, str):
        yield from broken_line(path, text)
    else:
        yield wrong_type(path, value, "a path")


def _to_path(value: Any) -> str:
    # Not pathlib, which raises where there is no home directory: the path then stays as it is, and is not found.
    return os.path.expanduser(_to_text(value))  # noqa: PTH111


def _to_path_or_none(value: Any) -> str | None:
    return _to_path(value) or None


def _check_file(path: str, value: Any) -> Iterator[Problem]:
    found = list(_check_path(path, value))
    yield from found
    if found or not value:
        return
    # The value is not shown: what should be the path of a key may be the key itself. And pathlib will not do here: its
    # ``is_file`` raises for a name that is too long, as a pasted key is.
    name = _to_path(value)
    if not (os.path.isfile(name) and os.access(name, os.R_OK)):  # noqa: PTH113
        yield Problem(
            "W002",
            path,
            "names a file that does not exist or that this process may not read.",
            'A relative path starts in the working directory of the process: prefer BASE_DIR / "name".',
        )


def _check_credentials(path: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, str) or not _looks_like_text(value):
        yield from _check_file(path, value)
    elif not all(block in value for block in _BLOCKS):
        yield Problem(
            "E023",
            path,
            "holds text that is not a .creds file.",
            "Give the path of a .creds file, or all of its text: the user JWT and the NKEY seed.",
        )


def _looks_like_text(value: str) -> bool:
    return "-----BEGIN" in value or "\n" in value


def _check_seed(path: str, value: Any) -> Iterator[Problem]:
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or not _SEED.match(text):
        yield from _check_file(path, text)
    elif not text.startswith("SU"):
        yield Problem(
            "E024",
            path,
            "holds the seed of something that is not a user.",
            "The seed of a user begins with SU; one of an account (SA) or an operator (SO) does not belong here.",
        )


def _to_seed(value: Any) -> str:
    return _to_path(value).strip()


# -- numbers ----------------------------------------------------------------------------------------------------------


def _out_of_range(path: str, wanted: str) -> Problem:
    return Problem("E006", path, "is out of range.", f"Give {wanted}.")


def _is_number(value: Any, *kinds: type) -> bool:
    # A bool is an int to Python, and never meant as a number in settings.
    return isinstance(value, kinds) and not isinstance(value, bool)


def _check_seconds(path: str, value: Any) -> Iterator[Problem]:
    if not _is_number(value, int, float):
        yield wrong_type(path, value, "a number of seconds")
    elif not 0 < value <= MAX_SECONDS:  # NaN fails every comparison
        yield _out_of_range(path, f"seconds above 0 and at most {MAX_SECONDS} (a day)")


def _check_patience(path: str, value: Any) -> Iterator[Problem]:
    if not _is_number(value, int, float):
        yield wrong_type(path, value, "a number of seconds")
    elif not 0 <= value <= MAX_SECONDS:
        yield _out_of_range(path, f"seconds from 0 (do not wait) to {MAX_SECONDS} (a day)")


def whole(low: int, wanted: str) -> Value:
    """Return what a whole number of at least ``low`` is held against; ``wanted`` says so in words."""

    def check(path: str, value: Any) -> Iterator[Problem]:
        if not _is_number(value, int):
            yield wrong_type(path, value, "a whole number")
        elif value < low:
            yield _out_of_range(path, wanted)

    return Value(check, int)


# -- codecs and buckets -----------------------------------------------------------------------------------------------


def _check_codec(path: str, value: Any) -> Iterator[Problem]:
    if isinstance(value, str) and value in _SIGNED_CODECS:
        return
    try:
        codecs.resolve(value)
    except UsageError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 - importing someone's module can raise anything; a check reports it
        reason = f"Loading it raised {type(error).__name__}."
    else:
        return
    names = ", ".join(dict.fromkeys((*codecs.names(), *_SIGNED_CODECS)))
    yield Problem(
        "E025",
        path,
        f"is not a codec. {reason}",
        f"Give one of {names}, the dotted path of a codec, or an object with encode and decode.",
    )


def _check_buckets(path: str, value: Any) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield wrong_type(path, value, "a mapping of bucket names to configurations")
        return
    for name, config in value.items():
        yield from _check_bucket(at(path, name), name, config)


def _check_bucket(path: str, name: object, config: Any) -> Iterator[Problem]:
    try:
        check_name(name)
    except InvalidName as error:
        yield Problem("E026", path, f"has a bad name. {error}", "A name is 1 to 128 of A-Z a-z 0-9 _ and -.")
        return
    if not isinstance(config, Mapping):
        yield wrong_type(path, config, "a mapping of options")
    elif config.get("bucket", name) != name:
        hint = "Leave it out: the key is the name."
        yield Problem("E027", at(path, "bucket"), "is not the name that the bucket is declared under.", hint)
    else:
        yield from _check_options(path, name, config)


def _check_options(path: str, name: object, config: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        _parse_bucket(name, config)
    except UnknownConfigKey as error:
        yield Problem("E028", path, f"has an unknown option. {error}", f"The options are {_OPTIONS}.")
    except UsageError as error:
        yield Problem("E029", path, f"has a bad value. {error}", "See the options of create_bucket().")


def _parse_bucket(name: object, config: Mapping[str, Any]) -> BucketConfig:
    return BucketConfig.parse({**config, "bucket": name})


def _to_buckets(value: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: _parse_bucket(name, config).given() for name, config in value.items()}


def _as_is(value: Any) -> Any:
    return value


_OPTIONS = ", ".join(BucketConfig.keys()[1:])  # without the name, which comes first

TEXT = Value(_check_text, _to_text)
FLAG = Value(_check_flag, bool)
PREFIX = Value(_check_prefix, _to_text_or_none)
DOMAIN = Value(_check_domain, _to_text_or_none)
PATH = Value(_check_path, _to_path_or_none)
FILE = Value(_check_file, _to_path)
CREDENTIALS = Value(_check_credentials, _to_path)
SEED = Value(_check_seed, _to_seed)
SECONDS = Value(_check_seconds, float)
PATIENCE = Value(_check_patience, float)
CODEC = Value(_check_codec, _as_is)
BUCKETS = Value(_check_buckets, _to_buckets)
