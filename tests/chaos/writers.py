"""Writers that change a bucket about a thousand times a second, and what the bucket holds in the end.

Owns a connection of the plain client library on a thread of its own; knows nothing of the package under test.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from base64 import b64decode
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import nats
from nats.errors import Error

from tests.fix_waiting import eventually

RATE = 1_000  # changes a second
_STEP = 0.01
_UNAVAILABLE = 503
KEYS = [f"{area}.k{number}" for area in ("a", "b", "c.d") for number in range(20)]

Held = dict[str, tuple[Any, int]]


class Writers:
    """Random changes of ``bucket``, from ``seed``, within a ``with`` block or until ``stop()``."""

    def __init__(self, urls: Sequence[str], bucket: str, seed: int = 0) -> None:
        self._urls = list(urls)
        self._bucket = bucket
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="writers", daemon=True)
        self._client: Any = None
        self._work: Any = None
        self.changes = 0

    def __enter__(self) -> Self:
        self._connected()
        self._work = asyncio.run_coroutine_threadsafe(self._write(), self._loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._call(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _connected(self) -> None:
        self._thread.start()
        self._client = self._call(self._connect())

    def stop(self) -> None:
        """End the changes; the last have arrived when this returns."""
        if self._work is not None:
            self._work.cancel()
            self._work = None
            with contextlib.suppress(Error, TimeoutError):
                self._call(self._client.flush(5))

    def held(self) -> Held | None:
        """Return each live key's value and revision, as the server has them now; None when it does not answer."""
        try:
            return self._call(self._held())
        except (Error, TimeoutError):
            return None

    def last(self) -> int:
        """Return the newest revision."""
        return int(self.ask(f"STREAM.INFO.KV_{self._bucket}")["state"]["last_seq"])

    def ask(self, verb: str, body: Any = None) -> dict[str, Any]:
        """Return what the server's API answers."""
        return self._call(self._ask(verb, body))

    def insist(self, verb: str) -> dict[str, Any]:
        """As ``ask``, until somebody answers: of several servers the one that knows may just be elected."""

        def answered() -> dict[str, Any] | None:
            try:
                answer = self.ask(verb)
            except (Error, TimeoutError):
                return None
            return None if (answer.get("error") or {}).get("code") == _UNAVAILABLE else answer

        answer = eventually(answered, 60, f"an answer to {verb}")
        assert answer is not None
        return answer

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(50)

    async def _connect(self) -> Any:
        async def ignore(_error: Exception) -> None:
            """An outage is what these tests are about."""

        return await nats.connect(
            self._urls, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=ignore, ping_interval=1
        )

    async def _ask(self, verb: str, body: Any = None) -> dict[str, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        reply = await self._client.request(f"$JS.API.{verb}", data, timeout=10)
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def _write(self) -> None:
        due = self._loop.time()
        while True:
            for _ in range(int(RATE * _STEP)):
                with contextlib.suppress(Error):
                    await self._change()
                    self.changes += 1
            # Not a sleep of one step each, or the rate would be what the machine leaves of it.
            due = max(due + _STEP, self._loop.time() - 10 * _STEP)
            await asyncio.sleep(due - self._loop.time())

    async def _change(self) -> None:
        key = self._random.choice(KEYS)
        subject = f"$KV.{self._bucket}.{key}"
        dice = self._random.random()
        value = json.dumps(self._random.randrange(1_000_000)).encode()
        if dice < 0.70:
            await self._client.publish(subject, value)
        elif dice < 0.80:
            await self._client.publish(subject, b"", headers={"KV-Operation": "DEL"})
        elif dice < 0.88:
            await self._client.publish(subject, b"", headers={"KV-Operation": "PURGE", "Nats-Rollup": "sub"})
        elif dice < 0.96:
            await self._client.publish(subject, value, headers={"Nats-TTL": self._random.choice(["1s", "2s", "1"])})
        elif dice < 0.98:
            headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "1s"}
            await self._client.publish(subject, b"", headers=headers)
        else:
            # Leaves no marker: nothing tells a watch.
            gone = self._random.choice([subject, f"$KV.{self._bucket}.{key.rpartition('.')[0]}.>"])
            verb = f"$JS.API.STREAM.PURGE.KV_{self._bucket}"
            await self._client.publish(verb, json.dumps({"filter": gone}).encode())

    async def _held(self) -> Held:
        body = {"subjects_filter": f"$KV.{self._bucket}.>"}
        info = await self._ask(f"STREAM.INFO.KV_{self._bucket}", body)
        held: Held = {}
        for subject in (info.get("state") or {}).get("subjects") or {}:
            found = await self._ask(f"STREAM.MSG.GET.KV_{self._bucket}", {"last_by_subj": subject})
            message = found.get("message")
            if message is None or _is_marker(message):
                continue
            held[subject.removeprefix(f"$KV.{self._bucket}.")] = (
                json.loads(b64decode(message["data"])),
                message["seq"],
            )
        return held


class Filler(Writers):
    """Writes what it is told to, as fast as it can."""

    def __enter__(self) -> Self:
        self._connected()
        return self

    def fill(self, keys: Iterable[str]) -> None:
        """Write a number under each of ``keys`` in turn, and wait until the server has them."""
        self._call(self._fill(list(keys)))

    async def _fill(self, keys: list[str]) -> None:
        for number, key in enumerate(keys):
            await self._client.publish(f"$KV.{self._bucket}.{key}", b"%d" % number)
            if not number % 1000:
                await self._client.flush(30)
        # Writes are taken in order: when this one is acknowledged, they all have been.
        await self._client.request(f"$KV.{self._bucket}.{keys[-1]}", b"%d" % (len(keys) - 1), timeout=30)


class Overwriter(Writers):
    """Writes the same keys over and over, in turn."""

    def __init__(self, urls: Sequence[str], bucket: str, keys: Sequence[str]) -> None:
        super().__init__(urls, bucket, 0)
        self._keys = keys

    async def _change(self) -> None:
        subject = f"$KV.{self._bucket}.{self._keys[self.changes % len(self._keys)]}"
        await self._client.publish(subject, b"%d" % self.changes)


def _is_marker(message: dict[str, Any]) -> bool:
    headers = b64decode(message.get("hdrs") or "")
    return b"KV-Operation:" in headers or b"Nats-Marker-Reason:" in headers
