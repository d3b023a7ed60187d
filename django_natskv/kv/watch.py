"""Watch: a handler that is told of every change of a bucket, one after another.

Owns the handle, the thread that handlers run on and what becomes of their errors. Knows nothing of how changes are
found out: a session gives them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, KeysView, Sequence
from concurrent.futures import Future, InvalidStateError, TimeoutError as FutureTimeoutError
from datetime import UTC, datetime
from typing import Any

from django_natskv.exceptions import AuthInvalid, NatsKVError, PermissionsViolation, UsageError
from django_natskv.kv._breath import paced
from django_natskv.kv._core import Core
from django_natskv.kv._known import Known
from django_natskv.kv._nats.messages import Stored
from django_natskv.kv._session import Session
from django_natskv.kv.entries import Deliver, Entry
from django_natskv.kv.names import check_patterns, matcher
from django_natskv.kv.runner import Operation, Runner

logger = logging.getLogger("django_natskv.watch")

Handler = Callable[[Entry], Awaitable[Any] | Any]
OnError = Callable[[Exception], Any]
Report = Callable[[Exception], None]

QUEUED = 10_000  # entries that wait for a slow handler before no more are asked for
_LOOK_AROUND = 0.5  # seconds between two looks whether a handler's event loop is still there
_ENTERED = 0.05  # seconds that stop() leaves a thread that is just about to call the handler


class Watch:
    """An open-ended observation of a bucket. Goes on until ``stop()``, whatever happens to the server meanwhile.

    ``initialized`` is done when everything that was in the bucket at the start has been handed to the handler, and
    never before; with deliver="updates" at once. It is cancelled when the watch is stopped first.

    In a forked child a watch of the parent is silent: it belongs to the process that began it.
    """

    def __init__(self, teller: _Teller, session: Session) -> None:
        self._teller = teller
        self._session = session
        self.initialized: Future[None] = teller.initialized

    def stop(self) -> None:
        """Cease delivery: no entry is handed over after this returned. Returns at once; safe to repeat."""
        self._teller.stop()
        self._session.stop()


class Watcher:
    """What a bucket needs to be watched: a core and a runner on the connection that watches have to themselves."""

    def __init__(self, core: Core, runner: Runner, report: Report) -> None:
        self._core = core
        self._runner = runner
        self._report = report

    def watch(
        self,
        handler: Handler,
        deliver: object,
        keys: object,
        ignore_deletes: object,
        on_error: OnError | None,
    ) -> Operation[Watch]:
        """See ``Bucket.watch``."""
        # A handler's awaitables belong to the loop that asked for the watch.
        home = asyncio._get_running_loop()  # noqa: SLF001 - its public twin raises where there is none
        mode = Deliver.check(deliver)
        patterns = (">",) if keys is None else check_patterns(keys)
        for name, given in (("handler", handler), ("on_error", on_error)):
            if not callable(given) and not (name == "on_error" and given is None):
                message = f"{name} is something to call with an argument, not {type(given).__name__}."
                raise UsageError(message)
        core = self._core
        info = yield from core.wire.info(core.name)
        after = (info.last_revision, info.created) if mode is Deliver.UPDATES else None
        teller = _Teller(core, handler, on_error or self._report, patterns, home, hides_markers=bool(ignore_deletes))
        teller.skip_up_to(after)
        session = Session(core, self._runner, patterns, teller, history=mode is Deliver.HISTORY, opened=teller.opened)
        session.start()
        return Watch(teller, session)


class _Teller:
    """The sink of a watch: works out what is news and tells the handler, on a thread of its own."""

    def __init__(
        self,
        core: Core,
        handler: Handler,
        on_error: OnError,
        patterns: Sequence[str],
        home: asyncio.AbstractEventLoop | None,
        *,
        hides_markers: bool,
    ) -> None:
        self.initialized: Future[None] = Future()
        self._core = core
        self._handler = handler
        self._on_error = on_error
        self._wanted = matcher(patterns)
        self._home = home
        self._hides_markers = hides_markers
        self._known = Known()
        self._after: tuple[int, datetime] | None = None
        self._first = True
        self._stopped = False
        self._calling = threading.Lock()  # held while the handler is called
        self._own: asyncio.Runner | None = None  # for awaitables, where no event loop ran when the watch was begun
        self._refused: type[Exception] | None = None  # what was told already
        self._queue: queue.SimpleQueue[list[Stored | Exception | None]] = queue.SimpleQueue()
        self._gathered: list[Stored | Exception | None] = []  # for the queue, in this turn of the loop
        self._put, self._taken = 0, 0  # each counted by one thread
        self._thread = threading.Thread(target=self._deliver, name=f"natskv-watch-{core.name}", daemon=True)
        self._thread.start()

    def skip_up_to(self, position: tuple[int, datetime] | None) -> None:
        """Deliver only what is newer than ``position`` (revision, and the time when the bucket was made)."""
        self._after = position
        if position is not None:
            self.initialized.set_result(None)

    # --- the sink, on the loop ---

    def opened(self, created: datetime) -> None:
        """Take the time when the bucket was made: in one made anew meanwhile every revision is newer."""
        if self._after is not None and self._after[1] != created:
            self._after = (0, created)

    def subjects(self) -> KeysView[str]:
        return self._known.subjects()

    def revision(self, subject: str) -> int | None:
        return self._known.revision(subject)

    def replace(self, replay: Sequence[Stored]) -> None:
        self._refused = None
        news = self._known.replace(replay, datetime.now(UTC))
        if self._first and self._after is not None:
            revision, _ = self._after
            news = [stored for stored in news if stored.revision > revision]
        self._pass_on(*news)
        if self._first:
            self._first = False
            self._pass_on(None)

    def apply(self, stored: Stored) -> None:
        self._known.apply(stored)
        self._pass_on(stored)

    def forget(self, gone: Stored) -> None:
        if self._known.forget(gone.subject):
            self._pass_on(gone)

    def stale(self, error: Exception) -> None:
        """Tell of what somebody has to mend; what heals by itself shows in what is told afterwards."""
        if isinstance(error, PermissionsViolation | AuthInvalid) and self._refused is not type(error):
            self._refused = type(error)
            self._pass_on(error)

    def is_busy(self) -> bool:
        return self._put - self._taken > QUEUED

    def _pass_on(self, *items: Stored | Exception | None) -> None:
        """Give the thread something to do at the end of this turn of the loop.

        Woken before, it would wait for the interpreter lock until this thread, the loop's, has nothing more to do.
        """
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._wake)
        self._gathered.extend(items)

    def _wake(self) -> None:
        gathered, self._gathered = self._gathered, []
        self._put += len(gathered)
        self._queue.put(gathered)

    def ended(self) -> None:
        self._cease()

    # --- from any thread ---

    def _cease(self) -> None:
        self._stopped = True
        self.initialized.cancel()
        self._queue.put([None])

    def stop(self) -> None:
        self._cease()
        if threading.current_thread() is not self._thread and self._calling.acquire(timeout=_ENTERED):
            # A thread that had looked just before may have been about to call: now it has.
            self._calling.release()

    # --- the thread that handlers run on ---

    def _deliver(self) -> None:
        try:
            while True:
                for item in paced(self._queue.get()):
                    if self._stopped:
                        return
                    self._take(item)
                    self._taken += 1
        finally:
            if self._own is not None:
                self._own.close()

    def _take(self, item: Stored | Exception | None) -> None:
        if isinstance(item, Stored):
            self._hand_over(item)
        elif item is not None:
            self._tell_error(item)
        else:
            with contextlib.suppress(InvalidStateError):  # done at once with "updates", or cancelled
                self.initialized.set_result(None)

    def _hand_over(self, stored: Stored) -> None:
        if (self._hides_markers and not stored.is_live) or not self._wanted(self._core.key(stored)):
            return
        try:
            entry = self._core.entry(stored, stored.delta)
            with self._calling:
                if self._stopped:
                    return
                result = self._handler(entry)
            self._settle(result)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the watch goes on
            self._tell_error(error)
        except BaseException as error:  # noqa: BLE001 - sys.exit() or a cancellation would end it in silence
            failure = RuntimeError(f"The handler raised {type(error).__name__}.")
            failure.__cause__ = error
            self._tell_error(failure)

    def _tell_error(self, error: Exception) -> None:
        try:
            self._settle(self._on_error(error))
        except BaseException:
            logger.exception("on_error of a watch on bucket %s failed", self._core.name)

    def _settle(self, result: Any) -> None:
        """Wait for what a handler returned, if it is to be awaited."""
        if result is None or not inspect.isawaitable(result):
            return
        if self._home is None:
            if self._own is None:
                self._own = asyncio.Runner()
            self._own.run(_await(result))
            return
        work = self._begin_at_home(result)
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._home)
        except RuntimeError:  # that loop is closed
            work.close()
            _discard(result)
            self._orphaned()
        else:
            if self._is_awaited(future, self._home):
                future.result()
                return
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:  # closed before it came to it
                work.close()
                _discard(result)
            self._orphaned()

    @staticmethod
    def _is_awaited(future: Future[None], home: asyncio.AbstractEventLoop) -> bool:
        """Wait for a handler, even when the watch is stopped: it may have done so itself and have more to do.

        Returns False when its loop was closed, and it will never be over.
        """
        while not future.done():
            with contextlib.suppress(FutureTimeoutError):
                future.exception(_LOOK_AROUND)
            if home.is_closed() and not future.done():
                return False
        return True

    def _orphaned(self) -> None:
        message = (
            "The watch on bucket %s ends: the event loop that it was begun on, and its handler lives on, is closed"
        )
        logger.warning(message, self._core.name)
        self._cease()

    async def _begin_at_home(self, awaitable: Awaitable[Any]) -> None:
        if self._stopped:
            # On this very loop, perhaps, since the awaitable was made.
            _discard(awaitable)
            return
        await awaitable


def _discard(awaitable: Any) -> None:
    """Let go of a coroutine that was never begun, without the warning about that."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def log_error(core_name: str, then: Report | None = None) -> Report:
    """Return what is done with a watch's error where there is no ``on_error``: it is logged, and told to ``then``."""

    def report(error: Exception) -> None:
        known = isinstance(error, NatsKVError)
        logger.error("A watch on bucket %s: %s", core_name, error if known else "its handler failed", exc_info=error)
        if then is not None:
            then(error)

    return report
