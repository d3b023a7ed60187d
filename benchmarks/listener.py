"""Another process that sees changes, for the suite ``watch``: ``python -m benchmarks.listener nats|redis URL NAME``.

Owns the receiving end. A value is the moment at which it was sent, on the clock that processes of one machine share;
for each line on stdin the delays since the last one are written to stdout, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from benchmarks.peers import library
from benchmarks.setup import configure


def main(kind: str, url: str, name: str) -> None:
    delays: list[float] = []

    def saw(sent: bytes) -> None:
        delays.append((time.monotonic_ns() - int(sent)) / 1e9)

    listen = {"nats": watch, "redis": subscribe}[kind]
    kept = listen(url, name, saw)
    print("ready", flush=True)
    for line in sys.stdin:
        wanted = int(line)
        deadline = time.monotonic() + 10
        while len(delays) < wanted and time.monotonic() < deadline:
            time.sleep(0.005)
        print(json.dumps(delays), flush=True)
        delays.clear()
    kept()


def watch(url: str, name: str, saw: Any) -> Any:
    configure(url, {})
    # After configure(): Django's settings are read when it is first used.
    from django_natskv import connections  # noqa: PLC0415

    bucket = connections["default"].kv().open_bucket(name, codec="bytes")
    watched = bucket.watch(lambda entry: saw(entry.value), deliver="updates")
    return watched.stop


def subscribe(url: str, name: str, saw: Any) -> Any:
    channel = library("redis").Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
    channel.subscribe(name)

    def listen() -> None:
        for message in channel.listen():
            saw(message["data"])

    threading.Thread(target=listen, daemon=True).start()
    return lambda: None


if __name__ == "__main__":
    main(*sys.argv[1:])
