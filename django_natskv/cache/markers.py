"""Clear markers: what is older than they are is gone, whatever a server that crashed brings back (F1).

Owns how a process knows the newest of them. Knows nothing of how a cache is cleared.

Where nothing can come back, in memory, what was cleared was removed, and no reader has to look.
Where it can, the markers are read along with the key, or known from a small local cache of them while that is live: it
hears of a clear within milliseconds, and for that time what was cleared is removed in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django_natskv.cache import keys
from django_natskv.cache.place import Place
from django_natskv.kv import Entry, LocalCache


class Markers:
    """The clear markers that count for one KEY_PREFIX: its own, and that of the whole bucket."""

    def __init__(self, place: Place, prefix: str) -> None:
        self.names = (keys.clear_marker(), keys.clear_marker(prefix))
        self._place = place
        self._source: Any = None
        self._copy: LocalCache[Any] | None = None

    def known(self) -> int | None:
        """Return the revision before which everything is gone, 0 if that is of no matter; None if it must be read."""
        if not self._place.goes_back:
            return 0
        copy = self._local()
        if not copy.is_live:
            return None
        return max(0 if entry is None else entry.revision for entry in map(copy.get, self.names))

    def among(self, entries: Mapping[str, Entry]) -> int:
        """Return the revision before which everything is gone, from entries that were read with the markers."""
        return max((entries[name].revision for name in self.names if name in entries), default=0)

    def _local(self) -> LocalCache[Any]:
        connection = self._place.connection
        copy = self._copy
        if copy is None or self._source is not connection:
            copy = connection.local_cache(self._place.name, codec="bytes", keys=list(self.names))
            copy.start()
            self._source, self._copy = connection, copy
        return copy
