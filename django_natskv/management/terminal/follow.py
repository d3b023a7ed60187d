"""A watch in the terminal: a line a change, until somebody ends it.

Owns how it ends and what is said of outages. Must not know how an entry looks, nor which verb watches.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management.base import CommandParser

from django_natskv import signals
from django_natskv.kv import Deliver, Entry
from django_natskv.management.terminal.entries import line_of
from django_natskv.management.terminal.reading import Reader, add_codec, codec_of, note_strange
from django_natskv.management.terminal.verb import Call

ENDS = "It goes on until Ctrl-C or SIGTERM, or until the reader of its output leaves: exit status 0."

_WAITING = 1_000  # changes that wait to be written before no more are taken
_LOOK = 0.5  # seconds between two looks whether anybody reads still
_PAUSE = 0.05  # seconds

# Where no log is configured, Python writes warnings to stderr: there, the package's would say every outage twice.
_NOWHERE = logging.NullHandler()

_News = Entry | Exception | str


def add_watch_options(parser: CommandParser) -> None:
    """Add what every watch takes."""
    first = parser.add_mutually_exclusive_group()
    first.add_argument("--history", action="store_true", help="begin with every revision that is kept")
    first.add_argument("--updates", action="store_true", help="begin with the next change, not with what is there")
    parser.add_argument("--ignore-deletes", action="store_true", help="leave out deleted, purged and expired keys")
    add_codec(parser)


def follow(call: Call, name: str, keys: Sequence[str] | None) -> None:
    """Watch the bucket ``name``, those of its ``keys`` if any are given, to the end."""
    options = call.options
    reader = Reader(codec_of(call))
    deliver = Deliver.HISTORY if options["history"] else Deliver.UPDATES if options["updates"] else Deliver.LATEST
    bucket = call.kv().open_bucket(name, codec=reader)
    news: queue.SimpleQueue[_News] = queue.SimpleQueue()
    ended = threading.Event()

    def take(entry: Entry) -> None:
        while news.qsize() >= _WAITING and not ended.wait(_PAUSE):
            pass
        news.put(entry)

    # For good: a watch that has been stopped may still have a warning on its way.
    logging.getLogger("django_natskv").addHandler(_NOWHERE)
    with _ended_by_signals(), _outages(call, news):
        watch = bucket.watch(
            take, deliver=deliver, keys=keys, ignore_deletes=options["ignore_deletes"], on_error=news.put
        )
        try:
            call.say(f"Watching the bucket {name!r}; Ctrl-C ends it.")
            _write(call, news)
        except BrokenPipeError:
            call.discard()
        finally:
            ended.set()
            watch.stop()


def _write(call: Call, news: queue.SimpleQueue[_News]) -> None:
    """Write what comes, until nobody reads any more."""
    noted = False
    while True:
        if news.empty():
            call.flush()
        try:
            item = news.get(timeout=_LOOK)
        except queue.Empty:
            # As `tail -f` does: without changes nothing is written that would tell.
            if call.is_unread():
                return
            continue
        if isinstance(item, Entry):
            if item.value is not None and item.value.is_strange and not noted:
                noted = True
                note_strange(call, item.key, item.revision)
            call.write(line_of(item, call.options["format"], call.heading))
        elif isinstance(item, str):
            call.warn(item)
        else:
            # A missing permission, mostly: what heals by itself is not told as an error.
            raise item


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block, and nothing else."""
    ours = threading.current_thread() is threading.main_thread()  # only there may signals be handled
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if ours else None
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _outages(call: Call, news: queue.SimpleQueue[_News]) -> Iterator[None]:
    """Tell of a connection that is lost, and of its return, within the block."""
    watched = call.connection
    lost = False

    def told(connection: Any, status: str, **_: Any) -> None:
        nonlocal lost
        if connection is not watched:
            return
        if status == "disconnected" and not lost:
            lost = True
            news.put("The connection is lost. The watch waits for it to come back.")
        elif status == "connected" and lost:
            lost = False
            news.put("The connection is back. What has changed meanwhile follows.")

    signals.connection_status.connect(told, weak=False)
    try:
        yield
    finally:
        signals.connection_status.disconnect(told)
