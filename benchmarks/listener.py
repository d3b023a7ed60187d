"""Another process that sees changes, for the suite ``watch``: ``python -m benchmarks.listener KIND URL NAME``.

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

    listen = {"nats": watch, "local": copy, "redis": subscribe}[kind]
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
    watched = bucket.watch(lambda entry: saw(entry.value), deliver="updates", keys="watched.*")
    return watched.stop


class Noting:
    """The codec of a copy, which decodes a value at the moment it takes it in."""

    def __init__(self, saw: Any) -> None:
        self._saw = saw

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        self._saw(data)
        return data


def copy(url: str, name: str, saw: Any) -> Any:
    configure(url, {})
    from django_natskv import connections  # noqa: PLC0415

    seen: list[bytes] = []
    cache = connections["default"].local_cache(
        name, keys="copied.*", codec=Noting(lambda sent: saw(sent) if seen else None)
    )
    cache.wait_ready(30)
    seen.append(b"ready")  # what was there before is no change
    return cache.close


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
