"""``make demo`` below make: the walk, the server after it, and every way to end it."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_natskv import server
from example_project.demo import HOST, free_port
from example_project.transcript import Transcript, WalkFailed
from tests.fix_embedded import GRACE, ROOT
from tests.fix_servers import free_port as unused_port
from tests.fix_waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]  # five processes each, on a busy machine

Demo = Callable[..., "subprocess.Popen[str]"]
STEPS = [
    "A real nats-server",
    "A bucket",
    "Entries",
    "A lost race",
    "History",
    "A watch in a second process",
    "The shop, on three workers",
    "A page in the cache",
    "A config that two people change",
    "A flag, from the command line",
]


def environment(place: Path, **more: str) -> dict[str, str]:
    own = {"NATSKV_EMBEDDED_DIR": str(place), "NATSKV_EMBEDDED_GRACE": str(GRACE), **more}
    return {name: value for name, value in {**os.environ, **own}.items() if name != "DJANGO_SETTINGS_MODULE"}


def children(session: int) -> list[int]:
    """Return the live processes of a session: what was started from it and did not leave it."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.fixture
def demo(place: Path) -> Iterator[Demo]:
    """Start the demo in a session of its own, on pipes unless told otherwise; its server is that of ``place``."""
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stdout: int = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
        # Those of other workers look for a free port at the same time.
        port = [] if "--port" in arguments else ["--port", str(unused_port())]
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "example_project.demo", *arguments, *port],
                cwd=ROOT,
                env=environment(place, **more),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return made[-1]

    yield start
    for process in made:
        for pid in children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def manage(place: Path, *arguments: str) -> None:
    """Run the example's ``manage.py``."""
    script = str(ROOT / "example_project" / "manage.py")
    subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True, env=environment(place))


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Return the output up to the line that has ``text``, or up to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            break
    return "".join(lines)


@pytest.mark.timeout(300)  # two walks
def test_the_walk_does_what_it_says_and_says_what_it_measured(demo: Demo, place: Path):
    process = demo("--once")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    chapters = [re.search(rf"^{number}\. {title}", out, re.MULTILINE) for number, title in enumerate(STEPS, 1)]
    assert all(chapters)
    assert "\x1b" not in out
    assert f"data in {place}" in out
    assert "natskv_bucket create orders --history 8\n  The bucket 'orders' is ready." in out
    assert re.search(r"WrongRevision: Updating 'order\.\S+' in bucket 'orders' lost a race", out)
    median, worst = map(float, re.search(r"median ([\d.]+) ms, worst ([\d.]+) ms", out).groups())  # type: ignore[union-attr]
    assert 0 < median <= worst
    assert "Traceback" not in out
    # It would close after 5 s what is not used: a command in between may take as long.
    assert re.search(r"-m uvicorn .*--timeout-keep-alive 120 ", out)
    of_the_shop(out)
    assert children(process.pid) == []
    # A second walk joins the data of the first one.
    process = demo("--once")
    assert (process.communicate(timeout=120)[1], process.returncode) == ("", 0)
    assert children(process.pid) == []
    eventually(lambda: server.running(place) is None, 30, "the unused server to end")


def of_the_shop(out: str) -> None:
    """Look for what each chapter of the shop measured."""
    cached, config, flag = (part.split("\n\n")[0] for part in re.split(r"^\d+\. ", out, flags=re.MULTILINE)[-3:])
    answers = re.findall(r"(hit|miss) +([\d.]+) ms   (\w+) worker (\d+), made by (\d+)", cached)
    assert [what for what, *_ in answers] == ["miss", "hit", "hit", "hit"]
    assert len({made_by for *_, made_by in answers}) == 1
    assert sorted((name, worker) for _, _, name, worker, _ in answers[1:]) == sorted(staff(out))
    assert re.search(r"^  Conflict: ShopConfig .* was changed by somebody else", config, re.MULTILINE)
    assert re.search(r"lost, merged and saved in [\d.]+ ms", config)
    assert "natskv_flag on new_checkout" in flag
    for part in (config, flag):
        told = re.findall(r"^ +([\d.]+) ms   (\w+) worker (\d+)$", part, re.MULTILINE)
        assert sorted((name, worker) for _, name, worker in told) == sorted(staff(out))
        assert all(float(delay) > 0 for delay, *_ in told)


def staff(out: str) -> list[tuple[str, str]]:
    """Return server and process of each worker."""
    [line] = [line for line in out.splitlines() if "they answered after" in line]
    found = re.findall(r"(\w+) worker (\d+)", line)
    assert [name for name, _ in found] == ["gunicorn", "gunicorn", "uvicorn"]
    assert len({pid for _, pid in found}) == 3
    return found


def test_on_a_terminal_it_is_coloured_unless_told_not_to_be(demo: Demo):
    def first_output(**more: str) -> bytes:
        ours, theirs = pty.openpty()
        process = demo("--once", stdout=theirs, TERM="xterm", **more)
        os.close(theirs)
        said = b""
        while b"nats-server" not in said:
            said += os.read(ours, 4096)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        os.close(ours)
        return said

    assert b"\x1b[1m1. A real nats-server" in first_output()
    assert b"\x1b" not in first_output(NO_COLOR="1")


def test_it_serves_the_example_until_ctrl_c(demo: Demo, place: Path):
    process = demo("--serve")
    out = read_until(process, "Quit the server")
    assert STEPS[0] not in out
    url = re.search(r"^  (http://127\.0\.0\.1:\d+/)$", out, re.MULTILINE)
    assert url
    with urllib.request.urlopen(url[1], timeout=60) as response:
        assert "Tea shop" in response.read().decode()
    with urllib.request.urlopen(f"{url[1]}orders/events/", timeout=60) as stream:
        assert stream.readline() == b"event: complete\n"
        os.killpg(process.pid, signal.SIGINT)  # while a page is open
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if '"GET /' not in line] == []
    assert children(process.pid) == []
    eventually(lambda: server.running(place) is None, 30, "the unused server to end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_it_ends_as_cleanly_by_other_signals(demo: Demo, number: signal.Signals):
    process = demo("--serve")
    read_until(process, "Quit the server")
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 128 + number
    assert children(process.pid) == []


@pytest.mark.parametrize(
    "moment",
    [
        "1. A real",
        "natskv_bucket create",
        ">>> import asyncio",
        "watch_orders",
        "That is process",
        "m gunicorn",
        "conflict.merge",
        "natskv_flag on",
    ],
)
def test_ctrl_c_ends_it_cleanly_at_any_moment(demo: Demo, moment: str):
    process = demo()
    assert moment in read_until(process, moment)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert err == ""
    assert process.returncode in (0, 130)
    assert children(process.pid) == []


def test_a_reader_that_leaves_ends_it_quietly(demo: Demo):
    process = demo()
    read_until(process, "1. A real")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 1


def test_ctrl_c_that_ends_the_reader_as_well_is_as_quiet(demo: Demo):
    process = demo("--serve")
    read_until(process, "The shop, in your browser")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr.read() == ""
    assert process.wait(60) in (0, 1, 130, -signal.SIGINT)  # the last: it came while the interpreter ended


def test_a_server_that_cannot_be_started_is_one_line_and_exit_status_1(demo: Demo):
    process = demo("--once", NATSKV_SERVER_BINARY="/nowhere/nats-server")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("The walk failed. ")
    assert "/nowhere/nats-server" in err
    assert err.count("\n") == 1


def test_a_bucket_that_is_not_as_the_walk_wants_it_fails_the_walk(demo: Demo, place: Path):
    manage(place, "natskv_bucket", "create", "orders", "--history", "2")
    process = demo("--once")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "CommandError" in out
    assert err == "The walk failed. It does not hold that the command ends with exit status 0 (it was 1).\n"


def test_a_port_that_is_taken_is_passed_over():
    port = unused_port()
    with socket.create_server((HOST, port)):
        assert free_port(port) > port
    assert free_port(port) == port


def test_it_says_when_its_port_is_taken(demo: Demo):
    taken = unused_port()
    with socket.create_server((HOST, taken)):
        process = demo("--serve", "--port", str(taken))
        out = read_until(process, "Quit the server")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    port = re.search(rf"Port {taken} of 127\.0\.0\.1 is taken by another program: this is on port (\d+) instead", out)
    assert port
    assert f"http://127.0.0.1:{port[1]}/" in out


# --- the transcript ---


def test_it_prints_what_it_executes_and_what_came_of_it(capsys: pytest.CaptureFixture[str]):
    transcript = Transcript()
    transcript.run("number = 6")
    assert transcript.run("number * 7") == 42
    transcript.run("for each in (1, 2):\n    print('   ', each)")
    transcript.run("1 / 0", raises=ZeroDivisionError)
    assert capsys.readouterr().out.splitlines() == [
        "  >>> number = 6",
        "  >>> number * 7",
        "  42",
        "  >>> for each in (1, 2):",
        "  ...     print('   ', each)",
        "    1",
        "    2",
        "  >>> 1 / 0",
        "  ZeroDivisionError: division by zero",
    ]


def test_what_does_not_do_what_it_says_fails_the_walk():
    transcript = Transcript()
    with pytest.raises(WalkFailed, match="division by zero"):
        transcript.run("1 / 0")
    with pytest.raises(WalkFailed, match="division by zero"):
        transcript.run("1 / 0", raises=KeyError)
    with pytest.raises(WalkFailed, match="KeyError was to be raised, and was not"):
        transcript.run("1", raises=KeyError)
    with pytest.raises(WalkFailed, match="It does not hold that one is two"):
        transcript.check([], "one is two")


def test_the_manage_py_of_the_example_passes_the_checks():
    manage = ROOT / "example_project" / "manage.py"
    done = subprocess.run(
        [sys.executable, manage, "check"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=environment(Path("unused")),
    )
    assert (done.returncode, done.stderr) == (0, "")
