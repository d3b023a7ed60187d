"""Queues: who of this process is next to change an object that several want to change at once.

Owns one queue a key, in the order of arrival, for threads and tasks alike. Knows nothing of what is changed: whoever
waits too long goes on without a turn, and the compare-and-set decides.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from django_natskv.registry._steps import Operation, Step

LONGEST_WAIT = 5.0  # seconds for a turn: one that hangs, or waits for us, must not hold up the others for ever

_lock = threading.Lock()
_queues: dict[Hashable, deque[Future[None]]] = {}
_mine: ContextVar[tuple[Future[None], ...]] = ContextVar("natskv_turns", default=())


def in_turn(key: Hashable, operation: Operation[Any]) -> Operation[Any]:
    """Carry ``operation`` out when everybody of this process who came before for ``key`` is done.

    Whoever has the turn already, as a receiver of the signals of a save has, does not wait for itself.
    """
    if _is_ours(key):
        return (yield from operation)
    turn: Future[None] = Future()
    try:
        try:
            _enter(key, turn)
            if not turn.done():
                yield Step(lambda: _wait(turn), lambda: _await(turn))
            token = _mine.set((*_mine.get(), turn))
            try:
                return (yield from operation)
            finally:
                _mine.reset(token)
        finally:
            _leave(key, turn)
    except BaseException:
        # Again: a signal's handler may have raised before the first time was over, and nobody would ever be next.
        _leave(key, turn)
        raise


def _is_ours(key: Hashable) -> bool:
    mine = _mine.get()
    with _lock:
        return bool(mine) and key in _queues and _queues[key][0] in mine


def _enter(key: Hashable, turn: Future[None]) -> None:
    with _lock:
        queue = _queues.setdefault(key, deque())
        queue.append(turn)
        first = queue[0] is turn
    if first:
        turn.set_result(None)


def _leave(key: Hashable, turn: Future[None]) -> None:
    """Take that ``turn`` is over, or will not be waited for. Harmless to repeat."""
    following = None
    with _lock:
        queue = _queues.get(key)
        if queue is not None and turn in queue:  # it may have left; a fork may have come in between
            first = queue[0] is turn
            queue.remove(turn)
            following = queue[0] if first and queue else None
        if not queue:
            _queues.pop(key, None)
    # Who was cancelled, or is tired of waiting, leaves by itself.
    if following is not None and following.set_running_or_notify_cancel():
        following.set_result(None)


def _wait(turn: Future[None]) -> None:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return  # a task of this very loop may have the turn, and could never give it back
    with suppress(TimeoutError):
        turn.result(LONGEST_WAIT)


async def _await(turn: Future[None]) -> None:
    with suppress(TimeoutError):
        # Shielded, or a wait that is over would cancel the turn, which may come at that moment.
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(turn)), LONGEST_WAIT)


def _forked() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _queues.clear()


os.register_at_fork(after_in_child=_forked)
