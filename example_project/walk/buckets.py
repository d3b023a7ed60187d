"""The first chapters of the walk: a server, a bucket, its entries, and who is told of them.

Owns what is shown of the facade. Knows nothing of the shop but its bucket of orders.
"""

from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import django
from django.conf import settings

from django_natskv import connections, server
from django_natskv.exceptions import WrongRevision
from example_project.shop.orders import BUCKET
from example_project.transcript import Transcript, WalkFailed
from example_project.walk.processes import MANAGE, PATIENCE, end, manage, short, started

CHANGES = 20
PAUSE = 0.02  # seconds between two changes: each is to be told before the next is made


def a_server(transcript: Transcript) -> None:
    transcript.title("1. A real nats-server")
    transcript.say(f"Django {django.get_version()}, Python {sys.version.split()[0]}; the settings say NATSKV =")
    transcript.say(repr(settings.NATSKV))
    directory = server.default_directory(MANAGE.parent)
    found = server.running(directory)
    began = time.perf_counter()
    connections["default"].kv()
    seconds = time.perf_counter() - began
    joined = found is not None
    found = server.running(directory)
    if found is None:
        raise WalkFailed("The connection is there, but no embedded server runs.")
    what = "Joined the one that was running" if joined else "Started"
    transcript.good(f"{what}, and connected, in {seconds * 1000:.0f} ms.")
    transcript.say(f"nats-server {found.version}, {found.url}, process {found.pid}, data in {short(found.directory)}")


def a_bucket(transcript: Transcript) -> None:
    transcript.title("2. A bucket, by manage.py")
    name = BUCKET
    done = manage(transcript, "natskv_bucket", "create", name, "--history", "8")
    transcript.check(done == 0, f"the command ends with exit status 0 (it was {done})")
    transcript.check(name in connections["default"].kv().bucket_names(), "the server has the bucket")


def entries(transcript: Transcript) -> None:
    transcript.title("3. Entries, blocking and awaited")
    key = f"order.{datetime.now(UTC):%y%m%d-%H%M%S}"  # two walks do not meet
    run = transcript.run
    run("import asyncio")
    run("from django_natskv import connections")
    run(f'bucket = connections["default"].kv().open_bucket({BUCKET!r})')
    run(f"key = {key!r}")
    created = run('bucket.create(key, {"item": "tea", "state": "new"})')
    entry = run("bucket.get(key)")
    transcript.check(entry.value == {"item": "tea", "state": "new"}, "what was written is read")
    transcript.check(entry.revision == created, "the entry has the revision that the write returned")
    transcript.say()
    transcript.say("The same from async code, on the same objects:")
    revision = run('asyncio.run(bucket.aput(key, {"item": "tea", "state": "paid"}))')
    value = run("asyncio.run(bucket.aget(key)).value")
    transcript.check(revision > created, "a later write has a greater revision")
    transcript.check(value == {"item": "tea", "state": "paid"}, "both faces see the same")
    transcript.check(run('key in bucket.keys("order.*")') is True, "the key is listed")
    transcript.check(run('bucket.get("order.none") is None') is True, "an absent key is None")


def a_race(transcript: Transcript) -> None:
    transcript.title("4. A lost race")
    transcript.say("Two workers read the same revision; both write; the second one is told.")
    run = transcript.run
    run("seen = bucket.get(key)")
    won = run('bucket.update(key, {**seen.value, "state": "packed"}, seen.revision)')
    error = run('bucket.update(key, {**seen.value, "state": "cancelled"}, seen.revision)', raises=WrongRevision)
    transcript.check(error.key == transcript.names["key"], "the error names the key")
    now = run("bucket.get(key).value")
    transcript.check(now["state"] == "packed", "the loser has written nothing")
    transcript.check(won > transcript.names["seen"].revision, "the winner has written")


def history(transcript: Transcript) -> None:
    transcript.title("5. History")
    transcript.run('for entry in bucket.history(key):\n    print("   ", entry.revision, entry.operation, entry.value)')
    states = [entry.value["state"] for entry in transcript.names["bucket"].history(transcript.names["key"])]
    transcript.check(states == ["new", "paid", "packed"], "the history is what was written, oldest first")


def a_watch(transcript: Transcript) -> None:
    transcript.title("6. A watch in a second process")
    with _watching(transcript) as (pid, lines):
        transcript.say(f"That is process {pid}; this one, {os.getpid()}, now writes {CHANGES} changes, one by one.")
        delays = [_change(transcript, number, lines) for number in range(1, CHANGES + 1)]
    transcript.say("From before the write here until the handler runs there, each in ms:")
    transcript.output(_rows([f"{delay:.2f}" for delay in delays]))
    transcript.good(f"median {statistics.median(delays):.2f} ms, worst {max(delays):.2f} ms")


def _change(transcript: Transcript, number: int, lines: queue.Queue[str]) -> float:
    """Make a change, wait until the other process was told of it, and return the milliseconds between."""
    value = {"item": "tea", "state": "sent", "step": number}
    # Both processes read the clock of this machine.
    began = time.time_ns()
    revision = transcript.names["bucket"].put(transcript.names["key"], value)
    told = _next(lines)
    if number == 1:
        transcript.output(json.dumps(told))
    transcript.check((told["revision"], told["value"]) == (revision, value), "the watch tells each change, in order")
    time.sleep(PAUSE)
    return float(told["told"] - began) / 1e6


@contextmanager
def _watching(transcript: Transcript) -> Iterator[tuple[int, queue.Queue[str]]]:
    """Run the example's ``watch_orders`` while the block does; give its process and its lines."""
    # It ends by itself, so that nothing is left of it even if this process is killed.
    arguments = [str(MANAGE), "watch_orders", "--keys", transcript.names["key"], "--seconds", "30"]
    with started(transcript, arguments) as process:
        lines: queue.Queue[str] = queue.Queue()
        thread = threading.Thread(target=_read, args=(process, lines), daemon=True)
        thread.start()
        try:
            transcript.output(json.dumps(_next(lines)))
            yield process.pid, lines
        finally:
            end(process)
            thread.join()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    assert process.stdout is not None  # noqa: S101 - PIPE was asked for
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _next(lines: queue.Queue[str]) -> dict[str, Any]:
    """Return the next line of the other process."""
    try:
        line = lines.get(timeout=PATIENCE)
    except queue.Empty:
        raise WalkFailed(f"The other process said nothing for {PATIENCE:.0f} s.") from None
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        raise WalkFailed(f"The other process said {line.strip() or 'no more'!r}.") from None
    return told


def _rows(cells: Sequence[str], length: int = 10) -> str:
    width = max(map(len, cells))
    padded = [cell.rjust(width) for cell in cells]
    return "\n".join("  ".join(padded[start : start + length]) for start in range(0, len(padded), length))
