"""What a cache knows of the server's time."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from django_natskv.cache import place
from django_natskv.cache.place import Clock


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, whose time is the last of the list."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[-1])
    return times


def learn(clock: Clock, at: list[float], took: float) -> None:
    assert clock.is_due()
    asked = at[-1]
    at.append(asked + took)
    clock.learn(datetime.fromtimestamp(1_000_000 + asked + took / 2, UTC), asked)


def test_it_is_asked_for_once_a_minute(at: list[float]) -> None:
    clock = Clock()
    learn(clock, at, 0.01)
    assert clock.now() == pytest.approx(1_000_000 + at[-1])
    at.append(at[-1] + place.RELEARN - 0.1)
    assert not clock.is_due()
    at.append(at[-1] + 0.2)
    assert clock.is_due()
    assert not clock.is_due(), "by one caller only"


def test_after_a_slow_answer_it_is_asked_for_again_soon_but_not_for_ever(at: list[float]) -> None:
    clock = Clock()
    for _ in range(place.PATIENT - 1):
        learn(clock, at, 0.5)
        assert not clock.is_due()
        at.append(at[-1] + place.RELEARN_SOON + 0.1)
    learn(clock, at, 0.5)  # the line is slow, and stays so
    at.append(at[-1] + place.RELEARN_SOON + 0.1)
    assert not clock.is_due()
    at.append(at[-1] + place.RELEARN)
    learn(clock, at, 0.01)
    at.append(at[-1] + place.RELEARN_SOON + 0.1)
    assert not clock.is_due()
