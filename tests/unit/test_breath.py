"""When a thread that works lets others have the interpreter. The clocks are the test's own."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from django_natskv.kv import _breath
from django_natskv.kv._breath import LONG, RECENT, SHORT, breathe, paced, requested
from django_natskv.kv.runner import Runner
from tests.fix_driver import echo


@pytest.fixture
def clock(monkeypatch):
    """Time that passes by hand: ``worked`` of this thread's processor, ``now``, and the pauses that were made."""
    clock = SimpleNamespace(worked=100.0, now=1_000.0, naps=[])
    here = threading.get_ident()

    def sleep(seconds: float) -> None:
        if threading.get_ident() == here:  # and not a thread of a test before, on its way out
            clock.naps.append(clock.worked)
        else:
            time.sleep(seconds)

    fake: Any = SimpleNamespace(thread_time=lambda: clock.worked, monotonic=lambda: clock.now, sleep=sleep)
    monkeypatch.setattr(_breath, "time", fake)
    monkeypatch.setattr(_breath, "_thread", threading.local())
    monkeypatch.setattr(_breath._thread, "since", clock.worked, raising=False)
    monkeypatch.setattr(_breath, "_latest_request", 0.0)
    return clock


def test_it_pauses_after_a_long_slice_of_work(clock):
    for _ in range(11):
        clock.worked += LONG / 3.5
        breathe()
    assert len(clock.naps) == 2  # at the fourth and the eighth


def test_it_pauses_after_a_short_one_while_requests_are_made(clock):
    requested(clock.now - RECENT / 2)
    for _ in range(3):
        clock.worked += SHORT * 1.01
        breathe()
    assert len(clock.naps) == 3
    clock.now += RECENT
    clock.worked += SHORT * 1.01
    breathe()
    assert len(clock.naps) == 3


def test_a_request_is_one_on_either_face(clock, runner: Runner):
    for call in (runner.call, lambda operation: asyncio.run(runner.acall(operation))):
        _breath._latest_request = 0.0
        call(echo(runner, 1))
        assert _breath._latest_request > 0


def test_time_in_which_a_thread_waited_is_no_work(clock):
    clock.now += 10
    breathe()
    assert not clock.naps


def test_a_thread_that_begins_owes_what_it_has_worked(clock, monkeypatch):
    monkeypatch.setattr(_breath, "_thread", threading.local())
    breathe()
    assert len(clock.naps) == 1


def test_items_are_paced(clock):
    def work() -> Any:
        for number in range(1000):
            clock.worked += LONG / 100
            yield number

    assert list(paced(work())) == list(range(1000))
    assert 5 < len(clock.naps) <= 10
