"""Locks: one holder in all processes, for as long as a lease lasts that is renewed meanwhile.

Owns the lease, its renewal and the fencing token. Knows nothing of the values of a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from django_natskv.cache import keys
from django_natskv.cache.lifetime import LONGEST, Lifetime, expiry
from django_natskv.cache.place import AWAY, Place
from django_natskv.cache.steps import Call, Operation, Pause, Rest, arun, run
from django_natskv.exceptions import OperationalError, UsageError, WrongRevision
from django_natskv.kv import Entry, spread

logger = logging.getLogger("django_natskv.cache")

TIMEOUT = 10.0  # seconds
_RENEWALS = 3  # within the time of a lease
_POLL = 0.05  # seconds between two looks at a lock that someone else has


class LockLostError(OperationalError):
    """The lease of a lock ran out, or was taken away, before it was released: someone else may hold it."""

    type = "lock-lost"


class Lock:
    """A lock that one holder has in all processes that use the cache. Made by ``cache.lock()``.

    A context manager of both kinds, ``with`` and ``async with``, that waits for the lock as long as it takes; or use
    ``acquire()`` and ``release()``. While it is held its lease is renewed; a holder that dies loses it when the lease
    has run out. A holder that was suspended for longer than the lease lost it too, and ``with`` raises
    ``LockLostError`` at its end. Nothing else can tell such a holder in time, so what a lock protects should compare
    ``token``, which only grows from holder to holder, and refuse a lower one than it has seen. It grows as long as the
    bucket lives: one in memory is gone when its server restarts, and so are its locks, and tokens begin anew.

    One object is one holder: neither reentrant nor to be shared between threads.
    """

    def __init__(self, place: Place, prefix: str, name: str, timeout: float) -> None:
        if not 0 < timeout <= LONGEST:
            message = (
                f"The lease of a lock is a number of seconds above 0, and of no more than a century, not {timeout!r}."
            )
            raise UsageError(message)
        self.name = name
        self.timeout = timeout
        self.token: int | None = None
        self._place = place
        self._stored = keys.lock(prefix, name)
        self._owner = secrets.token_hex(12).encode()
        self._revision = 0
        self._ends = 0.0  # on the monotonic clock
        self._lost = False
        self._renewal: Renewal | None = None

    def __repr__(self) -> str:
        return f"<Lock {self.name}: {'held' if self.held else 'lost' if self._lost else 'free'}>"

    @property
    def held(self) -> bool:
        """Whether it is held here, as far as this process can know: its lease has not run out."""
        return self.token is not None and not self._lost and time.monotonic() < self._ends

    @property
    def lost(self) -> bool:
        """Whether it was acquired here and is not held any more, although it was not released."""
        return self.token is not None and not self.held

    # --- both faces ---

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire it; tell whether it is held now.

        Waits as long as it takes, or ``timeout`` seconds, or, unless ``blocking``, not at all.
        """
        return run(self.acquiring(blocking, timeout))

    async def aacquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: ASYNC109 - as acquire()
        """See acquire()."""
        return await arun(self.acquiring(blocking, timeout))

    def release(self) -> None:
        """Give it back; ``LockLostError`` if it was lost before."""
        return run(self.releasing())

    async def arelease(self) -> None:
        """See release()."""
        return await arun(self.releasing())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*_told(error)):
            self.release()

    async def __aenter__(self) -> Self:
        await self.aacquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(*_told(error)):
            await self.arelease()

    # --- the operations behind both faces ---

    def acquiring(self, blocking: bool = True, timeout: float = -1) -> Operation[bool]:
        """See acquire()."""
        if self.token is not None:
            message = f"The lock {self.name!r} was acquired by this object before. It is not reentrant."
            raise UsageError(message)
        until = None if timeout < 0 else time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            revision = yield from self._take()
            if revision is not None:
                self.token = self._revision = revision
                self._ends, self._lost = asked + self.timeout, False
                self._renewal = Renewal(self._renewing)
                yield Call(self._renewal, "begin")
                return True
            left = _POLL if until is None else until - time.monotonic()
            if not blocking or left <= 0:
                return False
            yield Pause(min(left, spread.between(_POLL / 2, _POLL)))

    def _take(self) -> Operation[int | None]:
        """Write the lease where there is none, or one that has run out; return its revision, or None."""
        try:
            return (yield from self._write("create"))
        except WrongRevision:
            entry = yield from self._place.ask("get", self._stored)
        if entry is None:
            return None  # released just now
        ends = expiry(entry)
        if entry.value == self._owner or (ends is not None and ends <= (yield from self._place.now())):
            with contextlib.suppress(WrongRevision):
                return (yield from self._write("update", entry.revision))
        return None

    def _write(self, name: str, *over: int) -> Operation[int]:
        lease = Lifetime(self.timeout)
        revision: int = yield from self._place.ask(
            name, self._stored, self._owner, *over, ttl_ms=lease.ttl_ms(0.0), headers=lease.headers()
        )
        return revision

    def releasing(self) -> Operation[None]:
        """See release()."""
        if self.token is None:
            message = f"The lock {self.name!r} is not held, and cannot be released."
            raise UsageError(message)
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            yield Call(renewal, "end")
        lost, self.token = self.lost, None
        try:
            given_back = yield from self._give_back()
        except AWAY as error:
            if lost:  # that is known here already
                raise self._was_lost() from error
            raise
        finally:
            self._revision = 0
        if not given_back:
            raise self._was_lost()

    def _give_back(self) -> Operation[bool]:
        """Delete the lease; tell whether it was ours to the end."""
        # The tombstone outlives the lease, so that a server that crashes does not bring that back (F1).
        outlives = Lifetime(self.timeout).ttl_ms(0.0)
        for _ in range(_RENEWALS):
            try:
                yield from self._place.ask("delete", self._stored, revision=self._revision, marker_ttl_ms=outlives)
            except WrongRevision:
                # A renewal of ours whose answer was lost may have moved it on.
                entry = yield from self._place.ask("get", self._stored)
                if entry is None or entry.value != self._owner:
                    break
                self._revision = entry.revision
            else:
                return True  # nobody has had it since
        return False

    def _renew(self) -> Operation[bool]:
        """Renew the lease; tell whether it is still ours."""
        asked = time.monotonic()
        try:
            self._revision = yield from self._write("update", self._revision)
        except WrongRevision:
            entry: Entry | None = yield from self._place.ask("get", self._stored)
            if entry is None or entry.value != self._owner:
                return False
            self._revision = entry.revision
            return True  # not renewed by much, but ours: soon again
        self._ends = asked + self.timeout
        return True

    # --- renewal ---

    def _renewing(self, stopped: threading.Event) -> Operation[None]:
        ours = True
        while ours:
            if (yield Rest(stopped, self.timeout / _RENEWALS)):
                return
            try:
                ours = yield from self._renew()
            except OperationalError as error:
                ours = self._not_renewed(error)
        self._lost = True
        logger.error("%s", self._was_lost())

    def _not_renewed(self, error: OperationalError) -> bool:
        logger.warning("The lock %r could not be renewed: %s", self.name, error)
        return time.monotonic() < self._ends

    def _was_lost(self) -> LockLostError:
        return LockLostError(f"The lock {self.name!r} was lost before it was released: someone else may hold it.")


class Renewal:
    """The renewal of a lease beside what goes on: on a thread, or in a task where the lock is awaited."""

    def __init__(self, renew: Callable[[threading.Event], Operation[None]]) -> None:
        self._renew = renew
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start it."""
        self._thread = threading.Thread(target=run, args=(self._renew(self._stopped),), name="natskv-lock", daemon=True)
        self._thread.start()

    async def abegin(self) -> None:
        """See begin()."""
        self._task = asyncio.get_running_loop().create_task(arun(self._renew(self._stopped)))

    def end(self) -> None:
        """Stop it, and wait until it is over."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    async def aend(self) -> None:
        """See end()."""
        self._stopped.set()
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait([self._task])


def _told(error: BaseException | None) -> tuple[type[BaseException], ...]:
    """Return what release may raise unseen: where the body failed already, that is what has to be seen."""
    return () if error is None else (OperationalError,)
