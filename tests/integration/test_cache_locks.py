"""Locks of a cache: one holder in all processes, for as long as its lease lasts."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from typing import Any

import pytest

from django_natskv.cache import Lock, LockLostError, NatsKVCache, locks
from django_natskv.cache.lifetime import expiry
from django_natskv.exceptions import NotConnected, OperationalError, UsageError
from tests.fix_cache import PROGRAM
from tests.fix_waiting import aeventually, eventually


@pytest.fixture
def plain(natskv: Any, bucket_name: str) -> NatsKVCache:
    return NatsKVCache(bucket_name, {"KEY_PREFIX": "shop"})


def test_one_holder_at_a_time(plain):
    one, two = plain.lock("l"), plain.lock("l")
    assert one.acquire()
    assert (one.held, one.lost) == (True, False)
    assert not two.acquire(blocking=False)
    assert not two.acquire(timeout=0.1)
    one.release()
    assert not one.held
    assert two.acquire(blocking=False)
    two.release()


def test_the_token_grows_from_holder_to_holder(plain):
    tokens = []
    for _ in range(3):
        with plain.lock("l") as held:
            tokens.append(held.token)
    assert tokens == sorted(set(tokens))


def test_it_waits_until_the_holder_lets_go(plain):
    got = threading.Event()

    def take() -> None:
        with plain.lock("l"):
            got.set()

    with plain.lock("l"):
        thread = threading.Thread(target=take)
        thread.start()
        assert not got.wait(0.2)
    assert got.wait(30)
    thread.join(30)


async def test_it_is_awaited_too(plain):
    inside = 0

    async def take() -> None:
        nonlocal inside
        async with plain.lock("l") as held:
            inside += 1
            assert inside == 1
            assert held.held
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(take() for _ in range(5)))


async def test_awaited_a_lock_that_someone_has_is_not_had(plain):
    async with plain.lock("l"):
        assert not await plain.lock("l").aacquire(blocking=False)
        assert not await plain.lock("l").aacquire(timeout=0.05)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are renewed soon, and are long: a machine that holds the renewal up does not lose the lock."""
    monkeypatch.setattr(locks, "_RENEWALS", 100)


def server_holds_on(held: Lock, stored: Any) -> float:
    """Return until when, by the server's clock, what it holds of a lock keeps others away."""
    ends = expiry(stored().get(held._stored))
    assert ends is not None
    return ends


def test_the_lease_is_renewed_while_it_is_held(plain, stored, often, monkeypatch):
    with plain.lock("l", timeout=20) as held:
        ends, first = held._ends, server_holds_on(held, stored)
        eventually(lambda: held._ends > ends + 0.5, 30)
        assert held.held
        assert server_holds_on(held, stored) > first
        monkeypatch.setattr(plain._place.clock, "now", lambda: first)
        assert not plain.lock("l").acquire(blocking=False)  # when it would have run out
        assert held.token < held._revision  # renewed, and the token stayed


async def test_awaited_the_lease_is_renewed_too(plain, often):
    async with plain.lock("l", timeout=20) as held:
        ends = held._ends
        await aeventually(lambda: held._ends >= ends + 0.5, 30)
        assert held.held


def test_a_lock_of_a_process_that_died_is_free_when_its_lease_has_run_out(plain, stored, natskv, program, bucket_name):
    code = (
        PROGRAM
        + 'cache.key_prefix = "shop"\nprint(json.dumps(cache.lock("l", 30).acquire()), flush=True)\ntime.sleep(60)'
    )
    other = program(code, {"default": dict(natskv)}, TEST_BUCKET=bucket_name)
    assert other.read() is True
    ours = plain.lock("l")
    assert not ours.acquire(blocking=False)
    other.kill()
    other.process.wait(30)
    clock = plain._place.clock
    clock._ahead += server_holds_on(ours, stored) - clock.now() - 0.5  # nearly all of the lease is over
    assert ours.acquire(timeout=30)
    ours.release()  # or it would be renewed, and complain, while the tests after this one run


def test_a_lock_that_was_taken_away_is_told(plain):
    held = plain.lock("l", timeout=0.6)
    held.acquire()
    plain.clear()
    eventually(lambda: held.lost, 30)
    assert not held.held
    with pytest.raises(LockLostError, match="'l'"):
        held.release()


def test_a_lock_that_ran_out_while_the_server_was_away_is_lost(make_server: Any, settings: Any):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url]}}
    cache = NatsKVCache("cache", {"OPTIONS": {"BUCKET": {"storage": "file"}}})
    held, soon = cache.lock("l", timeout=1.0), cache.lock("soon", timeout=60)
    held.acquire()
    soon.acquire()
    token = held.token
    server.kill()
    eventually(lambda: held.lost, 30)
    with pytest.raises(NotConnected):  # who knows: its lease has not run out
        soon.release()
    with pytest.raises(LockLostError, match="'l'"):
        held.release()
    server.start()
    after = cache.lock("l")

    def acquired() -> bool:
        with contextlib.suppress(OperationalError):
            return after.acquire(timeout=1)
        return False

    eventually(acquired, 30)
    assert token is not None
    assert after.token is not None
    assert after.token > token
    after.release()


def test_with_tells_of_a_lost_lock_unless_there_is_worse_to_tell(plain):
    def work(error: Exception | None = None) -> None:
        with plain.lock("l"):
            plain.clear()
            if error is not None:
                raise error

    with pytest.raises(LockLostError):
        work()
    with pytest.raises(ZeroDivisionError):
        work(ZeroDivisionError())


def test_a_lock_is_not_shared_with_another_prefix(plain, bucket_name):
    other = NatsKVCache(bucket_name, {"KEY_PREFIX": "other"})
    with plain.lock("l"), other.lock("l"):
        assert plain.get("l") is None


def test_mistakes_are_told(plain):
    with pytest.raises(UsageError, match="above 0"):
        plain.lock("l", timeout=0)
    for endless in (math.inf, math.nan, 1e11):
        with pytest.raises(UsageError, match="above 0"):
            plain.lock("l", timeout=endless)
    held = plain.lock("l")
    with pytest.raises(UsageError, match="not held"):
        held.release()
    with held, pytest.raises(UsageError, match="not reentrant"):
        held.acquire()
    assert "free" in repr(held)
