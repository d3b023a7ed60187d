"""Names: between the keys of a cache and the keys of the bucket that it keeps them in.

Owns the names that a cache gives to values, chunks, locks and clear markers, and the patterns that find them. Knows
nothing of values, of buckets or of the network.

A value is stored under ``<prefix>.<version>.<key>``: prefix "shop", version 1, key "user-7" is ``shop.1.user-7``.

- Letters, digits, ``-``, ``_`` and ``/`` stand for themselves. Anything else is ``=XX`` for each byte of its UTF-8 (a
  lone surrogate's too), in upper-case hex. A dot stays a dot in a key, unless it is first, last or beside another.
- What is empty is ``_``, and what is ``_`` is ``=5F``.
- A prefix, version or key that takes more than 200 characters is replaced by its SHA-256, in lower-case hex.

No escape holds ``==``, so that what begins with it cannot be anyone's key:

=====================================================  ==================================================
``==clear``                                            the clear marker of the whole bucket
``==probe``                                            what tells whether the bucket takes writes
``<prefix>.==clear``                                   the clear marker of a prefix
``<prefix>.==lock.<name>``                             a lock
``==chunk.<prefix>.<id>.<number>.<version>.<key>``     a part of the value at ``<prefix>.<version>.<key>``
``<prefix>.==made.<key>``                              a value, under a key that a ``KEY_FUNCTION`` made
``==sha256.<hex>`` for a key or the name of a lock     the SHA-256 of a long one
``==sha256-<hex>`` for a prefix or a version           the SHA-256 of a long one
=====================================================  ==================================================

With a ``KEY_FUNCTION``, what the function returns is the whole identity of a value beside the prefix: the function may
leave the version out, or weave it in as it likes.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

MAX_PART = 200  # characters of a prefix, version or key; the longest name of all, a chunk's, then stays within 1,024
_REMEMBERED = 4096  # names

_PLAIN_TOKEN = re.compile(r"[A-Za-z0-9_/-]+").fullmatch
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_/-]+(?:\.[A-Za-z0-9_/-]+)*").fullmatch
_TOKEN_ESCAPED = re.compile(r"[^A-Za-z0-9_/-]")
_KEY_ESCAPED = re.compile(r"[^A-Za-z0-9_/.-]|\A\.|\.\Z|\.(?=\.)|(?<=\.)\.")
_LAST_KEPT_DOT = re.compile(r".*[^.](?=\.[^.])", re.DOTALL)
_GLOB_SPECIAL = re.compile(r"[*?\[]")
_CHUNK = re.compile(r"==chunk\.([^.]+)\.([^.]+)\.([0-9]+)\.(.+)")

PROBE = "==probe"
_CHUNKS = "==chunk"

_EMPTY = "_"
_HASHED_TOKEN = "==sha256-"  # noqa: S105 - a token of a key
_HASHED_KEY = "==sha256."
_HASHED = f".{_HASHED_KEY}"


class CacheKey(NamedTuple):
    """What a stored key says: a part is None where only its hash is known, and so is the version of a made key."""

    prefix: str | None
    version: str | None
    key: str | None


class Search(NamedTuple):
    """Where to look for the keys that a glob matches, and how to tell them.

    ``patterns`` are the key patterns to ask the server for; they do not overlap. ``matches`` tells of a cache key (a
    decoded one) whether the glob matches it: the patterns may give keys that it does not.
    """

    patterns: tuple[str, ...]
    matches: Callable[[str], bool]


# ---------------------------------------------------------------- values


def encode(prefix: str, version: Any, key: Any) -> str:
    """Return the stored key of ``key``, in ``version`` and under the KEY_PREFIX ``prefix``.

    Two stored keys are equal only if all three are, as ``str()`` writes them. Any string will do, of any length: when
    ``is_hashed(...)`` of the result, the key cannot be had back from it and has to be kept beside the value.
    """
    if type(key) is not str:
        key = str(key)
    if len(key) > MAX_PART:  # certainly hashed; not worth its place among the remembered
        return f"{_token(prefix)}.{_token(str(version))}.{_key(key)}"
    # 1 == True == 1.0 to a dict, and their names differ.
    return _encode(prefix, version if type(version) is int else str(version), key)


@lru_cache(_REMEMBERED)
def _encode(prefix: str, version: int | str, key: str) -> str:
    return f"{_stem(prefix, version)}.{_key(key)}"


@lru_cache(_REMEMBERED)
def _stem(prefix: str, version: int | str) -> str:
    return f"{_token(prefix)}.{_token(str(version))}"


def encode_made(prefix: str, final: str) -> str:
    """Return the stored key of ``final``, which the cache's ``KEY_FUNCTION`` made of prefix, version and key."""
    if len(final) > MAX_PART:
        return f"{_token(prefix)}.==made.{_key(final)}"
    return _encode_made(prefix, final)


@lru_cache(_REMEMBERED)
def _encode_made(prefix: str, final: str) -> str:
    return f"{_token(prefix)}.==made.{_key(final)}"


def decode(stored: str) -> CacheKey | None:
    """Return what was encoded as ``stored``, or None if ``stored`` is the name of no value.

    No value's are the reserved names (markers, locks, chunks) and what others put into the bucket. The version of what
    ``encode_made`` encoded is None, its key what the key function returned.
    """
    prefix, _, rest = stored.partition(".")
    version, _, key = rest.partition(".")
    if not key:
        return None
    try:
        found = _decode_key(key)
        return CacheKey(_decode_token(prefix), None if version == "==made" else _decode_token(version), found)
    except ValueError:
        return None


def is_hashed(stored: str) -> bool:
    """Tell whether the key in ``stored`` (of a value, a chunk or a lock) is a hash: too long to be kept in the name."""
    return _HASHED in stored


def escape(text: str) -> str:
    """Return ``text`` as a key spells it, whatever its length: ASCII without spaces, fit for the header of an entry."""
    return _special(text) if text in ("", _EMPTY) else _escape_key(text)


def unescape(escaped: str) -> str:
    """Return what was escaped as ``escaped``. Raises ``ValueError`` for what ``escape`` never gives."""
    text = _unescape(escaped)
    if escape(text) != escaped:
        message = "no text is escaped like this"
        raise ValueError(message)
    return text


# ---------------------------------------------------------------- reserved names


def clear_marker(prefix: str | None = None) -> str:
    """Return the name of the clear marker of ``prefix``, or, without one, of the whole bucket."""
    return "==clear" if prefix is None else f"{_token(prefix)}.==clear"


def lock(prefix: str, name: str) -> str:
    """Return the name of the lock ``name`` under ``prefix``."""
    return f"{_token(prefix)}.==lock.{_key(name)}"


def chunk(stored: str, identity: str, number: int) -> str:
    """Return the name of chunk ``number`` of the value at ``stored``.

    ``identity`` tells one writing of the value from another: up to 64 letters and digits. The name is not one under the
    prefix: local caches copy what is, and hold no chunks.
    """
    prefix, _, rest = stored.partition(".")
    return f"{_CHUNKS}.{prefix}.{identity}.{number}.{rest}"


def chunk_of(name: str) -> tuple[str, str, int] | None:
    """Return the stored key, identity and number that ``chunk`` made ``name`` of; None if ``name`` is no chunk's."""
    found = _CHUNK.fullmatch(name)
    if found is None:
        return None
    prefix, identity, number, rest = found.groups()
    return f"{prefix}.{rest}", identity, int(number)


# ---------------------------------------------------------------- patterns


def all_of_prefix(prefix: str) -> str:
    """Return the pattern of all that is kept under ``prefix`` but chunks: values, locks and the clear marker."""
    return f"{_token(prefix)}.>"


def all_of_version(prefix: str, version: Any) -> str:
    """Return the pattern of the values of one version under ``prefix``."""
    return f"{_token(prefix)}.{_token(str(version))}.>"


def all_made(prefix: str) -> str:
    """Return the pattern of the values under ``prefix`` whose keys a ``KEY_FUNCTION`` made."""
    return f"{_token(prefix)}.==made.>"


def all_chunks(prefix: str, identity: str | None = None) -> str:
    """Return the pattern of the chunks under ``prefix``: of all values, or of the one writing named ``identity``."""
    return f"{_CHUNKS}.{_token(prefix)}.>" if identity is None else f"{_CHUNKS}.{_token(prefix)}.{identity}.>"


def search(prefix: str, version: Any, glob: str) -> Search:
    """Return where the keys are that ``glob`` matches: ``*``, ``?``, ``[abc]`` and ``[!abc]``, as ``fnmatchcase`` does.

    The words of the key that the glob spells out ("user.7." of "user.7.*") narrow what the server is asked for. The
    keys that are hashed are asked for too, as their names do not tell what they are.
    """
    return _search(f"{_token(prefix)}.{_token(str(version))}", glob)


def search_made(prefix: str, glob: str) -> Search:
    """Return where the keys are that ``glob`` matches among those that a ``KEY_FUNCTION`` made. See search()."""
    return _search(f"{_token(prefix)}.==made", glob)


def _search(stem: str, glob: str) -> Search:
    special = _GLOB_SPECIAL.search(glob)
    if special is None:
        return Search((f"{stem}.{_key(glob)}",), lambda key: key == glob)
    matches: Any = re.compile(fnmatch.translate(glob)).match
    # A dot that the glob does not go on from may turn out to be the last of the key, or beside another: escaped.
    words = _LAST_KEPT_DOT.match(glob[: special.start()])
    if words is None:
        return Search((f"{stem}.>",), lambda key: matches(key) is not None)
    head = _escape_key(words[0])
    hashed = f"{stem}.{_HASHED_KEY}*"
    patterns = (hashed,) if len(head) >= MAX_PART else (f"{stem}.{head}.>", hashed)
    return Search(patterns, lambda key: matches(key) is not None)


# ---------------------------------------------------------------- parts


@lru_cache(_REMEMBERED)
def _token(text: str) -> str:
    if text in ("", _EMPTY):
        return _special(text)
    token = text if _PLAIN_TOKEN(text) else _TOKEN_ESCAPED.sub(_escape, text)
    return token if len(token) <= MAX_PART else f"{_HASHED_TOKEN}{_digest(text)}"


def _key(text: str) -> str:
    key = escape(text)
    return key if len(key) <= MAX_PART else f"{_HASHED_KEY}{_digest(text)}"


def _escape_key(text: str) -> str:
    return text if _PLAIN_KEY(text) else _KEY_ESCAPED.sub(_escape, text)


def _special(text: str) -> str:
    return "=5F" if text else _EMPTY


def _escape(found: re.Match[str]) -> str:
    return _escape_character(found[0])


@lru_cache(256)
def _escape_character(character: str) -> str:
    return "".join([f"={byte:02X}" for byte in character.encode("utf-8", "surrogatepass")])


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _unescape(escaped: str) -> str:
    if "=" not in escaped:
        return "" if escaped == _EMPTY else escaped
    return unquote_to_bytes(escaped.replace("=", "%")).decode("utf-8", "surrogatepass")


# What is short and holds no escape is as it is, in the alphabet of a bucket; of the rest, others may have put anything.


def _decode_token(token: str) -> str | None:
    """Return the text of a prefix or version, None for a hashed one; ``ValueError`` for what is none."""
    if token.startswith(_HASHED_TOKEN):
        return None
    text = _unescape(token)
    if ("=" in token or len(token) > MAX_PART) and _token(text) != token:
        message = "no prefix or version"
        raise ValueError(message)
    return text


def _decode_key(key: str) -> str | None:
    """Return the text of a key, None for a hashed one; ``ValueError`` for what is none."""
    if key.startswith(_HASHED_KEY):
        return None
    text = _unescape(key)
    if ("=" in key or len(key) > MAX_PART) and _key(text) != key:
        message = "no key of a cache"
        raise ValueError(message)
    return text
