"""A write as a value, and what may travel with it: time to live, headers, guard.

Owns the rules of these. Knows nothing of how writes are sent or answered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from django_natskv.exceptions import InvalidTTL, UsageError
from django_natskv.kv.entries import MAX_TTL_MS, SECOND, Operation

ABSENT = 0  # the guard of a write that wants the key to be absent
OPERATION = "KV-Operation"
ROLLUP = "Nats-Rollup"  # the server drops what it keeps of the key, in the same write
_LAST_REVISION = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # a token of RFC 9110, as HTTP's headers have them
_RESERVED = ("nats-", "kv-", "status", "description")  # the server's own, and what a status is told by
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")


@dataclass(frozen=True, slots=True, init=False)
class Change:
    """One write of several, for ``Bucket.write_many``; made by ``put``, ``create``, ``update``, ``delete``, ``purge``.

    The arguments mean what they mean in the bucket's operation of the same name.
    """

    key: str
    operation: Operation
    value: Any = None
    revision: int | None = None  # None: whatever is there; 0: only where the key is absent
    ttl_ms: int | None = None
    headers: Mapping[str, str] | None = None
    erases_history: bool = False  # in the same write: the key is never absent in between

    def __init__(
        self,
        key: str,
        operation: Operation,
        value: Any = None,
        revision: int | None = None,
        ttl_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
        erases_history: bool = False,
    ) -> None:
        # By the slots themselves: in half the time that a frozen dataclass takes to make itself.
        _key(self, key)
        _operation(self, operation)
        _value(self, value)
        _revision(self, revision)
        _ttl_ms(self, ttl_ms)
        _headers(self, headers)
        _erases_history(self, erases_history)

    @classmethod
    def put(
        cls,
        key: str,
        value: Any,
        *,
        ttl_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
        erases_history: bool = False,
    ) -> Change:
        """Return the change that writes ``value``, whatever is there; the key's earlier revisions may go with it."""
        return cls(key, Operation.PUT, value, None, ttl_ms, headers, erases_history)

    @classmethod
    def create(
        cls, key: str, value: Any, *, ttl_ms: int | None = None, headers: Mapping[str, str] | None = None
    ) -> Change:
        """Return the change that writes ``value`` only if the key is absent."""
        return cls(key, Operation.PUT, value, ABSENT, ttl_ms, headers)

    @classmethod
    def update(
        cls,
        key: str,
        value: Any,
        revision: int,
        *,
        ttl_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Change:
        """Return the change that writes ``value`` only if ``revision`` is still the key's newest."""
        return cls(key, Operation.PUT, value, check_revision(revision), ttl_ms, headers)

    @classmethod
    def delete(
        cls,
        key: str,
        *,
        revision: int | None = None,
        marker_ttl_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
        erases_history: bool = False,
    ) -> Change:
        """Return the change that writes a tombstone; the key's earlier revisions may go with it."""
        return cls(key, Operation.DELETE, None, check_guard(revision), marker_ttl_ms, headers, erases_history)

    @classmethod
    def purge(
        cls,
        key: str,
        *,
        revision: int | None = None,
        marker_ttl_ms: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Change:
        """Return the change that erases the key's history down to a purge marker."""
        return cls(key, Operation.PURGE, None, check_guard(revision), marker_ttl_ms, headers)

    @property
    def doing(self) -> str:
        """What it does, in a word for messages."""
        if self.operation is not Operation.PUT:
            return "deleting" if self.operation is Operation.DELETE else "purging"
        if self.revision is None:
            return "putting"
        return "updating" if self.revision else "creating"

    def wire_headers(self) -> dict[str, str]:
        """Return the headers that the write travels with; ``InvalidTTL``, ``UsageError``."""
        erasing = {ROLLUP: "sub"} if self.erases_history else {}
        return {**check_headers(self.headers), **_MARKERS[self.operation], **erasing, **check_ttl(self.ttl_ms)}


_key, _operation, _value, _revision, _ttl_ms, _headers, _erases_history = (
    vars(Change)[each.name].__set__ for each in fields(Change)
)

_MARKERS: dict[Operation, dict[str, str]] = {
    Operation.PUT: {},
    Operation.DELETE: {OPERATION: "DEL"},
    Operation.PURGE: {OPERATION: "PURGE", ROLLUP: "sub"},
}


def check_revision(revision: object) -> int:
    """Return a number that a server can read and that names the same revision, else raise ``UsageError``."""
    if type(revision) is not int or revision < 1:
        message = f"A revision is a whole number from 1, not {revision!r}."
        raise UsageError(message)
    # No server gets that far, and what it cannot count to it takes modulo 2**64: a guard would match another revision.
    return min(revision, _LAST_REVISION)


def check_guard(revision: object) -> int | None:
    """Return the guard of a write that need not have one; ``UsageError``."""
    return None if revision is None else check_revision(revision)


def check_ttl(ttl_ms: object) -> dict[str, str]:
    """Return the header for a time to live in milliseconds, none for None; ``InvalidTTL``."""
    if ttl_ms is None:
        return {}
    if type(ttl_ms) is not int or not SECOND <= ttl_ms <= MAX_TTL_MS:
        message = f"A time to live is whole milliseconds, at least 1,000 and at most a century, not {ttl_ms!r}."
        raise InvalidTTL(message, ttl_ms=ttl_ms)
    # The server counts whole seconds (F14); rounded up, an entry lives at least as long as was asked.
    return {"Nats-TTL": f"{-(-ttl_ms // SECOND)}s"}


def check_headers(headers: object) -> dict[str, str]:
    """Return an application's headers as they may travel; ``UsageError``."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        message = f"Headers are a mapping of names to strings, not {type(headers).__name__}."
        raise UsageError(message)
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
            message = (
                f"{name!r} cannot be the name of a header: it is made of letters, digits and dashes, and what begins "
                'with "Nats-", "KV-", "Status" or "Description" is the server\'s.'
            )
            raise UsageError(message)
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            message = (
                f"The header {name!r} needs a string of printable ASCII characters without space at its ends. "
                "Percent-encode what may hold anything else."
            )
            raise UsageError(message)
    return dict(headers)
