"""A mistake in the settings, as a value.

Owns its shape and how a place in the settings is written. Must not know any rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_USERINFO = re.compile(r"://[^\s]*@")


@dataclass(frozen=True, slots=True)
class Problem:
    """One rule broken in one place.

    ``code`` is the rule ("E004" is an error, "W001" a warning), ``path`` the place, as one would write it in Python;
    ``detail`` goes on where the path ends, ``hint`` says what to do. Neither holds a value that could be a secret.
    ``blocks_use`` is False for what is worth a warning and no reason to refuse a connection.
    """

    code: str
    path: str
    detail: str
    hint: str
    blocks_use: bool = True

    @property
    def id(self) -> str:
        """The id of the system check, for ``SILENCED_SYSTEM_CHECKS``."""
        return f"natskv.{self.code}"

    @property
    def is_warning(self) -> bool:
        """Whether the check warns. A warning may still block use: a file that is missing now may come later."""
        return self.code.startswith("W")

    @property
    def message(self) -> str:
        """The whole sentence, the place included."""
        return f"{self.path} {self.detail}"


def at(path: str, *keys: object) -> str:
    """Return the place of ``keys`` within ``path``: ``at("NATSKV", "default")`` is ``NATSKV["default"]``."""
    return path + "".join(f"[{quoted(key)}]" for key in keys)


def quoted(key: object) -> str:
    """Return ``key`` as it may be shown: a URL that ended up as a key loses its credentials."""
    if isinstance(key, str):
        return '"' + _USERINFO.sub("://***@", key) + '"'
    return str(key) if isinstance(key, int) else type(key).__name__
