"""Outages: what a cache with ON_ERROR "miss" does while the server cannot be reached.

Owns when an operation is not even tried, and who finds out that the server is well again. Knows nothing of what
operations do.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import Any

from django_natskv.cache import keys
from django_natskv.cache.place import AWAY, Place, is_away
from django_natskv.cache.quiet import Quiet
from django_natskv.cache.steps import Operation, run
from django_natskv.exceptions import OperationalError
from django_natskv.kv import spread

logger = logging.getLogger("django_natskv.cache")

_FIRST, _LONGEST = 0.1, 2.0  # seconds between two probes
_PROBE_TTL_MS = 1_000


class Outages:
    """Whether the bucket of a place can be used, as far as its caches found out.

    The first operation that meets an outage has to wait for that; those that came before it was over wait beside it.
    From then on nothing is tried, and nobody waits: a thread of its own probes until the bucket takes a write again.
    What one cache found out of a connection counts for all caches that use it.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._told = Quiet()
        self.forked()
        _all.add(self)

    def forked(self) -> None:
        """Take, in a forked child, that nothing is known: who probes stayed in the parent."""
        self._guard = threading.Lock()
        self._out: Any = None  # the connection that was met with an outage

    def soften(self, operation: Operation[Any], missed: Any) -> Operation[Any]:
        """Return what ``operation`` returns, or ``missed`` if the server could not do it.

        Where ``missed`` is an exception it is raised. While the server is away nothing is tried, so nobody waits.
        """
        if (self._out is not None or _down) and self._is_out():
            operation.close()
            return _give(missed)
        try:
            return (yield from operation)
        except OperationalError as error:
            self.met(error)
            return _give(missed)

    def _is_out(self) -> bool:
        connection = self._place.connection  # another one, if the settings have changed
        return connection is self._out or connection in _down

    def met(self, error: OperationalError) -> None:
        """Take that an operation failed with ``error``: if the server is away, nothing is tried from now on."""
        if is_away(error):
            self._begin(self._place.connection)
        if self._told.may_speak():
            text = "The cache in bucket %s does without the server for now, reads miss and writes are dropped: %s"
            logger.warning(text, self._place.name, error)

    # --- who finds out ---

    def _begin(self, connection: Any) -> None:
        """Have it probed, by one thread, until the server is well."""
        with self._guard:
            if self._out is connection:
                return
            self._out = connection
        _down.add(connection)
        if _ending.is_set():  # a thread that is started now would never run; before Python 3.12 it is waited for
            self._end(connection)
            return
        threading.Thread(target=self._probe, args=(connection,), name="natskv-cache-probe", daemon=True).start()

    def _probe(self, connection: Any) -> None:
        pause = _FIRST
        try:
            while not _ending.wait(spread.between(pause / 2, pause)) and self._is_wanted(connection):
                if self._is_well(connection):
                    logger.info("The cache in bucket %s is back.", self._place.name)
                    return
                pause = min(2 * pause, _LONGEST)
        finally:
            self._end(connection)

    def _is_wanted(self, connection: Any) -> bool:
        try:
            return self._place.connection is connection
        except Exception:  # noqa: BLE001 - the settings have changed, to whatever
            return False

    def _is_well(self, connection: Any) -> bool:
        try:
            connection.kv()
            _down.discard(connection)  # other buckets can be used, whatever is the matter with this one
            # Reads are answered by a server that has lost the others of its cluster, too. Writes are not (F20).
            run(self._place.ask("put", keys.PROBE, b"", ttl_ms=_PROBE_TTL_MS))
        except AWAY:
            return False
        except OperationalError:  # an answer: a user who may only read, a bucket that is full or gone
            return True
        return True

    def _end(self, connection: Any) -> None:
        _down.discard(connection)
        with self._guard:
            if self._out is connection:
                self._out = None


def outages_of(place: Place) -> Outages:
    """Return the outages of ``place``, which its caches share."""
    made: Outages = place.outages or Outages(place)
    place.outages = made  # of two made at once one is dropped: it would find out the same
    return made


def _give(missed: Any) -> Any:
    if isinstance(missed, Exception):
        raise missed
    return missed


def _forked() -> None:
    _down.clear()
    for outages in list(_all):
        outages.forked()


_down: weakref.WeakSet[Any] = weakref.WeakSet()  # connections over which nothing is to be tried
_all: weakref.WeakSet[Outages] = weakref.WeakSet()
_ending = threading.Event()
atexit.register(_ending.set)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
