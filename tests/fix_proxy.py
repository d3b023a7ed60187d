"""A TCP proxy on loopback that breaks the network on command.

Owns sockets between a client and a server; knows nothing of what they say to each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import pytest

from tests.fix_servers import HOST, free_port

T = TypeVar("T")
Direction = Literal["requests", "replies", "both"]

_TURNS = 10  # of the loop; a connection needs four to become a link
_LINGER_NONE = struct.pack("ii", 1, 0)  # on close, throw away what is unsent and send RST


class Proxy:
    """Forwards loopback connections to ``target`` (a URL or ``host:port``) until told to misbehave.

    Every method may be called from any thread and has taken effect when it returns.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target if "://" in target else f"//{target}")
        assert parts.hostname, target
        assert parts.port, target
        self.scheme = parts.scheme or "nats"
        self.target = (parts.hostname, parts.port)
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = {"requests": asyncio.Event(), "replies": asyncio.Event()}
        for gate in self._open.values():
            gate.set()
        self.accepted = 0  # connections taken so far

    @property
    def url(self) -> str:
        """Where clients connect instead of to the target."""
        return f"{self.scheme}://{HOST}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections pass through now."""
        return len(self._links)

    def start(self) -> Proxy:
        """Listen."""
        self._thread.start()
        self.accept()
        return self

    def close(self) -> None:
        """End everything, the thread included."""
        self.refuse()
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, *, reset: bool = True) -> int:
        """Break the connections that exist, by RST (or by FIN), and return how many; new ones are welcome."""
        return self._call(self._cut(reset=reset))

    def refuse(self, *, cut: bool = False) -> None:
        """Refuse new connections (nothing listens); ``cut``: and break those that exist."""
        self._call(self._refuse())
        if cut:
            self.cut()

    def accept(self) -> None:
        """Take new connections again."""
        self._call(self._listen())

    def blackhole(self) -> None:
        """Let nothing through in either direction and tell nobody: connections stay open, new ones get no answer."""
        self.pause("both")

    def heal(self) -> None:
        """End a black hole or a pause. What was sent meanwhile arrives now, as it does when TCP sends it again."""
        self._call(self._set(opened=True))

    def pause(self, direction: Direction = "replies") -> None:
        """Hold back one direction; held "replies" make a request that the server carries out and nobody hears of."""
        self._call(self._set(opened=False, direction=direction))

    def resume(self) -> None:
        """See heal()."""
        self.heal()

    @contextlib.contextmanager
    def paused(self, direction: Direction = "replies") -> Iterator[None]:
        """Pause within a ``with`` block."""
        self.pause(direction)
        try:
            yield
        finally:
            self.heal()

    # ------------------------------------------------------------------ on the loop's thread

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._take, HOST, self.port)

    async def _refuse(self) -> None:
        listener = self._listener
        if listener is not None:
            # What asyncio had half taken when its listener is closed stays open, served by nobody (Python 3.11).
            for listening in listener.sockets:
                self._loop.remove_reader(listening.fileno())
            await self._take_all()
            # Not `wait_closed`: from Python 3.12.1 on that also waits for the connections, which go on.
            listener.close()
            self._listener = None

    @staticmethod
    async def _take_all() -> None:
        """Let every connection that asyncio has taken become a link, or a cut would miss it."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _cut(self, *, reset: bool) -> int:
        await self._take_all()
        links = list(self._links)
        for link in links:
            link.abort(reset=reset)
            self._links.discard(link)  # its task may be held back by a pause
        return len(links)

    async def _set(self, *, opened: bool, direction: Direction = "both") -> None:
        for name, gate in self._open.items():
            if direction in (name, "both"):
                if opened:
                    gate.set()
                else:
                    gate.clear()

    async def _finish(self) -> None:
        await self._cut(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not the task that start_server made for this call: that one logs whatever ends it.
        self.accepted += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        try:
            await self._open["requests"].wait()  # in a black hole no connection is made onwards either
            if link.aborted:
                return
            up_reader, up_writer = await asyncio.open_connection(*self.target)
            link.add(up_writer)
            await asyncio.gather(
                self._pump(reader, up_writer, self._open["requests"]),
                self._pump(up_reader, writer, self._open["replies"]),
            )
        except OSError:  # either side went away, or the target does not listen: so does the other side
            link.abort(reset=True)
        finally:
            link.close()
            self._links.discard(link)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        while True:
            data = await reader.read(65536)
            await gate.wait()
            if not data:
                break
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()


class _Link:
    """The two sockets of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writers = [writer]
        self.aborted = False

    def add(self, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        if self.aborted:
            self.abort(reset=True)

    def abort(self, *, reset: bool) -> None:
        self.aborted = True
        for writer in self._writers:
            raw = writer.get_extra_info("socket")
            if reset and not writer.is_closing():
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            writer.transport.abort()

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class MakeProxy(Protocol):
    """What the fixture ``make_proxy`` gives."""

    def __call__(self, target: str) -> Proxy: ...


@pytest.fixture
def make_proxy() -> Iterator[Callable[[str], Proxy]]:
    """Make proxies to a URL, ended with the test."""
    made: list[Proxy] = []

    def make(target: str) -> Proxy:
        made.append(Proxy(target).start())
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
