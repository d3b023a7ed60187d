"""Outages: what a cache with ON_ERROR "miss" does while the server cannot be reached.

Owns when an operation is not even tried. Knows nothing of what operations do.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from django_natskv.cache.place import Place
from django_natskv.cache.quiet import Quiet
from django_natskv.cache.steps import Operation
from django_natskv.exceptions import AuthInvalid, ConnectFailed, NotConnected, OperationalError, OperationTimedOut

logger = logging.getLogger("django_natskv.cache")

_OUTAGES = (AuthInvalid, ConnectFailed, NotConnected, OperationTimedOut)
_PAUSE = 1.0  # seconds between two tries while it is not known whether the server is there


class Outages:
    """Whether the server of a place can be reached, as far as its caches found out."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._told = Quiet()
        self._out = False
        self._next_try = 0.0

    def soften(self, operation: Operation[Any], missed: Any) -> Operation[Any]:
        """Return what ``operation`` returns, or ``missed`` if the server could not do it.

        Where ``missed`` is an exception it is raised. While the server is away nothing is tried, so nobody waits.
        """
        if self._is_out():
            operation.close()
            return _give(missed)
        try:
            result = yield from operation
        except OperationalError as error:
            self._failed(error)
            return _give(missed)
        if self._out:
            self._out = False
            logger.info("The cache in bucket %s is back.", self._place.name)
        return result

    def _is_out(self) -> bool:
        if not self._out:
            return False
        status = self._place.connection.status
        if status == "disconnected":
            return True  # it is coming back by itself
        now = time.monotonic()
        if now < self._next_try:
            return True
        # One caller at a time finds out.
        self._next_try = now + _PAUSE
        return False

    def _failed(self, error: OperationalError) -> None:
        if isinstance(error, _OUTAGES):
            self._out = True
            # A connection that is back tells so itself; a server that does not answer has to be asked.
            waits = isinstance(error, OperationTimedOut) or self._place.connection.status != "disconnected"
            self._next_try = time.monotonic() + _PAUSE if waits else 0.0
        if self._told.may_speak():
            text = "The cache in bucket %s does without the server for now, reads miss and writes are dropped: %s"
            logger.warning(text, self._place.name, error)


def _give(missed: Any) -> Any:
    if isinstance(missed, Exception):
        raise missed
    return missed
