"""The floor: what nats-server itself takes for 100 keys, over a bare socket that parses nothing.

Owns the bytes that are sent, and when an answer is whole. Knows nothing of rounds and clocks.
"""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.core.cache import caches

from benchmarks.load import KEYS, Do, Open
from benchmarks.setup import BUCKETS, OURS
from django_natskv import connections

FLOOR = "a bare socket"
VERBS = ("get_many", "set_many")

_LARGEST_ANSWER = 2**20
_READ = 2**18
_HELLO = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB floor.* 1\r\nPING\r\n'
_END = b" 204 EOB"
_STORED = b'"seq":'


def opener(url: str, verb: str) -> Open:
    """Return what opens a socket that does what the cache does for ``verb``, with what the cache has stored."""
    return lambda: _get_many(_connected(url)) if verb == "get_many" else _set_many(_connected(url))


def _connected(url: str) -> socket.socket:
    address = urlsplit(url)
    made = socket.create_connection((address.hostname, address.port or 4222))
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.sendall(_HELLO)
    while not made.recv(_READ).endswith(b"PONG\r\n"):
        pass
    return made


def _names() -> list[str]:
    cache: Any = caches[OURS]
    return [cache._name(key, None) for key in KEYS]  # noqa: SLF001


def _get_many(server: socket.socket) -> Do:
    bucket = BUCKETS[OURS]
    wanted = {"multi_last": [f"$KV.{bucket}.{name}" for name in _names()], "max_bytes": _LARGEST_ANSWER}
    payload = json.dumps(wanted).encode()
    request = b"PUB $JS.API.DIRECT.GET.KV_%s floor.1 %d\r\n%s\r\n" % (bucket.encode(), len(payload), payload)

    def do(_key: str) -> None:
        server.sendall(request)
        _wait(server, _END, 1)

    return do


def _set_many(server: socket.socket) -> Do:
    entries = connections["default"].kv().open_bucket(BUCKETS[OURS], codec="bytes").get_many(_names())
    written = itertools.count()
    makers = [_publish(key, entry.value, entry.headers) for key, entry in entries.items()]

    def do(_key: str) -> None:
        server.sendall(b"".join([make(next(written)) for make in makers]))
        _wait(server, _STORED, len(makers))

    return do


def _publish(key: str, value: bytes, headers: Any) -> Callable[[int], bytes]:
    own = "".join(f"{name}: {said}\r\n" for name, said in headers.items())

    def make(number: int) -> bytes:
        head = f"NATS/1.0\r\n{own}Nats-TTL: 300s\r\nNats-Msg-Id: floor.{number}\r\n\r\n".encode()
        line = f"HPUB $KV.{BUCKETS[OURS]}.{key} floor.{number} {len(head)} {len(head) + len(value)}\r\n".encode()
        return b"".join((line, head, value, b"\r\n"))

    return make


def _wait(server: socket.socket, end: bytes, count: int) -> None:
    """Read until ``end`` has come ``count`` times; it may come in two pieces."""
    rest = b""
    while count > 0:
        data = rest + server.recv(_READ)
        count -= data.count(end)
        rest = data[1 - len(end) :]
