"""Processes: forked before and after first use, spawned, from any thread; parent and child both go on, and both end.

Every test runs in a process of its own, so that a fork is one of a program and not of pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fix_connections import PREAMBLE, ROOT, Program
from tests.fix_credentials import Certificates
from tests.fix_proxy import Proxy
from tests.fix_servers import PATIENT, MakeServer, NatsServer
from tests.fix_waiting import eventually

Start = Callable[..., Program]

TOOLS = """
from django_natskv.kv._nats import dial
dial.PING_INTERVAL = 600  # no line is lost because somebody was held up
NAME = settings.NATSKV["default"]["NAME"]

def say(what):
    os.write(1, (json.dumps(what) + "\\n").encode())

def bucket():
    return connections["default"].kv().create_bucket({"bucket": NAME, "history": 64})

def work(b, who, count=50):
    "Write and read; return how many answers were wrong."
    wrong = 0
    for number in range(count):
        revision = b.put(f"{who}.{number % 5}", [who, number])
        entry = b.get(f"{who}.{number % 5}")
        wrong += (entry.value, entry.revision) != ([who, number], revision)
    return wrong

def forked(child):
    "Fork; run child() there and leave in the way of a program that ends; return the pid."
    pid = os.fork()
    if pid == 0:
        try:
            child()
            sys.exit(0)
        except SystemExit:
            raise
        except BaseException as error:
            say(repr(error))
            sys.exit(9)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def natskv(server: NatsServer, name: str, **options: Any) -> dict[str, Any]:
    return {"default": {"SERVERS": server.url, "NAME": name, **options}}


def run(start: Start, code: str, settings: Any, *flags: str) -> list[Any]:
    """Run a program to its end and return what it said. It must be content and silent."""
    program = start(TOOLS + code, settings, *flags)
    lines, errors = program.finish()
    assert errors == ""
    assert program.process.returncode == 0, lines
    return lines


STRICT = ("-X", "dev", "-W", "error")
flags = pytest.mark.parametrize("flags", [(), STRICT], ids=["plain", "strict"])


@flags
def test_a_fork_before_the_first_use(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    code = """
pid = forked(lambda: say(work(bucket(), "child")))
say(work(bucket(), "parent"))
say(ended(pid))
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == unordered(0, 0, 0)


@flags
def test_a_fork_after_the_first_use(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    """The child goes on with the very objects that the parent made."""
    code = """
b = bucket()
work(b, "both")
pid = forked(lambda: say(work(b, "child")))
say(work(b, "parent"))
say(ended(pid))
say(work(b, "parent"))
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == unordered(0, 0, 0, 0)


class unordered(list[Any]):  # noqa: N801 - reads as a word
    """A list in any order."""

    def __init__(self, *items: Any) -> None:
        super().__init__(items)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and sorted(map(repr, self)) == sorted(map(repr, other))

    __hash__ = None


@flags
def test_generations_of_forks(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    code = """
b = bucket()
def grandchild():
    say(work(b, "grandchild"))
def child():
    pid = forked(grandchild)
    say(work(b, "child"))
    sys.exit(ended(pid))
for _ in range(3):
    pid = forked(child)
    say(work(b, "parent"))
    say(ended(pid))
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == unordered(*[0] * 12)


def test_the_parents_connection_is_not_disturbed_by_its_children(
    program: Start, nats_server: NatsServer, bucket_name: str
) -> None:
    code = """
b = bucket()
client = connections["default"]._requests
say("made")
sys.stdin.readline()
for leave in (lambda: sys.exit(0), lambda: os._exit(0), lambda: os.execv("/bin/true", ["true"])):
    def child():
        work(b, "child", 5)
        connections["default"].close()
        leave()
    ended(forked(child))
    ended(forked(leave))
import gc
def collect():
    b = None
    connections._made.clear()
    gc.collect()
ended(forked(collect))
say(work(b, "parent"))
say(client.generation)
sys.stdin.readline()
"""
    one = program(TOOLS + code, natskv(nats_server, bucket_name))
    assert one.read() == "made"
    before = [connection["cid"] for connection in nats_server.connections(bucket_name)]
    assert len(before) == 1
    one.tell()
    assert [one.read(), one.read()] == [0, 1]
    eventually(lambda: [c["cid"] for c in nats_server.connections(bucket_name)] == before)
    one.tell()
    assert one.finish()[1] == ""


def test_parent_and_child_never_write_under_the_same_id(
    program: Start, nats_server: NatsServer, bucket_name: str
) -> None:
    """The server would drop the one as a repetition of the other."""
    code = """
b = bucket()
b.put("start", 0)
pids = []
for child in range(4):
    pids.append(forked(lambda: [b.put(f"child{child}.{number}", number) for number in range(100)]))
for number in range(100):
    b.put(f"parent.{number}", number)
say([ended(pid) for pid in pids])
say(len(b.keys()))
"""
    assert run(program, code, natskv(nats_server, bucket_name)) == [[0, 0, 0, 0], 501]


@flags
def test_a_fork_from_another_thread_while_others_have_requests_in_flight(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    code = """
b = bucket()
stop = threading.Event()
wrong = []
def busy(number):
    while not stop.is_set():
        wrong.append(work(b, f"thread{number}", 5))
threads = [threading.Thread(target=busy, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
codes = []
def forks():
    for number in range(10):
        # A thread's child cannot end in the way of a program: the thread would end, and not the process.
        pid = forked(lambda: os._exit(work(b, f"child{number}", 20)))
        codes.append(ended(pid))
forking = threading.Thread(target=forks)
forking.start()
forking.join()
stop.set()
for thread in threads: thread.join()
say([sum(wrong), codes, connections["default"]._requests.generation])
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == [[0, [0] * 10, 1]]


def test_a_fork_while_a_request_waits_for_its_answer(
    program: Start, nats_server: NatsServer, bucket_name: str, make_proxy: Callable[[str], Proxy]
) -> None:
    proxy = make_proxy(nats_server.url)
    code = """
b = bucket()
b.put("key", 1)
say("ready")
sys.stdin.readline()
answers = []
reading = threading.Thread(target=lambda: answers.append(b.get("key").value))
reading.start()
client = connections["default"]._requests
while not client._in_flight: time.sleep(0.001)
# The child waits for its turn: it must not use the proxy before that is open again.
from tests.fix_waiting import eventually
def child():
    os.read(wait, 1)
    say(["child", work(b, "child")])
    eventually(lambda: not client._in_flight)
wait, go = os.pipe()
pid = forked(child)
say("forked")
sys.stdin.readline()
os.write(go, b".")
reading.join()
say(["parent", answers, work(b, "parent"), client.generation])
say(ended(pid))
"""
    one = program(TOOLS + code, {"default": {"SERVERS": proxy.url, "NAME": bucket_name, "REQUEST_TIMEOUT": 40.0}})
    assert one.read() == "ready"
    proxy.pause("replies")
    one.tell()
    assert one.read() == "forked"
    proxy.heal()
    one.tell()
    lines, errors = one.finish()
    assert lines == unordered(["child", 0], ["parent", [1], 0, 1], 0)
    assert errors == ""


@flags
def test_a_fork_while_the_connection_is_being_made(
    program: Start,
    nats_server: NatsServer,
    bucket_name: str,
    make_proxy: Callable[[str], Proxy],
    flags: tuple[str, ...],
) -> None:
    proxy = make_proxy(nats_server.url)
    proxy.pause("replies")
    code = """
answers = []
connecting = threading.Thread(target=lambda: answers.append(work(bucket(), "thread")))
connecting.start()
while connections["default"].status != "connecting": time.sleep(0.001)
say("connecting")
sys.stdin.readline()
pid = forked(lambda: say(work(bucket(), "child")))
connecting.join()
say(answers)
say(ended(pid))
"""
    settings = {
        "default": {"SERVERS": proxy.url, "NAME": bucket_name, "REQUEST_TIMEOUT": 40.0, "CONNECT_TIMEOUT": 40.0}
    }
    one = program(TOOLS + code, settings, *flags)
    assert one.read() == "connecting"
    eventually(lambda: proxy.accepted)
    one.tell()
    eventually(lambda: proxy.accepted >= 2)  # the child's
    proxy.heal()
    lines, errors = one.finish()
    assert lines == unordered(0, [0], 0)
    assert errors == ""


@flags
def test_a_fork_of_an_encrypted_connection(
    program: Start, make_server: MakeServer, certificates: Certificates, flags: tuple[str, ...]
) -> None:
    server = make_server(config=certificates.server_config())
    code = """
b = bucket()
pid = forked(lambda: say(work(b, "child")))
say(ended(pid))
ended(forked(lambda: None))
say(work(b, "parent"))
say(connections["default"]._requests.generation)
"""
    settings = natskv(server, "tls", TLS={"CA": certificates.ca})
    assert run(program, code, settings, *flags) == [0, 0, 0, 1]


@flags
def test_a_fork_inside_a_running_event_loop(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    """The child of a coroutine leaves without going back into it, and may use the blocking face."""
    code = """
import asyncio
b = bucket()
async def main():
    await b.aput("key", 1)
    pid = os.fork()
    if pid == 0:
        say(work(b, "child"))
        os._exit(0)
    say((await b.aget("key")).value)
    return pid
pid = asyncio.run(main())
say(ended(pid))
say(asyncio.run(b.aget("key")).value)
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == unordered(0, 1, 0, 1)


@flags
def test_a_child_that_uses_nothing_ends_in_silence(
    program: Start, nats_server: NatsServer, bucket_name: str, flags: tuple[str, ...]
) -> None:
    code = """
b = bucket()
import asyncio, gc
asyncio.run(b.aput("key", 1))
say([ended(forked(lambda: None)), ended(forked(gc.collect)), ended(forked(connections.close_all))])
say(work(b, "parent"))
"""
    assert run(program, code, natskv(nats_server, bucket_name), *flags) == [[0, 0, 0], 0]


MULTIPROCESSING = """
import multiprocessing, os, sys
sys.path.insert(0, os.environ["PROGRAM_DIRECTORY"])
import task

if __name__ == "__main__":
    task.task(0)
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        print(sum(pool.map(task.task, range(1, 13))))
        pool.close()
        pool.join()
    print(task.task(13), len(task.bucket().keys()))
"""

TASK = (
    PREAMBLE
    + TOOLS
    + """
made = []
def task(number):
    if not made: made.append(bucket())
    return work(made[0], f"task{number}", 10)
"""
)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(nats_server: NatsServer, bucket_name: str, tmp_path: Path, method: str) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "main.py").write_text(MULTIPROCESSING)
    done = subprocess.run(
        [sys.executable, "-X", "dev", tmp_path / "main.py", method],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TEST_NATSKV": json.dumps(natskv(nats_server, bucket_name, **PATIENT)),
            "PROGRAM_DIRECTORY": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["0", "0", "70"]


# ------------------------------------------------------------------ the end of a process

EXIT = """
b = bucket()
b.put("key", 1)
"""

ENDINGS = {
    "unused": "",
    "connected": EXIT,
    "in threads": EXIT
    + """
def busy():
    while True:
        try: work(b, "thread", 1)
        except exceptions.OperationalError: time.sleep(0.01)
for _ in range(8): threading.Thread(target=busy, daemon=True).start()
time.sleep(0.1)
""",
    "awaiting": EXIT
    + """
import asyncio
def awaits():
    async def forever():
        while True:
            try: await b.aget("key")
            except exceptions.OperationalError: await asyncio.sleep(0.01)
    asyncio.run(forever())
for _ in range(4): threading.Thread(target=awaits, daemon=True).start()
time.sleep(0.1)
""",
    "closed": EXIT + "connections.close_all()\n",
    "by an exception": EXIT + "sys.exit(0)\n",
    "after a timeout": EXIT + "say('pause'); sys.stdin.readline()\n"
    "threading.Thread(target=lambda: b.get('key'), daemon=True).start()\n"
    "while not connections['default']._requests._in_flight: time.sleep(0.001)\n",
    "down": EXIT + "say('refuse'); sys.stdin.readline()\n"
    "while connections['default'].status != 'disconnected': time.sleep(0.001)\n",
    "connecting": EXIT + "say('blackhole'); sys.stdin.readline()\n"
    "while connections['default'].status != 'disconnected': time.sleep(0.001)\n",
    "in a black hole": EXIT + "say('hole'); sys.stdin.readline()\n",
}


@pytest.mark.parametrize(
    ("ending", "tls"),
    [*((ending, False) for ending in ENDINGS), *((ending, True) for ending in ("connected", "in a black hole"))],
)
def test_the_end_of_a_process_is_prompt_and_silent(
    program: Start,
    make_server: MakeServer,
    make_proxy: Callable[[str], Proxy],
    certificates: Certificates,
    ending: str,
    tls: bool,
) -> None:
    server = make_server(config=certificates.server_config() if tls else "")
    proxy = make_proxy(server.tls_url if tls else server.url)
    settings = {"SERVERS": proxy.url, "NAME": "ending", "RECONNECT": {"WAIT": 0.05, "MAX_WAIT": 0.1}}
    if tls:
        settings["TLS"] = {"CA": certificates.ca}
    code = TOOLS + ENDINGS[ending].replace("sys.exit(0)", "") + "\nsay(['end', time.monotonic()])\n"
    if ending == "by an exception":
        code += "sys.exit(0)\n"
    # What the interpreter needs by itself is measured in the same way, and a busy machine gets several tries.
    took: list[float] = []
    began = time.monotonic()
    while not took or time.monotonic() - began < 30:
        bare = time_to_end(program, "say(['end', time.monotonic()])", settings, proxy)
        took.append(time_to_end(program, code, settings, proxy) - bare)
        if took[-1] < 0.2:
            break
    assert min(took) < 0.2, took


def time_to_end(start: Start, code: str, settings: Any, proxy: Proxy) -> float:
    one = start(code if "def say" in code else TOOLS + code, {"default": settings}, "-W", "error")
    answer = one.read()
    if isinstance(answer, str):
        if answer == "pause":
            proxy.pause("replies")
        elif answer == "refuse":
            proxy.refuse(cut=True)
        elif answer == "blackhole":
            proxy.pause("requests")
            proxy.cut()
        else:
            proxy.blackhole()
        one.tell()
        answer = one.read()
    assert answer[0] == "end"
    _, errors = one.finish()
    took = time.monotonic() - answer[1]
    assert errors == ""
    assert one.process.returncode == 0
    proxy.heal()
    proxy.accept()
    return took
