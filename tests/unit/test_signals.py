"""The thread that sends signals: isolation, order, and what becomes of events that receivers cannot keep up with."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import pytest
from django.dispatch import Signal

from django_natskv import signals
from tests.fix_waiting import eventually


@pytest.fixture
def dispatcher():
    return signals.Dispatcher()


@contextmanager
def receiving(signal, receiver):
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


def change(dispatcher, key, old, new, revision):
    arguments = {"key": key, "old": old, "new": new, "revision": revision}
    dispatcher.send(signals.entry_changed, None, arguments, ("b", key))


def test_signals_are_sent_in_order_on_a_thread_of_their_own(dispatcher):
    signal, seen = Signal(), []
    with receiving(signal, lambda number, **_: seen.append((number, threading.current_thread().name))):
        for number in range(50):
            dispatcher.send(signal, None, {"number": number})
        eventually(lambda: dispatcher.waiting() == 0)
    assert seen == [(number, "natskv-signals") for number in range(50)]


@pytest.mark.parametrize("failure", [ValueError, SystemExit])
def test_a_receiver_that_fails_is_logged_and_harms_nobody(dispatcher, failure, caplog):
    signal, seen = Signal(), []

    def fail(**_):
        raise failure

    with receiving(signal, fail), receiving(signal, lambda **_: seen.append(1)):
        for _ in range(2):
            dispatcher.send(signal, None, {})
        eventually(lambda: dispatcher.waiting() == 0)
        assert seen == ([1, 1] if failure is ValueError else [])
        seen.clear()
    with receiving(signal, lambda **_: seen.append(2)):
        dispatcher.send(signal, None, {})
        eventually(lambda: seen == [2])
    assert caplog.text.count("A receiver of a signal failed") == 2


def test_without_receivers_nothing_is_kept_and_no_thread_begun(dispatcher):
    dispatcher.send(Signal(), None, {})
    assert dispatcher.waiting() == 0
    assert dispatcher._thread is None


def test_under_pressure_changes_of_a_key_become_one(dispatcher, monkeypatch):
    monkeypatch.setattr(signals, "PRESSURE", 3)
    entered, go, seen = threading.Event(), threading.Event(), []

    def slow(key, old, new, revision, **_):
        seen.append((key, old, new, revision))
        entered.set()
        go.wait(5)

    with receiving(signals.entry_changed, slow):
        change(dispatcher, "first", None, 1, 1)
        assert entered.wait(5)
        for number in range(1, 4):
            change(dispatcher, "a", number, number + 1, number)
        for number in range(4, 1_000):
            change(dispatcher, "a", number, number + 1, number)
        change(dispatcher, "b", None, 1, 1_001)
        change(dispatcher, "b", 1, None, 1_002)
        change(dispatcher, "c", 5, None, 1_003)
        assert dispatcher.waiting() < 10
        go.set()
        eventually(lambda: dispatcher.waiting() == 0)
    assert seen == [
        ("first", None, 1, 1),
        ("a", 1, 2, 1),
        ("a", 2, 3, 2),
        ("a", 3, 1_000, 999),
        ("c", 5, None, 1_003),  # b came and went
    ]


def test_a_forked_child_sends_its_own_and_not_its_parents(dispatcher):
    signal, hold = Signal(), threading.Event()
    seen = []

    def receive(number, **_):
        seen.append(number)
        if number == 0:
            hold.wait(5)

    with receiving(signal, receive):
        for number in range(3):
            dispatcher.send(signal, None, {"number": number})
        eventually(lambda: seen == [0])
        dispatcher.after_fork()  # what the child does
        dispatcher.send(signal, None, {"number": 7})
        eventually(lambda: 7 in seen)
        hold.set()
        eventually(lambda: seen[:2] == [0, 7])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_hook_is_in_place():
    read, write = os.pipe()
    with receiving(signals.connection_status, lambda **_: os.write(write, b"1")):
        signals.dispatcher.send(signals.connection_status, None, {})
        assert os.read(read, 1) == b"1"
        child = os.fork()
        if not child:
            try:
                signals.dispatcher.send(signals.connection_status, None, {})
                eventually(lambda: signals.dispatcher.waiting() == 0)
            finally:
                os._exit(0)
        assert os.read(read, 1) == b"1"
        os.waitpid(child, 0)
