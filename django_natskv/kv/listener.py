"""Who is told what happens on a connection.

Owns the face of it. Knows nothing of Django's signals, which are one way to tell.
"""

from __future__ import annotations

from typing import Protocol

from django_natskv.kv.entries import Entry


class Listener(Protocol):
    """Called on the threads that serve a connection: every method returns at once and raises nothing."""

    def wants_entries(self) -> bool:
        """Tell whether anybody wants to hear of entries: telling costs copies of their values."""

    def initialized(self, bucket: str) -> None:
        """Take that the first replay of a local cache is complete."""

    def entry_changed(self, bucket: str, key: str, old: Entry | None, new: Entry | None, revision: int) -> None:
        """Take a change of an entry of a local cache, by ``revision``; None where there is, or was, nothing."""

    def connection_status(self, status: str, error: Exception | None) -> None:
        """Take where the connection stands now, with what led to it; or "error", of a watch or a local cache."""
