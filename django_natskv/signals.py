"""Django signals of what happens in NATS, in every process that looks.

Owns the signals and the thread that sends them. Knows nothing of where the news comes from.

Receivers run on one thread of the process, one after another, never on an event loop; they may block and may use the
database, as any thread may that closes its connections afterwards. An exception in one is logged and keeps nothing else
from being sent. ``initialized`` and ``entry_changed`` come from local caches (``connection.local_cache()``); a first
replay is told by ``initialized`` alone, what a resync finds by ``entry_changed``.

When receivers cannot keep up, changes of one key are told as one, from the oldest ``old`` to the newest ``new``.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections
from django.dispatch import Signal

from django_natskv import kv

logger = logging.getLogger("django_natskv.signals")

initialized = Signal()
"""A local cache is complete for the first time. Arguments: ``connection``, ``bucket`` (its name)."""

entry_changed = Signal()
"""An entry of a local cache changed. Arguments: ``connection``, ``bucket``, ``key``, ``old``, ``new`` (entries, or None
where there was, or is, nothing) and ``revision``."""

connection_status = Signal()
"""A connection came or went, or something went wrong. Arguments: ``connection``, ``status`` ("connecting", "connected",
"disconnected", "closed"; "error" for a watch or a local cache that met something it could not handle) and ``error``."""


class DerivedSignal(Signal):
    """A signal made from ``entry_changed``, which is only listened to once this one has a receiver."""

    def __init__(self) -> None:
        super().__init__()
        self._derive: Callable[..., None] | None = None

    def derive(self, derive: Callable[..., None]) -> None:
        """Have ``derive`` called with each ``entry_changed`` as soon as there are receivers."""
        self._derive = derive
        if self.has_listeners():
            self._follow()

    def connect(self, *arguments: Any, **options: Any) -> None:
        """See Signal."""
        super().connect(*arguments, **options)
        self._follow()

    def _follow(self) -> None:
        if self._derive is not None:
            entry_changed.connect(self._derive, weak=False, dispatch_uid=("django_natskv.derived", id(self)))


config_changed = DerivedSignal()
"""A config or model of the registry changed, here or elsewhere; told in every process that has read its bucket.
Arguments: ``sender`` (the class), ``old`` and ``new`` (snapshots, or None where there was, or is, nothing), ``changed``
(the names of fields), ``revision``, ``actor`` and ``comment``. Of a flag the sender is its FlagSet, ``old`` and ``new``
are definitions, and ``changed`` has its name, or "_evaluators" for the shared rules."""

undecodable = Signal()
"""Something stored by the registry cannot be read. Arguments: ``sender`` (the class), ``connection``, ``bucket`` (its
name), ``key`` and ``error`` (a ``CodecError``; ``error.field`` names the field, None when it is all of it)."""

flag_failed = Signal()
"""A flag gives its declared default because something failed: its definition, a rule, or the way to them. Told once for
each definition, by the signals' own thread. Arguments: ``sender`` (the FlagSet), ``connection``, ``bucket`` (its name),
``key`` (the flag's name; None when nothing of the bucket can be read), ``error`` (a text) and ``revision`` (of the
definition, or None)."""

pre_save, post_save = Signal(), Signal()
"""An object of the registry is about to be saved, or was, by this process, in the thread or task that saves. Arguments:
``sender`` (the class), ``instance``, ``update_fields``, ``actor``, ``comment``; ``created`` afterwards."""

pre_delete, post_delete = Signal(), Signal()
"""An object of the registry is about to be deleted, or was. Arguments: ``sender``, ``instance``, ``actor``,
``comment``."""

PRESSURE = 1_000  # events that wait before those of one key become one


@dataclass(slots=True)
class _Event:
    signal: Signal
    sender: Any
    arguments: dict[str, Any]
    key: tuple[Any, ...] | None = None


class Dispatcher:
    """Sends signals from a thread of its own, begun with the first event; another one in a forked child."""

    def __init__(self) -> None:
        self._fresh()

    def _fresh(self) -> None:
        self._news = threading.Condition()
        self._events: deque[_Event] = deque()
        self._latest: dict[tuple[Any, ...], _Event] = {}  # the waiting event of each key
        self._thread: threading.Thread | None = None
        self._sending = False

    def send(self, signal: Signal, sender: Any, arguments: dict[str, Any], key: tuple[Any, ...] | None = None) -> None:
        """Have ``signal`` sent soon with ``arguments``. Events of one ``key`` may become one. Returns at once."""
        if not signal.has_listeners(sender):
            return
        event = _Event(signal, sender, arguments, key)
        with self._news:
            if key is not None and len(self._events) >= PRESSURE and key in self._latest:
                waiting = self._latest[key].arguments
                waiting.update(arguments, old=waiting["old"])
                return
            self._events.append(event)
            if key is not None:
                self._latest[key] = event
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="natskv-signals", daemon=True)
                self._thread.start()
            self._news.notify()

    def waiting(self) -> int:
        """Return the number of events that were not sent yet."""
        with self._news:
            return len(self._events) + self._sending

    def after_fork(self) -> None:
        """Forget, in a forked child, what is the parent's to send."""
        self._fresh()

    def _run(self) -> None:
        while True:
            with self._news:
                self._sending = False
                while not self._events:
                    self._news.wait()
                event = self._events.popleft()
                self._sending = True
                if event.key is not None and self._latest.get(event.key) is event:
                    del self._latest[event.key]
            self._deliver(event)

    @staticmethod
    def _deliver(event: _Event) -> None:
        arguments = event.arguments
        if event.signal is entry_changed and arguments["old"] is None and arguments["new"] is None:
            return  # it came and went while others were told
        close_old_connections()
        try:
            for receiver, result in event.signal.send_robust(event.sender, **arguments):
                if isinstance(result, Exception):
                    logger.error("A receiver of a signal failed: %r", receiver, exc_info=result)
        except BaseException:
            # What is no Exception, such as SystemExit, passes send_robust.
            logger.exception("A receiver of a signal failed")
        finally:
            close_old_connections()


dispatcher = Dispatcher()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=dispatcher.after_fork)


class SignalListener:
    """Turns what a connection tells its listener into signals, with the connection's class as sender."""

    def __init__(self) -> None:
        self.connection: kv.Connection | None = None

    def wants_entries(self) -> bool:
        """See Listener."""
        return entry_changed.has_listeners(type(self.connection))

    def initialized(self, bucket: str) -> None:
        """See Listener."""
        self._send(initialized, {"bucket": bucket})

    def entry_changed(self, bucket: str, key: str, old: kv.Entry | None, new: kv.Entry | None, revision: int) -> None:
        """See Listener."""
        arguments = {"bucket": bucket, "key": key, "old": old, "new": new, "revision": revision}
        self._send(entry_changed, arguments, (id(self.connection), bucket, key))

    def connection_status(self, status: str, error: Exception | None) -> None:
        """See Listener."""
        self._send(connection_status, {"status": status, "error": error})

    def _send(self, signal: Signal, arguments: dict[str, Any], key: tuple[Any, ...] | None = None) -> None:
        connection = self.connection
        dispatcher.send(signal, type(connection), {"connection": connection, **arguments}, key)
