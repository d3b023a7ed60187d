"""Signals of the main thread: held back while it waits for the connection, and handled in the caller's frame then.

Owns which signals, and the putting aside and back of their handlers. Knows nothing of what is waited for.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed does not know it
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

# What the handlers of these raise is meant for the code that was interrupted.
_SIGNALS = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGINT", "SIGTERM", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGVTALRM", "SIGPROF",
    )
    if hasattr(signal, name)
)  # fmt: skip


class HeldSignals:
    """As a context, in the main thread: no handler runs inside; those of what came run right behind it.

    A handler may raise (Ctrl-C, an alarm, Celery's soft time limit). Inside the event loop that would end one of its
    tasks, and between a lock's being taken and its ``with`` leave it locked; in the caller's frame it ends the
    caller's work, which is what it is for. ``rouse`` is called, inside, when one has come. It must not take a lock.

    Where Python lets no handler be set, in a subinterpreter, none runs either, and this does nothing.
    """

    __slots__ = ("_came", "_handlers", "_over", "_rouse")

    def __init__(self, rouse: Callable[[], None]) -> None:
        self._rouse = rouse
        self._handlers: dict[int, Any] = {}
        self._came: list[tuple[int, FrameType | None]] = []
        self._over = False

    def __enter__(self) -> None:
        self._over = False
        # The C functions: those of the signal module make an enum of every number and handler, 1 us each.
        found = {number: _signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {number: _real(number, handler) for number, handler in found.items() if callable(handler)}
        hold = self._hold
        try:
            for number in self._handlers:
                _signal.signal(number, hold)
        except BaseException as error:
            if isinstance(error, ValueError) and str(error).startswith("signal only works in main thread"):
                self._handlers = {}
                return
            self.__exit__()  # a handler raised that was not put aside yet
            raise

    def __exit__(self, *_: object) -> None:
        self._over = True
        try:
            self._put_back()
        finally:
            try:
                self._handle()
            finally:  # it may have been kept from beginning
                self._handle()

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            # What another handler raised kept this one from being put back in time.
            _signal.signal(number, self._handlers[number])
            self._handlers[number](number, frame)
        else:
            self._came.append((number, frame))
            self._rouse()

    def _put_back(self) -> None:
        handlers = list(self._handlers.items())
        try:
            while handlers:
                number, handler = handlers[-1]
                _signal.signal(number, handler)  # calls, before it does that, the handlers of what is pending
                handlers.pop()
        except BaseException:
            for number, handler in handlers:
                _signal.signal(number, handler)
            raise

    def _handle(self) -> None:
        """Call the handlers of all that came, in order; an exception of one is the context of the next one's."""
        if self._came:
            number, frame = self._came[0]
            del self._came[0]  # not by pop(): behind a call the next handler may run, and raise
            try:
                self._handlers[number](number, frame)
            finally:
                self._handle()


def _real(number: int, handler: Any) -> Any:
    """Return the handler that the program has set, also where one of ours was not taken away in time."""
    holder = getattr(handler, "__self__", None)
    return holder._handlers[number] if isinstance(holder, HeldSignals) else handler  # noqa: SLF001 - its own


def from_handler(error: BaseException) -> bool:
    """Tell whether a signal's handler has raised ``error``, in the midst of whatever was being done."""
    codes = set()
    for number in _SIGNALS:
        handler = _signal.getsignal(number)
        codes.add(getattr(getattr(handler, "__func__", handler), "__code__", None))
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
