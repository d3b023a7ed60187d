"""A process that stood still, or whose event loop did: time that passed meanwhile says nothing of the server."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from django_natskv.kv._nats.flow import SILENCE
from django_natskv.kv.context import KVContext
from tests.fix_connections import Connect, Program
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

TIMEOUT = 2.0  # seconds; the server may be held up too, and answer late
STANDS_STILL = 2.3  # seconds, more than that
WRITER = """
import asyncio, json, sys, threading

told, errors = threading.Event(), []
threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()

def write(bucket):
    while not told.is_set():
        try:
            bucket.put("key", 1)
        except Exception as error:
            errors.append(repr(error))

async def awrite(bucket):
    while not told.is_set():
        try:
            await bucket.aput("key", 1)
        except Exception as error:
            errors.append(repr(error))

bucket = connections["default"].kv().open_bucket(NAME)
bucket._runner.timeout = TIMEOUT  # from now on: before, it had to succeed
print(json.dumps("writes"), flush=True)
asyncio.run(awrite(bucket)) if AWAITED else write(bucket)
print(json.dumps(errors), flush=True)
"""
FOLLOWER = """
import json, logging, sys

said = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("django_natskv").addHandler(handler)

caches = [connections["default"].local_cache(NAME, keys=keys) for keys in (None, "k.*")]
print(json.dumps([cache.wait_ready(30) for cache in caches]), flush=True)
sys.stdin.readline()
print(json.dumps(said), flush=True)
"""


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
def test_a_process_that_was_stopped_reads_the_answer_before_it_gives_up(
    kv: KVContext, nats_server: NatsServer, bucket_name: str, program: Callable[..., Program], *, awaited: bool
) -> None:
    kv.create_bucket({"bucket": bucket_name, "storage": "memory"})
    code = f"NAME, AWAITED, TIMEOUT = {bucket_name!r}, {awaited}, {TIMEOUT}\n{WRITER}"
    writer = program(code, {"default": {"SERVERS": nats_server.url}})
    assert writer.read() == "writes"
    for _ in range(2):
        os.kill(writer.process.pid, signal.SIGSTOP)
        threading.Event().wait(STANDS_STILL)
        os.kill(writer.process.pid, signal.SIGCONT)
        threading.Event().wait(0.1)
    writer.tell()
    assert writer.read() == []


async def test_an_event_loop_that_was_blocked_gets_the_answer_that_came_meanwhile(
    connect: Connect, nats_server: NatsServer, bucket_name: str
) -> None:
    connection = connect(nats_server.url)
    bucket = await (await connection.akv()).acreate_bucket({"bucket": bucket_name, "storage": "memory"})
    connection._runner.timeout = 0.3
    write = asyncio.create_task(bucket.aput("key", 1))
    await asyncio.sleep(0)
    # A view that calculates, until the answer has come and longer than a request may take.
    stored = eventually(lambda: nats_server.streams()[f"KV_{bucket_name}"]["state"]["messages"])
    eventually(lambda: not connection._requests._in_flight)
    time.sleep(0.7)  # noqa: ASYNC251
    assert await write == stored == 1


def test_a_process_that_was_stopped_listens_before_it_takes_the_server_for_silent(
    kv: KVContext, nats_server: NatsServer, bucket_name: str, program: Callable[..., Program]
) -> None:
    kv.create_bucket({"bucket": bucket_name, "storage": "memory"})
    follower = program(f"NAME = {bucket_name!r}\n{FOLLOWER}", {"default": {"SERVERS": nats_server.url}})
    assert follower.read() == [True, True]
    os.kill(follower.process.pid, signal.SIGSTOP)
    threading.Event().wait(SILENCE + 0.1)
    os.kill(follower.process.pid, signal.SIGCONT)
    threading.Event().wait(0.1)
    follower.tell()
    assert follower.read() == []
