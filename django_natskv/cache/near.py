"""Near: the values that a process has in a local cache of its own (LOCAL_CACHE).

Owns when what is held there may be given out. Knows nothing of writing: a local cache hears of what is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from django.utils.safestring import SafeString

from django_natskv.cache import keys
from django_natskv.cache.chunks import CHUNKS
from django_natskv.cache.lifetime import expiry
from django_natskv.cache.place import Clock, Place
from django_natskv.cache.steps import Call, Operation
from django_natskv.cache.values import UnreadableValueError
from django_natskv.exceptions import OperationalError, OperationTimedOut
from django_natskv.kv import Entry

ABSENT: Any = object()  # there is nothing
UNKNOWN: Any = object()  # what is there has to be read from the server
_REMEMBERED = 10_000  # values that were verified, or need not be read again
# Of exactly these types: what is derived from them may have attributes that readers could change.
_IMMUTABLE = frozenset({str, int, float, bool, bytes, type(None), SafeString})


class _Seen:
    """What one entry turned out to be: when it expires, and its value, or what makes it if readers could change it."""

    __slots__ = ("entry", "expires", "make", "value")

    def __init__(self, entry: Entry, expires: float | None, value: Any, make: Callable[[], Any] | None) -> None:
        self.entry = entry
        self.expires = expires
        self.value = value
        self.make = make

    def give(self, clock: Clock) -> Any:
        """Return the value, the reader's own, or ``ABSENT`` if it has expired."""
        if self.expires is not None and self.expires <= clock.now():
            return ABSENT
        return self.value if self.make is None else self.make()


class Near:
    """The local cache of one KEY_PREFIX in a bucket. It is believed only while it is live."""

    def __init__(self, place: Place, prefix: str) -> None:
        self._place = place
        self._mode = place.options.local_cache
        self._patterns = [keys.all_of_prefix(prefix), keys.clear_marker()]
        self._of_bucket, self._of_prefix = keys.clear_marker(), keys.clear_marker(prefix)
        self._clock = place.clock
        self._source: Any = None
        self._copy: Any = None
        self._seen: dict[str, _Seen] = {}
        self.holds_all = self._mode == "mirror"

    def look_up(self, stored: str) -> Any:
        """Return the value that is held under a stored key, ``ABSENT`` or ``UNKNOWN``. Never waits."""
        # A copy of a connection that is no longer in use was closed, and shows nothing.
        copy = self._copy
        if copy is not None and self.holds_all:
            view = copy.view()
            if view is not None:
                return self._give(stored, view(stored), view(self._of_bucket), view(self._of_prefix))
        elif copy is not None:
            held = copy.peek((stored, self._of_bucket, self._of_prefix))
            if held is not None:
                return self._give(stored, *held)
        self._local()
        return UNKNOWN

    def _give(self, stored: str, entry: Entry | None, of_bucket: Entry | None, of_prefix: Entry | None) -> Any:
        if entry is None:
            return ABSENT
        seen = self._seen.get(stored)
        if seen is None or seen.entry is not entry:
            seen = self._look(stored, entry)
        if (of_bucket or of_prefix) and _is_older(entry, (of_bucket, of_prefix)):
            return ABSENT
        return UNKNOWN if seen is None else seen.give(self._clock)

    def read(self, stored: str) -> Operation[Any]:
        """Return the value under a stored key, held, or read and then held, ``ABSENT`` or ``UNKNOWN``."""
        copy = self._local()
        if copy is None or not copy.is_live:
            return UNKNOWN
        try:
            entry = yield Call(copy, "get", stored)
            if entry is None:
                return ABSENT
            cleared = (yield Call(copy, "get", self._of_bucket)), (yield Call(copy, "get", self._of_prefix))
        except OperationTimedOut:
            raise  # the server was asked, and to ask it again would take as long again
        except OperationalError:
            return UNKNOWN  # what the server says counts
        if _is_older(entry, cleared):
            return ABSENT
        seen = self._seen.get(stored)
        if seen is None or (seen.entry.revision, seen.entry.created) != (entry.revision, entry.created):
            seen = self._look(stored, entry)
        return UNKNOWN if seen is None else seen.give(self._clock)

    def _look(self, stored: str, entry: Entry) -> _Seen | None:
        """Return what ``entry`` is, and keep it; None where the server has to be asked."""
        if CHUNKS in entry.headers:
            return None
        values = self._place.values
        try:
            value = values.load(stored, entry.value, entry.headers)
        except UnreadableValueError:
            return None  # to be told and counted there
        expires = expiry(entry)
        lives = self._place.lives
        if lives is not None:
            expires = min(entry.created.timestamp() + lives, math.inf if expires is None else expires)
        changes = type(value) not in _IMMUTABLE
        make = values.maker(stored, entry.value, entry.headers) if changes else None
        seen = _Seen(entry, expires, None if changes else value, make)
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[stored] = seen
        return seen

    def begin_anew(self) -> None:
        """Believe nothing that is held: the bucket is gone, and one made anew counts its revisions from 1 again."""
        copy, self._copy, self._source = self._copy, None, None
        if copy is not None:
            copy.close()

    def _local(self) -> Any:
        place = self._place
        connection = place.connection
        if self._source is not connection:
            if not place.is_open:
                return None  # it may have to be made first
            self._copy = connection.local_cache(
                place.name,
                codec="bytes",
                keys=self._patterns,
                mode=self._mode or "mirror",
                max_bytes=place.options.local_cache_max_bytes,
            )
            self._copy.start()
            self._source = connection
        return self._copy


def _is_older(entry: Entry, markers: tuple[Entry | None, ...]) -> bool:
    return any(marker is not None and marker.revision > entry.revision for marker in markers)
