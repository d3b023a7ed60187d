"""A process that was forked goes on with its parent's cache, awaited or not, and so does the parent."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.fix_cache import PROGRAM

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

# The parent has awaited before; the child awaits in two loops, one after the other.
CODE = (
    PROGRAM
    + """
import asyncio, faulthandler

async def use():
    await cache.aset("k", [1])
    assert await cache.aget("k") == [1]
    await cache.aincr("n")
    assert await cache.aget_or_set("made", lambda: asyncio.sleep(0, 5)) == 5
    async with cache.lock("l"):
        pass

cache.set("n", 0)
asyncio.run(use())
child = os.fork()
if not child:
    faulthandler.dump_traceback_later(40, exit=True)
    asyncio.run(use())
    asyncio.run(use())
    assert cache.get("k") == [1]
    os._exit(0)
status = os.waitpid(child, 0)[1]
asyncio.run(use())
while cache.get("n") != 4:  # with a local cache, until the child's writes have come by
    time.sleep(0.01)
print(json.dumps(status), flush=True)
"""
)


@pytest.mark.parametrize("mode", [None, "mirror", "invalidate"])
def test_a_child_of_a_parent_that_awaited_awaits_too(natskv: Any, bucket_name: str, program: Any, mode: str | None):
    params = json.dumps({"OPTIONS": {"LOCAL_CACHE": mode}})
    started = program(CODE, {"default": dict(natskv)}, TEST_BUCKET=bucket_name, TEST_PARAMS=params)
    assert started.read() == 0


OUT = (
    PROGRAM
    + """
import signal

server = int(os.environ["TEST_SERVER_PID"])
while cache.get("k") != 1:  # what is not answered in time is dropped
    cache.set("k", 1)
os.kill(server, signal.SIGSTOP)
until = time.monotonic() + 20
while cache.get("k") is not None:  # it stops soon after it was told; from here on the parent's thread finds out
    assert time.monotonic() < until
child = os.fork()
os.kill(server, signal.SIGCONT)
until = time.monotonic() + 20
while cache.get("k") != 1:
    assert time.monotonic() < until
    time.sleep(0.01)
if not child:
    os._exit(0)
print(json.dumps(os.waitpid(child, 0)[1]), flush=True)
"""
)


def test_a_child_of_a_parent_that_met_an_outage_finds_out_for_itself(make_server: Any, program: Any):
    server = make_server()
    params = json.dumps({"OPTIONS": {"ON_ERROR": "miss"}})
    settings = {"default": {"SERVERS": [server.url], "REQUEST_TIMEOUT": 0.5}}
    started = program(OUT, settings, TEST_BUCKET="cache", TEST_PARAMS=params, TEST_SERVER_PID=str(server.pid))
    assert started.read() == 0
