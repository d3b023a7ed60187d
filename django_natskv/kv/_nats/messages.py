"""Stored messages as they arrive: by direct read, by a leader's answer, and by delivery.

Owns the parsing of headers, markers and delivery metadata. Knows nothing of requests.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from django_natskv.kv.changes import OPERATION
from django_natskv.kv.entries import NO_HEADERS, Operation

MARKER_REASON = "Nats-Marker-Reason"
MESSAGE_ID = "Nats-Msg-Id"
_OPERATIONS = {"DEL": Operation.DELETE, "PURGE": Operation.PURGE}
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"([0-9.]+)(h|ms|m|s|us|µs|ns)")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:h|ms|m|s|us|µs|ns))+")
_NO_HEADERS: dict[str, str] = {}
_NOT_OWN = ("Nats-", "KV-")
_ONLY_ID = f"NATS/1.0\r\n{MESSAGE_ID}: ".encode()
_NO_STATUS = b"NATS/1.0\r\n"
# With this begins what the server puts behind the headers of a value that is read directly.
_STREAM = b"\r\nNats-Stream: "
_LINES = 4  # of what comes with it and is of use: the name of the stream, subject, sequence and time
_ID = f"\r\n{MESSAGE_ID}: ".encode()
_MOST_REMEMBERED = 512  # bytes of headers that are worth to be remembered
_NUMBERS = 4  # at the end of a delivery's address
_LENGTHS = {9: 5, 11: 7}  # words of an address that ends with them: where they begin
_SEVERAL = 8  # deliveries from which it is worth while to parse their numbers together
_make = tuple.__new__


class Reply(Protocol):
    """A message from the server, as the verbs see it."""

    @property
    def data(self) -> bytes: ...
    @property
    def headers(self) -> dict[str, str] | None: ...
    @property
    def reply(self) -> str: ...
    @property
    def subject(self) -> str: ...


class Stored(NamedTuple):  # made for each key of a replay: three times as fast as a frozen dataclass
    """One revision as bytes. ``pending`` counts what follows it in a delivery, and is -1 for a read."""

    subject: str
    revision: int
    written: datetime | int  # nanoseconds of a delivery, which most copies are never asked for: see ``moment``
    headers: dict[str, str]
    data: bytes
    pending: int = -1
    delivery: int = 0  # the number of this delivery in its consumer; a gap means that one was lost
    delta: int = 0  # the distance from the key's newest revision

    @property
    def created(self) -> datetime:
        """When it was written, by the server's clock, in UTC."""
        return moment(self.written)

    @property
    def time_to_live(self) -> int:
        """The whole seconds that it was given to live, or 0."""
        given = self.headers.get("Nats-TTL")
        return 0 if given is None else parse_ttl(given)

    @property
    def is_live(self) -> bool:
        """Whether it is a value and no marker."""
        return self.operation is Operation.PUT

    @property
    def operation(self) -> Operation:
        """What the revision did; the server's own markers, of an expiry for instance, read as a purge."""
        headers = self.headers
        if not headers:
            return Operation.PUT
        if OPERATION in headers:
            return _OPERATIONS.get(headers[OPERATION], Operation.PUT)
        return Operation.PURGE if MARKER_REASON in headers else Operation.PUT


def from_direct(reply: Reply) -> Stored:
    """Return the revision in a reply to a direct read. See all_direct()."""
    return all_direct((reply,))[0]


def all_direct(replies: Sequence[Reply]) -> list[Stored]:
    """Return the revisions in replies to direct reads.

    Their headers are those that were stored, without the id of the write where that is the last of them: so most values
    of an application have equal ones, which are parsed once and shared. They are not to be changed.
    """
    found: list[Stored] = []
    known, headers = b"", _NO_HEADERS
    for reply in replies:
        # Inline and without a look at what nobody asks for: a read of many takes as long as this does.
        stored, _, told = getattr(reply, "block", b"").rpartition(_STREAM)
        lines = told.decode("utf-8", "replace").split("\r\n", 4)
        if len(lines) < _LINES or not (
            lines[1][:14] == "Nats-Subject: "
            and lines[2][:15] == "Nats-Sequence: "
            and lines[3][:17] == "Nats-Time-Stamp: "
        ):
            found.append(_in_any_order(reply))
            continue
        own, _, name = stored.rpartition(_ID)
        if not own or b"\r" in name:
            own = stored
        if own != known:
            known = own
            headers = (_parse_again if len(own) < _MOST_REMEMBERED else parse_headers)(own) or _NO_HEADERS
        written = datetime.fromisoformat(lines[3][17:])
        found.append(_make(Stored, (lines[1][14:], int(lines[2][15:]), written, headers, reply.data, -1, 0, 0)))
    return found


def _in_any_order(reply: Reply) -> Stored:
    headers = reply.headers or _NO_HEADERS
    return Stored(
        headers["Nats-Subject"],
        int(headers["Nats-Sequence"]),
        datetime.fromisoformat(headers["Nats-Time-Stamp"]),
        headers,
        reply.data,
    )


def stream_of(reply: Reply) -> str | None:
    """Return the name of the stream that gave a reply to a direct read."""
    told: bytes = getattr(reply, "block", b"").rpartition(_STREAM)[2]
    if told:
        return told.partition(b"\r\n")[0].decode()
    return (reply.headers or _NO_HEADERS).get("Nats-Stream")


def from_leader(message: dict[str, Any]) -> Stored:
    """Return the revision in the leader's answer to a read."""
    return Stored(
        message["subject"],
        message["seq"],
        datetime.fromisoformat(message["time"]),
        parse_headers(binascii.a2b_base64(message.get("hdrs") or b"")) or _NO_HEADERS,
        binascii.a2b_base64(message["data"]) if message.get("data") else b"",
    )


def from_delivery(message: Reply) -> Stored:
    """Return the revision that a consumer delivered, with what its reply address says of it."""
    revision, delivery, nanoseconds, pending = parse_metadata(message.reply)
    headers = message.headers or _NO_HEADERS
    return _make(Stored, (message.subject, revision, nanoseconds, headers, message.data, pending, delivery, 0))


def from_deliveries(messages: Sequence[Reply]) -> list[Stored]:
    """Return the revisions that one consumer delivered, each as ``from_delivery`` does, in half of the time."""
    numbers = _parse_together([message.reply for message in messages])
    if numbers is None:
        return [from_delivery(message) for message in messages]
    return [
        _make(
            Stored,
            (message.subject, revision, written, message.headers or _NO_HEADERS, message.data, pending, delivery, 0),
        )
        for message, revision, delivery, written, pending in zip(
            messages, numbers[::4], numbers[1::4], numbers[2::4], numbers[3::4], strict=True
        )
    ]


def _parse_together(replies: list[str]) -> list[int] | None:
    """Return the four numbers of each address, of all one after another, or None where they have to be parsed singly.

    The addresses of one consumer are the same but for them, and a parser of JSON is in C.
    """
    if len(replies) < _SEVERAL:
        return None
    words = replies[0].split(".")
    start = _LENGTHS.get(len(words))
    if start is None:
        return None
    prefix = ".".join(words[:start]) + "."
    length = len(prefix)
    ends = [reply[length:] for reply in replies if reply.startswith(prefix)]
    try:
        numbers: list[int] = json.loads(f"[{'.'.join(ends).replace('.', ',')}]")
    except ValueError:
        return None
    return numbers if len(numbers) == _NUMBERS * len(replies) else None


def moment(written: datetime | int) -> datetime:
    """Return the time of what was written, to the microsecond, from nanoseconds if that is how it came."""
    if isinstance(written, int):
        # Exact: a float of today's seconds tells an eighth of a microsecond, and is rounded to a whole one.
        return datetime.fromtimestamp(written // 1_000 / 1e6, UTC)
    return written


def parse_metadata(reply: str) -> tuple[int, int, int, int]:
    """Return revision, delivery number, time (ns) and pending count of a delivery.

    The address has 9 words, or from 11 with domain and account in front and perhaps one more behind (F7).
    """
    words = reply.split(".")
    start = 5 if len(words) < 11 else 7  # noqa: PLR2004 - the two forms of the address
    return int(words[start]), int(words[start + 1]), int(words[start + 2]), int(words[start + 3])


def own_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that an application wrote: neither the server's nor the facade's."""
    own = {name: value for name, value in headers.items() if not name.startswith(_NOT_OWN)}
    return MappingProxyType(own) if own else NO_HEADERS


def parse_ttl(given: str) -> int:
    """Return the seconds of a time to live, rounded up: a bare number of them, or what Go writes, as "1h0m0.5s"."""
    if given.isdigit():
        return int(given)
    if not _DURATION.fullmatch(given):
        return 0  # "never", or what the server would have refused
    return math.ceil(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(given)))


def status_of(message: Reply) -> str | None:
    """Return the status that a message is, or None for one that was stored, whatever headers it was stored with."""
    block = getattr(message, "block", None)  # of a message of our parser
    if block is not None and (not block or block.startswith(_NO_STATUS)):
        return None
    headers = message.headers
    if headers is None or "Nats-Sequence" in headers or message.reply.startswith("$JS.ACK."):
        return None  # a direct read, or a delivery: in a cluster a status may come with a reply address too
    return headers.get("Status")


def parse_delivered(block: bytes) -> dict[str, str] | None:
    """Return the headers of what a sink is given, or None where there is only the id of a write, which few look at."""
    if block.startswith(_ONLY_ID) and block.find(b"\r\n", len(_ONLY_ID)) == len(block) - 4:
        return None
    return parse_headers(block)


def parse_headers(block: bytes) -> dict[str, str] | None:
    """Return the headers of a message, with the status in its first line under "Status" and "Description"."""
    if not block:
        return None
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    headers: dict[str, str] = {}
    status = first[9:].split(" ", 1)  # after "NATS/1.0 "
    if status[0].isdigit():
        headers["Status"] = status[0]
        if len(status) > 1:
            headers["Description"] = status[1].strip()
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            headers[name] = value.strip()
    return headers


_parse_again = lru_cache(256)(parse_headers)
