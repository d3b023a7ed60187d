"""Signals held back: no handler runs inside, all of them behind it, and each handler is in its place again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from django_natskv.kv import _interrupts
from django_natskv.kv._interrupts import HeldSignals, from_handler

ONE, OTHER = signal.SIGUSR1, signal.SIGUSR2


class BangError(Exception):
    pass


def nothing() -> None:
    """Nobody is there to be roused."""


@pytest.fixture
def raised() -> Iterator[list[BangError]]:
    """What the handlers of the two signals raised."""
    raised: list[BangError] = []

    def handler(number: int, _: FrameType | None) -> None:
        raised.append(BangError(number))
        raise raised[-1]

    before = {number: signal.signal(number, handler) for number in (ONE, OTHER)}
    yield raised
    assert [signal.getsignal(number) for number in (ONE, OTHER)] == [handler, handler]
    for number, old in before.items():
        signal.signal(number, old)


def chain(error: BaseException | None) -> list[BaseException]:
    """Return ``error`` and what it was raised in the handling of."""
    return [] if error is None else [*chain(error.__context__), error]


def caught(act: Callable[[], None]) -> list[BaseException]:
    try:
        act()
    except BangError as error:
        return chain(error)
    return []


def test_a_handler_runs_behind_and_not_inside(raised: list[BangError]) -> None:
    roused: list[bool] = []
    inside: list[int] = []

    def act() -> None:
        with HeldSignals(lambda: roused.append(True)):
            signal.raise_signal(ONE)
            inside.append(len(raised))

    assert caught(act) == raised
    assert (inside, roused) == ([0], [True])


def test_every_exception_of_several_handlers_is_heard(raised: list[BangError]) -> None:
    def act() -> None:
        with HeldSignals(nothing):
            for number in (ONE, OTHER, ONE):
                signal.raise_signal(number)

    assert caught(act) == raised
    assert [error.args for error in raised] == [(ONE,), (OTHER,), (ONE,)]


def test_what_is_raised_inside_is_the_context_of_what_a_handler_raises(raised: list[BangError]) -> None:
    inner = BangError("inner")

    def act() -> None:
        with HeldSignals(nothing):
            signal.raise_signal(ONE)
            raise inner

    assert caught(act) == [inner, *raised]


@pytest.mark.parametrize("numbers", [(ONE,), (OTHER,), (ONE, OTHER)], ids=["one", "the other", "both"])
def test_none_is_lost_while_handlers_are_put_aside_and_back(
    raised: list[BangError], monkeypatch: pytest.MonkeyPatch, numbers: tuple[signal.Signals, ...]
) -> None:
    """Signals come before each change of a handler in turn, and before the next one where two come."""
    calls = [0]
    moments: set[int] = set()

    def spied(number: int, handler: Any) -> Any:
        calls[0] += 1
        if calls[0] in moments:
            for one in numbers:
                signal.raise_signal(one)
        return signal.signal(number, handler)

    def act() -> None:
        with HeldSignals(nothing):
            pass

    monkeypatch.setattr(_interrupts, "_signal", SimpleNamespace(getsignal=signal.getsignal, signal=spied))
    act()
    total = calls[0]
    assert total >= 4
    for gap in (0, 1, 2, 3):
        for moment in range(1, total + 1):
            calls[0] = 0
            raised.clear()
            moments.clear()
            moments.update({moment, moment + gap})
            heard = caught(act)
            assert raised
            assert set(map(id, heard)) == set(map(id, raised)), (gap, moment)
            moments.clear()
            act()  # what was not put back in time is now


def test_a_handler_that_was_not_put_back_in_time_still_works_and_is_then(raised: list[BangError]) -> None:
    real = signal.getsignal(ONE)
    signals = HeldSignals(nothing)
    with signals:
        held = signal.getsignal(ONE)
    signal.signal(ONE, held)
    with HeldSignals(nothing):  # it takes the real one for what is to be put back
        pass
    assert signal.getsignal(ONE) is real
    signal.signal(ONE, held)
    assert caught(lambda: signal.raise_signal(ONE)) == raised
    assert len(raised) == 1
    assert signal.getsignal(ONE) is real


def test_where_no_handler_can_be_set_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a subinterpreter, whose first thread calls itself the main one."""

    def refuse(*_: Any) -> None:
        message = "signal only works in main thread of the main interpreter"
        raise ValueError(message)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(_interrupts, "_signal", SimpleNamespace(getsignal=signal.getsignal, signal=refuse))
    with HeldSignals(nothing):
        assert signal.getsignal(signal.SIGINT) is before


def test_ignored_and_default_signals_are_left_alone(raised: list[BangError]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with HeldSignals(nothing):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(ONE).__self__.__class__ is HeldSignals  # type: ignore[union-attr]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not raised


class Limit:
    def handle(self, *_: Any) -> None:
        raise BangError


@pytest.mark.parametrize("how", ["function", "method"])
def test_what_a_handler_raised_is_told_from_what_the_code_raised(how: str) -> None:
    def function(*_: Any) -> None:
        raise BangError

    before = signal.signal(ONE, function if how == "function" else Limit().handle)
    try:
        with pytest.raises(BangError) as theirs:
            json.loads("{}", object_hook=lambda _: signal.raise_signal(ONE))
        assert from_handler(theirs.value)
        with pytest.raises(ValueError, match="Expecting") as own:
            json.loads("[")
        assert not from_handler(own.value)
        signal.signal(ONE, partial(function))
        assert not from_handler(BangError())
    finally:
        signal.signal(ONE, before)
