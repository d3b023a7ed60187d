"""The very end of a process: what still runs when the interpreter is taken down gets an error, and never hangs it."""

from __future__ import annotations

from collections.abc import Callable

from tests.fix_connections import Program
from tests.fix_servers import NatsServer
from tests.fix_waiting import eventually

BUCKET = """
name = settings.NATSKV["default"]["NAME"]
b = connections["default"].kv().create_bucket({"bucket": name})
for number in range(3):
    b.put(f"key.{number}", number)
"""


def end(start: Callable[..., Program], code: str, server: NatsServer, name: str) -> list[object]:
    """Run a program to its end, which must be a silent one; return what it said."""
    one = start(BUCKET + code, {"default": {"SERVERS": server.url, "NAME": name}}, "-X", "dev", "-W", "error")
    lines, errors = one.finish()
    assert errors == ""
    assert one.process.returncode == 0
    return lines


def test_a_pass_over_entries_that_is_given_up_with_the_process(
    program: Callable[..., Program], nats_server: NatsServer, bucket_name: str
) -> None:
    code = """
import asyncio
half = b.entries()
print(json.dumps(next(half).key))
awaited = b.aentries()
print(json.dumps(asyncio.run(awaited.__anext__()).key))
"""
    assert end(program, code, nats_server, bucket_name) == ["key.0", "key.0"]


def test_a_pass_over_entries_that_a_forked_child_gives_up_is_the_parents(
    program: Callable[..., Program], nats_server: NatsServer, bucket_name: str
) -> None:
    code = """
half = b.entries()
keys = [next(half).key]
pid = os.fork()
if pid == 0:
    half.close()
    print(json.dumps(connections["default"].status), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps(keys + [entry.key for entry in half]))
"""
    assert end(program, code, nats_server, bucket_name) == ["idle", ["key.0", "key.1", "key.2"]]
    eventually(lambda: nats_server.consumers(f"KV_{bucket_name}") == [])


def test_a_watch_that_ends_with_the_process_leaves_no_consumer(
    program: Callable[..., Program], nats_server: NatsServer, bucket_name: str
) -> None:
    code = "b.watch(lambda entry: None).initialized.result(30)"
    assert end(program, code, nats_server, bucket_name) == []
    eventually(lambda: nats_server.consumers(f"KV_{bucket_name}") == [])


def test_a_child_does_not_keep_the_line_of_a_parent_that_was_killed(
    program: Callable[..., Program], nats_server: NatsServer, bucket_name: str
) -> None:
    code = """
if os.fork() == 0:
    print(json.dumps("here"), flush=True)
    sys.stdin.readline()
    os._exit(0)
threading.Event().wait()
"""
    settings = {"default": {"SERVERS": nats_server.url, "NAME": bucket_name}}
    one = program(BUCKET + code, settings)
    assert one.read() == "here"
    assert len(nats_server.connections(bucket_name)) == 1
    one.process.kill()
    eventually(lambda: nats_server.connections(bucket_name) == [])
    one.tell()  # which the child was waiting for, all the while


def test_calls_of_finalizers_are_refused_at_once(
    program: Callable[..., Program], nats_server: NatsServer, bucket_name: str
) -> None:
    """A session that is saved, or a flag that is read by a log handler, when nothing can be sent any more."""
    code = """
import logging
from django_natskv.cache import NatsKVCache
logging.disable()  # that the cache does without the server is worth its line
local = connections["default"].local_cache(name)
cache = NatsKVCache(name, {"OPTIONS": {"ON_ERROR": "miss"}})
cache.set("a", 1)
calls = [lambda: b.get("key.1"), lambda: b.put("key.1", 2), lambda: local.get("key.1"), lambda: b.watch(print)]
class Finalized:
    def __del__(self, calls=calls, read=cache.get, write=os.write, error=exceptions.NotConnected):
        write(1, b"%d\\n" % (read("a") is None))
        for call in calls:
            try:
                call()
            except error as raised:
                write(1, b'"%s"\\n' % str(raised).encode())
finalized = Finalized()
finalized.itself = finalized  # found when the interpreter is taken down, and not before
"""
    ending = "The process is ending: nothing is sent any more."
    assert end(program, code, nats_server, bucket_name) == [1, *[ending] * 4]
