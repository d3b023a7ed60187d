"""Signals at random moments of a main thread that calls: handled in its frame, while the connection stays whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.fix_connections import Connect
from tests.fix_proxy import Proxy
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

ALARM, SOFT, OTHER = signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2
GUNICORN = (signal.SIGABRT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Limit(Exception):  # noqa: N818 - as the one that it stands for
    """As Celery's SoftTimeLimitExceeded: an ordinary exception."""


class Storm:
    """Signals to this process, the next ones when the last ones were heard of and the main thread works again."""

    def __init__(self, numbers: tuple[int, ...], count: int, *, at_once: int = 1) -> None:
        self.numbers = numbers
        self.count = count
        self.at_once = at_once
        self.sent = 0
        self.turns = 0
        self.heard: list[BaseException | int] = []
        self.raised: list[BaseException] = []
        self.errors: list[BaseException] = []
        self.in_loop: list[bool] = []
        self.works = False

    def raising(self, number: int, _: FrameType | None) -> None:
        self.in_loop.append(asyncio._get_running_loop() is not None)
        error = Limit(number)
        self.raised.append(error)
        if not self.works:  # the second of two, before the work goes on, where nobody would catch it
            self.heard.append(error)
            return
        raise error

    def noting(self, number: int, _: FrameType | None) -> None:
        self.in_loop.append(asyncio._get_running_loop() is not None)
        self.heard.append(number)

    def hear(self, error: BaseException) -> None:
        one: BaseException | None = error
        while one is not None:
            if isinstance(one, Limit | KeyboardInterrupt) and not any(one is other for other in self.heard):
                self.heard.append(one)
            one = one.__context__

    def strike(self, work: Callable[[int], None], handler: Any) -> None:
        """Repeat ``work`` in this, the main thread, until all signals were sent and heard of."""
        before = {number: signal.signal(number, handler) for number in self.numbers}
        sender = threading.Thread(target=self._send)
        sender.start()
        try:
            while not self._over():
                try:
                    try:
                        self.works = True
                        while not self._over():
                            self.turns += 1
                            work(self.turns)
                    except (Limit, KeyboardInterrupt) as error:
                        self.works = False
                        self.hear(error)
                except (Limit, KeyboardInterrupt) as error:
                    self.works = False
                    self.hear(error)
            assert [signal.getsignal(number) for number in before] == [handler] * len(before)
        finally:
            sender.join(30)
            for number, old in before.items():
                signal.signal(number, old)
        assert self.errors == []
        assert len(self.heard) == self.count
        assert not any(self.in_loop)

    def _over(self) -> bool:
        return len(self.heard) >= self.count or bool(self.errors)

    def _send(self) -> None:
        chance = random.Random(self.count)
        moment = threading.Event()
        try:
            while self.sent < self.count:
                turns = self.turns
                eventually(lambda turns=turns: self.turns > turns + 1, 20)  # type: ignore[misc]
                moment.wait(chance.random() * 0.002)
                for number in chance.sample(self.numbers, self.at_once):
                    self.sent += 1
                    os.kill(os.getpid(), number)
                eventually(lambda: len(self.heard) == self.sent, 20, "every signal is heard of")
        except BaseException as error:
            self.errors.append(error)


@pytest.fixture
def bucket(connect: Connect, nats_server: NatsServer, bucket_name: str, lines_last: None) -> Any:
    made = connect(nats_server.url).kv().create_bucket({"bucket": bucket_name})
    made.put("fixed", "fixed")
    return made


@pytest.fixture
def whole(bucket: Any) -> Iterator[None]:
    """The connection is the one that it was, and nothing is left of the calls."""
    client = bucket._core.wire.client
    assert client.generation == 1
    yield
    assert bucket.get("fixed").value == "fixed"
    driver = client.driver
    eventually(lambda: (client._in_flight, client._waiting, driver._following, driver._awaiting) == ({}, [], 0, 0))
    assert client.generation == 1


@pytest.fixture(params=[0, 3], ids=["alone", "beside others"])
def others(request: pytest.FixtureRequest, bucket: Any) -> Iterator[None]:
    """Further threads that call all the time, so that the main one often follows."""
    over = threading.Event()
    wrong: list[Any] = []

    def call(own: str) -> None:
        number = 0
        try:
            while not over.is_set():
                number += 1
                bucket.put(own, number)
                if bucket.get(own).value != number:
                    wrong.append(number)
        except Exception as error:
            wrong.append(error)

    crew = [threading.Thread(target=call, args=(f"other-{number}",)) for number in range(request.param)]
    for thread in crew:
        thread.start()
    yield
    over.set()
    for thread in crew:
        thread.join(20)
    assert wrong == []


def put_and_get(bucket: Any) -> Callable[[int], None]:
    def work(number: int) -> None:
        bucket.put("key", {"number": number})
        assert bucket.get("key").value == {"number": number}

    return work


@pytest.mark.usefixtures("whole", "others")
@pytest.mark.parametrize("numbers", [(ALARM,), (SOFT,)], ids=["an alarm", "a soft time limit"])
def test_what_a_handler_raises_reaches_the_caller_and_harms_nothing(bucket: Any, numbers: tuple[int, ...]) -> None:
    storm = Storm(numbers, 200)
    storm.strike(put_and_get(bucket), storm.raising)
    assert storm.heard == storm.raised


@pytest.mark.usefixtures("whole", "others")
def test_every_ctrl_c_reaches_the_caller(bucket: Any) -> None:
    Storm((signal.SIGINT,), 200).strike(put_and_get(bucket), signal.default_int_handler)


@pytest.mark.usefixtures("whole", "others")
def test_two_that_raise_at_once_are_both_heard(bucket: Any) -> None:
    storm = Storm((ALARM, SOFT, OTHER), 200, at_once=2)
    storm.strike(put_and_get(bucket), storm.raising)
    assert set(map(id, storm.heard)) == set(map(id, storm.raised))


@pytest.mark.usefixtures("whole")
def test_a_read_of_many_is_ended_too(bucket: Any) -> None:
    keys = [f"many-{number}" for number in range(20)]
    for key in keys:
        bucket.put(key, key)

    def work(_: int) -> None:
        assert {key: entry.value for key, entry in bucket.get_many(keys).items()} == {key: key for key in keys}
        assert set(bucket.keys()) >= {*keys, "fixed"}

    storm = Storm((SOFT,), 60)
    storm.strike(work, storm.raising)


@pytest.mark.usefixtures("whole", "others")
def test_handlers_that_do_not_raise_are_called_and_the_call_goes_on(bucket: Any) -> None:
    """All that a synchronous worker of gunicorn sets."""
    storm = Storm(GUNICORN, 200)
    storm.strike(put_and_get(bucket), storm.noting)


@pytest.mark.usefixtures("whole", "others")
def test_a_handler_may_call_the_bucket_itself(bucket: Any) -> None:
    storm = Storm((ALARM, SOFT), 100, at_once=2)

    def handler(number: int, frame: FrameType | None) -> None:
        assert bucket.get("fixed").value == "fixed"
        bucket.put("from a handler".replace(" ", "-"), number)
        storm.noting(number, frame)

    storm.strike(put_and_get(bucket), handler)


@pytest.mark.usefixtures("whole")
def test_a_handler_that_calls_may_be_interrupted_by_one_that_calls(bucket: Any) -> None:
    storm = Storm((SOFT,), 30)
    inner: list[int] = []

    def innermost(number: int, _: FrameType | None) -> None:
        assert bucket.get("fixed").value == "fixed"
        inner.append(number)

    def handler(number: int, frame: FrameType | None) -> None:
        wanted = len(inner) + 1
        threading.Thread(target=os.kill, args=(os.getpid(), OTHER)).start()
        while len(inner) < wanted:
            assert bucket.get("fixed").value == "fixed"
        storm.noting(number, frame)

    before = signal.signal(OTHER, innermost)
    try:
        storm.strike(put_and_get(bucket), handler)
    finally:
        signal.signal(OTHER, before)
    assert len(inner) == 30


@pytest.mark.usefixtures("lines_last")
def test_a_call_that_waits_long_is_ended_by_a_handler_that_raises_and_by_no_other(
    connect: Connect, nats_server: NatsServer, make_proxy: Callable[[str], Proxy], bucket_name: str
) -> None:
    """The thread sleeps in the loop's selector: nothing but the signal wakes it."""
    proxy = make_proxy(nats_server.url)
    bucket = connect(proxy.url, REQUEST_TIMEOUT=40.0).kv().create_bucket({"bucket": bucket_name})
    bucket.put("fixed", "fixed")
    client = bucket._core.wire.client
    woken: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        woken.append(number)

    def limit(*_: Any) -> None:
        raise Limit

    def send() -> None:
        eventually(lambda: client._in_flight)
        os.kill(os.getpid(), OTHER)
        eventually(lambda: woken)
        os.kill(os.getpid(), SOFT)

    before = {OTHER: signal.signal(OTHER, note), SOFT: signal.signal(SOFT, limit)}
    sender = threading.Thread(target=send)
    proxy.pause("replies")
    try:
        sender.start()
        with pytest.raises(Limit):
            bucket.get("fixed")
    finally:
        proxy.heal()
        sender.join(30)
        for number, old in before.items():
            signal.signal(number, old)
    assert woken == [OTHER]
