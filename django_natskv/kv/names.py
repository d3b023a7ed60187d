"""What may be a bucket's name, a key and a key pattern, and how patterns relate.

Pure functions over strings. Knows nothing of connections, buckets or Django.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from django_natskv.exceptions import InvalidKey, InvalidKeys, InvalidName

MAX_NAME_LENGTH = 128
MAX_KEY_LENGTH = 1024

# ``\Z`` and not ``$``, which lets a final newline pass. Spelled-out classes and not ``\w``, which takes all of Unicode.
_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
_KEY = re.compile(r"[-/_=A-Za-z0-9]+(?:\.[-/_=A-Za-z0-9]+)*\Z")
_PATTERN = re.compile(r"(?:(?:[-/_=A-Za-z0-9]+|\*)(?:\.(?:[-/_=A-Za-z0-9]+|\*))*(?:\.>)?|>)\Z")

_KEY_RULE = "letters, digits and - _ / = in words joined by single dots"


def check_name(name: object) -> str:
    """Return ``name`` if it can be a bucket's name, else raise ``InvalidName``."""
    if not isinstance(name, str):
        raise InvalidName(f"A bucket's name is a string, not {type(name).__name__}.", name=name)
    if len(name) > MAX_NAME_LENGTH:
        message = f"A bucket's name has at most {MAX_NAME_LENGTH} characters; this one has {len(name)}."
        raise InvalidName(message, name=name)
    if not _NAME.match(name):
        raise InvalidName(f"{name!r} cannot be a bucket's name: use letters, digits, - and _.", name=name)
    return name


def check_key(key: object) -> str:
    """Return ``key`` if it can be a key, else raise ``InvalidKey``."""
    if isinstance(key, str) and len(key) <= MAX_KEY_LENGTH and _KEY.match(key):
        return key
    if not isinstance(key, str):
        raise InvalidKey(f"A key is a string, not {type(key).__name__}.", key=key)
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidKey(f"A key has at most {MAX_KEY_LENGTH} characters; this one has {len(key)}.", key=key)
    raise InvalidKey(f"{key!r} cannot be a key: use {_KEY_RULE}.", key=key)


def check_patterns(keys: object) -> tuple[str, ...]:
    """Return the patterns of ``keys`` (one, or a non-empty iterable of them), else raise ``InvalidKeys``.

    A pattern is a key in which ``*`` may stand for one word and a last ``>`` for one or more.
    """
    if isinstance(keys, str):
        return (_check_pattern(keys, keys),)
    if not isinstance(keys, Iterable):
        raise InvalidKeys(f"Key patterns are a string or a list of strings, not {type(keys).__name__}.", keys=keys)
    patterns = tuple(_check_pattern(pattern, keys) for pattern in keys)
    if not patterns:
        raise InvalidKeys("An empty list of key patterns matches nothing: leave it out to mean every key.", keys=keys)
    return patterns


def _check_pattern(pattern: object, keys: object) -> str:
    if not isinstance(pattern, str):
        raise InvalidKeys(f"A key pattern is a string, not {type(pattern).__name__}.", keys=keys)
    if len(pattern) > MAX_KEY_LENGTH:
        message = f"A key pattern has at most {MAX_KEY_LENGTH} characters; this one has {len(pattern)}."
        raise InvalidKeys(message, keys=keys)
    if not _PATTERN.match(pattern):
        message = f"{pattern!r} cannot be a key pattern: use {_KEY_RULE}, * for one word, a last > for the rest."
        raise InvalidKeys(message, keys=keys)
    return pattern


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate that tells whether a key matches at least one of ``patterns``."""
    if ">" in patterns:
        return _everything
    return re.compile("|".join(_to_regex(pattern) for pattern in patterns)).fullmatch  # type: ignore[return-value]


def _everything(_key: str) -> bool:
    return True


def _to_regex(pattern: str) -> str:
    words = {"*": r"[^.]+", ">": r".+"}
    return r"\.".join(words.get(word, re.escape(word)) for word in pattern.split("."))


def covers(general: str, special: str) -> bool:
    """Tell whether every key that matches ``special`` matches ``general`` too."""
    wide, narrow = general.split("."), special.split(".")
    for position, word in enumerate(wide):
        if word == ">":
            return position < len(narrow)
        if position >= len(narrow) or narrow[position] == ">" or (word != "*" and word != narrow[position]):
            return False
    return len(wide) == len(narrow)


def overlaps(one: str, other: str) -> bool:
    """Tell whether some key could match both patterns."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def disjoint(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return patterns of which no two overlap and that together match at least what ``patterns`` match.

    The server refuses a consumer whose filters overlap. A pattern that another covers is dropped; two that overlap
    in part are widened to one, so that the caller must hold what arrives against the patterns that were asked for.
    """
    result: list[str] = []
    keys: dict[str, None] = {}
    for pattern in patterns:
        if "*" not in pattern and ">" not in pattern:
            keys[pattern] = None  # overlaps with no other key, and there may be thousands
            continue
        wide = pattern
        # Widening can make a new overlap with one that was passed already, so begin again until nothing overlaps.
        while clash := next((other for other in result if overlaps(wide, other)), None):
            result.remove(clash)
            wide = _join(wide, clash)
        result.append(wide)
    if result:
        matches = matcher(result)
        result.extend(key for key in keys if not matches(key))
    return tuple(result or keys)


def _join(one: str, other: str) -> str:
    if covers(one, other):
        return one
    if covers(other, one):
        return other
    joined: list[str] = []
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if ">" in (a, b):
            break
        joined.append(a if a == b else "*")
    else:
        return ".".join(joined)
    return ".".join([*joined, ">"])
