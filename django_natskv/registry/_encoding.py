"""The bytes of documents: JSON that any language reads, taken apart and put together.

Owns what is refused of that which Python alone would take. Knows nothing of what a document means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MOST_LEVELS = 100  # of lists and objects in one another, in a field: copying and rendering them takes a call a level


def parse(data: bytes | str) -> Any:
    """Return the JSON in ``data``; ``ValueError`` when it is none, or no program could hand it on."""
    try:
        found = json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        found = None
        deep = True
    else:
        deep = _is_deep(found, MOST_LEVELS + 1)  # what is in the document, and the document
    if deep:
        raise ValueError(_TOO_DEEP)
    return found


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are stored for a document."""
    text = json.dumps(dict(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half of a character was found so in what is no field, and goes back as the escape that it was.
    return text.encode(errors="backslashreplace")


def check(value: Any) -> None:
    """Raise ``ValueError`` when ``value`` is nothing that is stored; ``TypeError``."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        deep = True
    except UnicodeEncodeError as error:
        message = "half of a character cannot be stored"
        raise ValueError(message) from error
    else:
        deep = _is_deep(value, MOST_LEVELS)
    if deep:
        raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"it has more than {MOST_LEVELS} lists and objects in one another"


def _is_deep(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return False
    return True


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _finite(text: str) -> float:
    found = float(text)
    if found - found != 0:
        message = f"the number {text} is too large"
        raise ValueError(message)
    return found


def _refuse(word: str) -> Any:
    message = f"{word} is not JSON"
    raise ValueError(message)
