"""Names: the keys of objects, and the headers that say who changed what.

Owns how a primary key and a text become what a bucket takes, and back. Knows nothing of classes or of the network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

ACTOR, COMMENT = "Natskv-Actor", "Natskv-Comment"
_ESCAPED = re.compile(r"[^A-Za-z0-9_/-]")
_READABLE = " !#$&'()*+,/:;<=>?@[]^`{|}"  # what a header may show as it is, beside what never needs escaping


def to_token(pk: str) -> str:
    """Return the last word of the key of an object: ``=XX`` stands for each byte that a word cannot hold.

    A dot is escaped too, so that every object of a class is one word below the class's key.
    """
    return _ESCAPED.sub(lambda found: "".join(f"={byte:02X}" for byte in found[0].encode()), pk)


def from_token(token: str) -> str:
    """Return the primary key, as text, of the object under ``token``; ``ValueError`` if it stands for none."""
    return unquote_to_bytes(token.replace("=", "%")).decode()


def to_headers(actor: Any, comment: str) -> dict[str, str]:
    """Return the headers of a write by ``actor`` (a user, or anything with a name for ``str``)."""
    texts = {ACTOR: "" if actor is None else str(actor), COMMENT: str(comment)}
    # A space at either end is lost on the way.
    return {
        name: quote(text, safe=_READABLE if text == text.strip() else "", errors="replace")
        for name, text in texts.items()
        if text
    }


def from_headers(headers: Mapping[str, str]) -> tuple[str, str]:
    """Return actor and comment of a revision, empty where there is none."""
    return unquote(headers.get(ACTOR, "")), unquote(headers.get(COMMENT, ""))
