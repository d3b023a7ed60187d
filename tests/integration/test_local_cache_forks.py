"""Local caches across fork: the child has a copy of its own, the parent is not disturbed."""

from __future__ import annotations

import pytest

from tests.fix_local import live
from tests.fix_waiting import eventually

WORKERS = """
cache = connections["default"].local_cache(os.environ["BUCKET"], mode=os.environ.get("MODE", "mirror"))
assert cache.wait_ready(30)
assert cache.value("a") == 1
children = []
for number in range(3):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            value = cache.value("a")
            ready = cache.wait_ready(30)
            os.write(write, b"r")
            deadline = time.monotonic() + 30
            while cache.value("a") != 2 and time.monotonic() < deadline:
                time.sleep(0.002)
            while cache.status().state != "live" and time.monotonic() < deadline:
                time.sleep(0.002)
            out = [value, ready, cache.value("a"), cache.status().state]
            os.write(1, json.dumps(out).encode() + b"\\n")  # whole: the others write too
        finally:
            os._exit(0)
    children.append(read)
for read in children:
    assert os.read(read, 1) == b"r"
connections["default"].kv().open_bucket(os.environ["BUCKET"]).put("a", 2)
for _ in children:
    os.wait()
while cache.value("a") != 2 or cache.status().state != "live":
    time.sleep(0.002)
print(json.dumps(["parent", cache.value("a"), cache.status().state]), flush=True)
connections["default"].close()
"""


def patient(server):
    """Settings with which a first read has all the time that it may take on a busy machine."""
    return {"default": {"SERVERS": server.url, "LOCAL_CACHE": {"WAIT": 30}}}


@pytest.mark.parametrize("mode", ["mirror", "invalidate"])
def test_children_of_a_warm_parent_follow_by_themselves(program, nats_server, connect_kv, bucket_name, mode):
    context = connect_kv().kv()
    context.create_bucket({"bucket": bucket_name, "storage": "memory"}).put("a", 1)
    told, err = program(WORKERS, patient(nats_server), BUCKET=bucket_name, MODE=mode).finish(55)
    assert told == [[1, True, 2, "live"]] * 3 + [["parent", 2, "live"]], err
    context.delete_bucket(bucket_name)


DOWN = """
cache = connections["default"].local_cache("b")
assert cache.wait_ready(30)
print(json.dumps("warm"), flush=True)
sys.stdin.readline()
if os.fork() == 0:
    try:
        value = cache.value("a")
        print(json.dumps([value, cache.status().state, cache.status().age is not None]), flush=True)
        sys.stdin.readline()
        while cache.value("a") != 2 or cache.status().state != "live":
            time.sleep(0.01)
        print(json.dumps([cache.value("a"), cache.status().state]), flush=True)
    finally:
        os._exit(0)
os.wait()
"""


def test_a_child_that_cannot_reach_nats_serves_what_its_parent_held(program, make_server, connect_kv):
    server = make_server()
    connect_kv(server).kv().create_bucket({"bucket": "b"}).put("a", 1)
    worker = program(DOWN, patient(server))
    assert worker.read() == "warm"
    server.stop()
    worker.tell()
    assert worker.read() == [1, "stale", True]
    server.start()
    connect_kv(server).kv().open_bucket("b").put("a", 2)
    worker.tell()
    assert worker.read() == [2, "live"]
    worker.finish()


IMPORTED = """
cache = connections["default"].local_cache(os.environ["BUCKET"])
if os.fork() == 0:
    try:
        print(json.dumps([cache.value("a"), cache.status().state]), flush=True)
    finally:
        os._exit(0)
os.wait()
print(json.dumps(cache.status().state), flush=True)
"""


def test_a_preloaded_application_that_has_read_nothing_starts_nothing(program, nats_server, connect_kv, bucket_name):
    context = connect_kv().kv()
    context.create_bucket({"bucket": bucket_name, "storage": "memory"}).put("a", 1)
    told, err = program(IMPORTED, patient(nats_server), BUCKET=bucket_name).finish()
    assert told == [[1, "live"], "warming"], err
    context.delete_bucket(bucket_name)


def test_the_end_of_a_process_is_not_held_up(program, nats_server, connect_kv, bucket_name):
    context = connect_kv().kv()
    context.create_bucket({"bucket": bucket_name, "storage": "memory"}).put("a", 1)
    code = 'print(json.dumps(connections["default"].local_cache(os.environ["BUCKET"]).value("a")), flush=True)'
    one = program(code, patient(nats_server), BUCKET=bucket_name)
    assert one.read() == 1
    assert one.finish(10) == ([], "")
    eventually(lambda: nats_server.consumers(f"KV_{bucket_name}") == [])
    live(connect_kv().local_cache(bucket_name))
    context.delete_bucket(bucket_name)
