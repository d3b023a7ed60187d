"""``manage.py natskv_bucket watch`` and ``natskv_key watch``, followed as they run."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command

from django_natskv import signals
from django_natskv.kv import Bucket, KVContext
from django_natskv.management.terminal import follow
from tests.fix_commands import Manage
from tests.fix_proxy import Proxy
from tests.fix_servers import MakeServer, NatsServer
from tests.fix_waiting import eventually

Process = subprocess.Popen[str]
LOST = "The connection is lost. The watch waits for it to come back."
BACK = "The connection is back. What has changed meanwhile follows."


@pytest.fixture
def bucket(kv: KVContext, bucket_name: str) -> Iterator[Bucket]:
    """A bucket with two live keys, one of them written twice, and one deleted."""
    made = kv.create_bucket({"bucket": bucket_name, "history": 8})
    for key, value in (("shop.a", 1), ("shop.a", "é"), ("user.b", None), ("gone", 1)):
        made.put(key, value)
    made.delete("gone")
    yield made
    kv.delete_bucket(bucket_name)


@pytest.fixture
def begin(manage: Manage) -> Iterator[Callable[..., Process]]:
    """Start a command; what still runs at the end is killed."""
    begun: list[Process] = []

    def run(*arguments: str, **options: Any) -> Process:
        begun.append(manage.start(*arguments, **options))
        return begun[-1]

    yield run
    for process in begun:
        process.kill()
        process.communicate()


def _line(process: Process) -> str:
    assert process.stdout is not None
    line: str = process.stdout.readline()
    return line


def _talk(process: Process) -> str:
    assert process.stderr is not None
    line: str = process.stderr.readline()
    return line.rstrip("\n")


def _changes(process: Process, number: int) -> list[tuple[str, str, Any]]:
    shown = [json.loads(_line(process)) for _ in range(number)]
    return [(entry["key"], entry["operation"], entry["value"]) for entry in shown]


def _end(process: Process, by: signal.Signals = signal.SIGINT) -> None:
    """End it, and see that it ended as it should."""
    process.send_signal(by)
    assert process.stdout is not None
    assert process.stderr is not None
    # Not communicate(), which misses what readline() has read ahead.
    assert (process.stdout.read(), process.stderr.read(), process.wait(20)) == ("", "", 0)


# ---------------------------------------------------------------- what it shows


def test_a_bucket_is_shown_and_then_each_change(begin: Callable[..., Process], bucket: Bucket):
    process = begin("natskv_bucket", "watch", bucket.name, "--format", "json")
    assert _talk(process) == f"Watching the bucket {bucket.name!r}; Ctrl-C ends it."
    assert sorted(_changes(process, 3)) == [("gone", "delete", None), ("shop.a", "put", "é"), ("user.b", "put", None)]
    revision = bucket.put("shop.a", {"on": True}, headers={"Natskv-Actor": "me"})
    shown = json.loads(_line(process))
    entry = bucket.get("shop.a")
    assert entry is not None
    assert shown == {
        "bucket": bucket.name,
        "key": "shop.a",
        "value": {"on": True},
        "revision": revision,
        "created": entry.created.isoformat(),
        "operation": "put",
        "delta": 0,
        "headers": {"Natskv-Actor": "me"},
    }
    bucket.purge("shop.a")
    assert _changes(process, 1) == [("shop.a", "purge", None)]
    _end(process)


@pytest.mark.parametrize(
    ("arguments", "first"),
    [
        (
            ("--history",),
            [
                *[("shop.a", "put", 1), ("shop.a", "put", "é"), ("user.b", "put", None)],
                *[("gone", "put", 1), ("gone", "delete", None)],
            ],
        ),
        (("--updates",), []),
        (("--ignore-deletes",), [("shop.a", "put", "é"), ("user.b", "put", None)]),
        (("--keys", "shop.>"), [("shop.a", "put", "é")]),
        (("--keys", "shop.*", "--keys", "gone"), [("shop.a", "put", "é"), ("gone", "delete", None)]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_choose_what_is_shown(
    begin: Callable[..., Process], bucket: Bucket, arguments: tuple[str, ...], first: list[tuple[str, str, Any]]
):
    process = begin("natskv_bucket", "watch", bucket.name, "--format", "json", *arguments)
    assert _talk(process).startswith("Watching")
    assert _changes(process, len(first)) == first
    bucket.put("user.last", 0)
    bucket.put("shop.last", 1)
    bucket.delete("shop.a")
    bucket.put("shop.end", 1)
    narrowed = "--keys" in arguments
    news = [("user.last", "put", 0), ("shop.last", "put", 1), ("shop.a", "delete", None), ("shop.end", "put", 1)]
    kept = [each for each in news if not (narrowed and each[0] == "user.last")]
    if "--ignore-deletes" in arguments:
        kept = [each for each in kept if each[1] == "put"]
    assert _changes(process, len(kept)) == kept
    _end(process)


def test_a_key_is_watched_alone_or_with_others_or_by_pattern(begin: Callable[..., Process], bucket: Bucket):
    process = begin("natskv_key", "watch", bucket.name, "user.b", "--format", "plain", "shop.*")
    first = [_line(process).rstrip("\n").split("\t") for _ in range(2)]
    assert [(line[0], line[3], line[6]) for line in first] == [("shop.a", "put", '"é"'), ("user.b", "put", "null")]
    bucket.put("other", 1)
    bucket.put("user.b", "a\tb\n", headers={"Natskv-Actor": "J%C3%B6rg", "Natskv-Comment": "why%20not"})
    key, revision, created, *rest = _line(process).rstrip("\n").split("\t")
    entry = bucket.get("user.b")
    assert entry is not None
    assert (key, int(revision), created) == ("user.b", entry.revision, entry.created.isoformat())
    assert rest == ["put", "Jörg", "why not", '"a\\tb\\n"']
    _talk(process)
    _end(process)


def test_a_table_is_coloured_on_a_terminal_and_cut_to_a_line(manage: Manage, bucket: Bucket):
    bucket.put("shop.a", "x\n" * 100, headers={"Natskv-Actor": "j%C3%B6rg", "Natskv-Comment": "sale%1b"})
    bucket.delete("user.b")
    terminal, side = pty.openpty()
    process = manage.start("natskv_key", "watch", bucket.name, "*.*", stdin=side, stdout=side, stderr=side)
    os.close(side)
    with os.fdopen(terminal, encoding="utf-8") as screen:
        lines = [screen.readline().rstrip() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Watching the bucket" in lines[0]
    assert "put     \x1b[36;1mshop.a\x1b[0m  " in lines[1]
    assert lines[1].endswith("...  (jörg)  (sale\\x1b)")
    assert lines[2].endswith("delete  \x1b[36;1muser.b\x1b[0m")


def test_values_that_the_codec_does_not_know_are_shown_and_told_of_once(
    begin: Callable[..., Process], kv: KVContext, bucket: Bucket
):
    stored = kv.open_bucket(bucket.name, codec="bytes")
    process = begin("natskv_bucket", "watch", bucket.name, "--updates", "--format", "json")
    _talk(process)
    for key, data in (("k1", b"plain"), ("k2", b"\xff"), ("k3", b"3")):
        stored.put(key, data)
    assert _changes(process, 3) == [("k1", "put", "plain"), ("k2", "put", {"base64": "/w=="}), ("k3", "put", 3)]
    assert "is not what the codec 'json' writes" in _talk(process)
    _end(process)


def test_verbosity_0_says_nothing(begin: Callable[..., Process], bucket: Bucket):
    process = begin("natskv_bucket", "watch", bucket.name, "-v", "0", "--keys", "shop.a")
    assert _line(process).rstrip().endswith('put     shop.a  "é"')
    _end(process)


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("options", [(), ("--traceback",)], ids=["", "traceback"])
def test_signals_end_it_without_a_word(
    begin: Callable[..., Process], bucket: Bucket, by: signal.Signals, options: tuple[str, ...]
):
    process = begin("natskv_bucket", "watch", bucket.name, "--updates", *options)
    _talk(process)
    _end(process, by)


def test_it_ends_when_its_reader_leaves_though_nothing_changes(begin: Callable[..., Process], bucket: Bucket):
    process = begin("natskv_bucket", "watch", bucket.name, "-v", "0")
    assert _line(process)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    process.stdout = None


def test_it_ends_when_its_reader_leaves_in_the_middle(begin: Callable[..., Process], bucket: Bucket):
    for number in range(300):
        bucket.put(f"many.{number}", "x" * 5_000)
    process = begin("natskv_bucket", "watch", bucket.name, "-v", "0", "--format", "plain")
    assert _line(process)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == ""
    process.stdout = None


def test_a_permission_that_is_missing_ends_it_in_one_line(
    manage: Manage, begin: Callable[..., Process], make_server: MakeServer
):
    deny = '{ user: shop, password: right, permissions: { publish: { deny: "$JS.API.CONSUMER.>" } } }'
    server = make_server(config=f"authorization {{ users: [ {deny} ] }}")
    manage.configure({"default": {"SERVERS": [server.url], "USER": "shop", "PASSWORD": "right"}})
    assert manage("natskv_bucket", "create", "flags", "-v", "0", "--format", "json").err == ""
    process = begin("natskv_bucket", "watch", "flags", "-v", "0")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "$JS.API.CONSUMER.CREATE.KV_flags" in err


@pytest.mark.parametrize("command", [("natskv_bucket", "watch", "nosuch"), ("natskv_key", "watch", "nosuch", "k")])
def test_no_such_bucket_is_exit_status_3(manage: Manage, command: tuple[str, ...]):
    done = manage(*command)
    assert (done.code, done.out) == (3, "")
    assert "There is no bucket 'nosuch'" in done.error


# ---------------------------------------------------------------- outages


def test_an_outage_is_told_and_survived(
    manage: Manage,
    begin: Callable[..., Process],
    make_proxy: Callable[[str], Proxy],
    nats_server: NatsServer,
    bucket: Bucket,
):
    proxy = make_proxy(nats_server.url)
    manage.configure({"default": {"SERVERS": [proxy.url], "RECONNECT": {"WAIT": 0.05, "MAX_WAIT": 0.2}}})
    process = begin("natskv_bucket", "watch", bucket.name, "--updates", "--format", "json")
    assert _talk(process).startswith("Watching")
    for value in (1, 2):
        proxy.refuse(cut=True)
        assert _talk(process) == LOST
        bucket.put("shop.a", value)
        proxy.accept()
        assert _talk(process) == BACK
        assert _changes(process, 1) == [("shop.a", "put", value)]
    proxy.refuse(cut=True)
    assert _talk(process) == LOST
    _end(process, signal.SIGTERM)


# ---------------------------------------------------------------- called from Python


@pytest.mark.parametrize("waiting", [1, 1_000])
def test_a_thread_may_watch_until_nobody_reads(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, waiting: int):
    monkeypatch.setattr(follow, "_WAITING", waiting)
    for number in range(30):
        bucket.put(f"many.{number}", number)
    receivers = len(signals.connection_status.receivers)
    reading, writing = os.pipe()
    with os.fdopen(reading) as lines, os.fdopen(writing, "w") as stdout:
        thread = threading.Thread(
            target=call_command,
            args=("natskv_bucket", "watch", bucket.name, "--keys", "many.*", "--format", "json"),
            kwargs={"stdout": stdout, "stderr": io.StringIO(), "verbosity": 0},
        )
        thread.start()
        assert [json.loads(lines.readline())["value"] for _ in range(30)] == list(range(30))
        lines.close()
        thread.join(20)
        assert not thread.is_alive()
    assert len(signals.connection_status.receivers) == receivers
    eventually(lambda: not [t for t in threading.enumerate() if t.name == f"natskv-watch-{bucket.name}"])
