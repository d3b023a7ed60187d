"""A nats-py client with a shorter way in and out.

Owns three hooks into nats-py that save time, and nothing else: a release of nats-py that no longer calls them is slower
and just as right (ADR 0011, ADR 0012). Knows nothing of requests.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from nats.aio.client import Client as NatsClient
from nats.errors import BadSubjectError, OutboundBufferLimitError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from django_natskv.kv._nats.messages import parse_delivered

_LINE_END = b"\r\n"
_SIZES = {b"MSG": 1, b"HMSG": 2}  # words at the end of a line that announces a message
_ADDRESSES = (3, 4)  # words before them, without and with a reply address
MOST = 100  # messages that are handed over at once: whoever takes them may let other threads go on in between
_make = tuple.__new__

_Announced = tuple[str, bytes, str, int, int]  # subject, number of the subscription, reply address, bytes: headers, all


class Message(NamedTuple):
    """What arrived: as nats-py's own message, but for what nobody here reads."""

    subject: str
    reply: str
    data: bytes
    block: bytes  # its headers as they came: who reads many messages knows better than to parse all of each

    @property
    def headers(self) -> dict[str, str] | None:
        """The headers, parsed each time; None where there is only the id of a write, which few look at."""
        return parse_delivered(self.block) if self.block else None


class LeanParser(Parser):
    """Hands all messages of one read to their sinks at once; whatever else comes is left to nats-py, line by line."""

    _wanted = 0  # bytes that have to be there before it is worth while to look again
    line = b""  # what nats-py is just taking, as it came: it makes small letters of the server's errors (F12)

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read."""
        if self.state != AWAITING_CONTROL_LINE:  # nats-py is in the middle of a message
            await super().parse(data)
            return
        while data := self.take(data):
            # Something else than a message, or a message for something else than a sink.
            end = self._end_of_first(data)
            self.line = data[:end]
            await super().parse(self.line)
            self.line = b""
            data = data[end:]
            if self.state != AWAITING_CONTROL_LINE:
                await super().parse(data)
                return

    def take(self, data: bytes) -> bytes:
        """Give what sinks can take to them; return the rest, which begins with something else. Waits for nothing."""
        if self.buf:
            self.buf.extend(data)
            if len(self.buf) < self._wanted:
                return b""  # more of a large value, which is not copied again until it is whole
            data = bytes(self.buf)
            self.buf.clear()
        position = self._hand_over(data)
        if self._wanted or data.find(_LINE_END, position) < 0:
            self.buf.extend(data[position:])
            return b""
        return data[position:]

    @staticmethod
    def _end_of_first(data: bytes) -> int:
        """Return where the first line ends, with the message that it announces."""
        end = data.find(_LINE_END) + 2
        line = data[:end]
        if not line.startswith((b"MSG ", b"HMSG ")):
            return end
        size = line.split()[-1]
        return min(len(data), end + int(size) + 2) if size.isdigit() else end

    def _hand_over(self, data: bytes) -> int:
        """Give the whole messages at the front of ``data`` to their sinks; return where something else begins."""
        self._wanted = position = 0
        line, length = _LINE_END, 0
        subject = reply = ""
        number = address = b""
        head = whole = 0
        sink: Any = None
        together: list[Message] = []
        while True:
            if not data.startswith(line, position):  # many messages of one answer have the same line
                line = data[position : data.find(_LINE_END, position) + 2]
                announced = _announced(line)
                if announced is None:
                    break
                subject, number, reply, head, whole = announced
                length = len(line)
            begin = position + length
            end = begin + whole
            if end + 2 > len(data):
                self._wanted = end + 2 - position
                break
            if number != address or len(together) >= MOST:
                _give(sink, together)
                address, sink, together = number, self._sink(number), []
                if sink is None:
                    break
            body = begin + head
            together.append(_make(Message, (subject, reply, data[body:end], data[begin:body])))
            position = end + 2
        _give(sink, together)
        return position

    def _sink(self, address: bytes) -> Any:
        subscription = self.nc._subs.get(int(address))  # noqa: SLF001 - see ADR 0011
        return getattr(subscription, "_future", None)


def _give(sink: Any, messages: list[Message]) -> None:
    if messages:
        sink.take(messages)


def _announced(line: bytes) -> _Announced | None:
    """Return what a line announces, None if it is no message, or not yet a line."""
    words = line[:-2].split(b" ")
    sizes = _SIZES.get(words[0], 0)
    addresses = len(words) - sizes
    if not sizes or addresses not in _ADDRESSES:
        return None
    reply = _text(words[3]) if addresses == _ADDRESSES[1] else ""
    return _text(words[1]), words[2], reply, int(words[-2]) if sizes > 1 else 0, int(words[-1])


def _text(word: bytes) -> str:
    # "replace": anybody may write under a key that is no text, and what raises here ends the read loop (F8).
    return word.decode("utf-8", "replace")


def block_of(headers: dict[str, Any] | None) -> bytes | None:
    """Return ``headers`` as they are sent, b"" for none; None where one of them holds a break of lines."""
    if not headers:
        return b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers):
        return None
    return f"NATS/1.0\r\n{lines}\r\n".encode()


class LeanClient(NatsClient):
    """Writes at the end of a turn of the loop instead of by a task, and hands messages to sinks directly."""

    corked = False  # while True, what is published waits for ``uncork``, to go out in one write

    def __init__(self) -> None:
        super().__init__()
        self._ps = LeanParser(self)

    @property
    def line(self) -> bytes:
        """What the server has said and nats-py is just taking, as it came; b"" where that is not known."""
        return getattr(self._ps, "line", b"")

    def uncork(self) -> None:
        """Write what was published since ``corked`` was set."""
        self.corked = False
        if self._pending_data_size > 0 and self.is_connected and self._transport is not None:
            pending, self._pending = self._pending, []
            self._pending_data_size = 0
            # A line that has just broken: nats-py's read loop notices, and what is in flight fails with it.
            with contextlib.suppress(OSError, RuntimeError, AttributeError):
                self._transport.writelines(pending)

    def publish_now(self, subject: str, reply: str, payload: bytes, block: bytes) -> None:
        """Publish while corked, with headers as ``block_of`` gives them; raises what ``publish`` does."""
        if subject.split() != [subject]:
            raise BadSubjectError  # what follows a break would be a command of its own
        if block:
            line = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n"
            self.send_now(b"".join((line.encode(), block, payload, _LINE_END)))
        else:
            self.send_now(b"".join((f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload, _LINE_END)))

    def send_now(self, commands: bytes) -> None:
        """Send whole commands of the protocol while corked; raises what ``publish`` does."""
        if not self.is_connected:
            raise OutboundBufferLimitError  # as nats-py does where nothing is kept until there is a connection again
        self._pending.append(commands)
        self._pending_data_size += len(commands)

    def read_directly(self) -> None:
        """From now on take messages for sinks as they are read, without waking nats-py's read loop for them."""
        reader: Any = getattr(self._transport, "_io_reader", None)
        parser = self._ps
        if not (isinstance(parser, LeanParser) and hasattr(reader, "_waiter") and hasattr(reader, "_buffer")):
            return
        feed = reader.feed_data

        def feed_data(data: bytes) -> None:
            # Only while the read loop waits for more: what it has yet to take comes first.
            if reader._waiter is not None and not reader._buffer and parser.state == AWAITING_CONTROL_LINE:  # noqa: SLF001
                data = parser.take(data)
            if data:
                feed(data)

        reader.feed_data = feed_data

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        head = block_of(headers)
        # A break in a name or value is for nats-py to deal with, and what has no headers is fast there too.
        if not head or not subject:
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        first = f"HPUB {subject} {reply} {len(head)} {len(head) + payload_size}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"".join((first, head, payload, _LINE_END)))
        if not self.corked and self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if not self.corked or force_flush:
            return await super()._flush_pending(force_flush)
        return None
