"""How ``manage.py natskv_bucket`` fails: one line on stderr, nothing on stdout, and an exit status."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fix_commands import Finished, Manage
from tests.fix_proxy import Proxy
from tests.fix_servers import MakeServer, NatsServer
from tests.fix_waiting import eventually

pytestmark = pytest.mark.timeout(240)  # interpreters start, each of them in seconds on a busy machine


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("drop",), "invalid choice: 'drop'"),
        (("list", "--using", "nowhere"), 'The connection "nowhere" doesn\'t exist'),
        (("create", "x", "--ttl", "90"), "--ttl: '90' is not a duration"),
    ],
    ids=["argument", "alias", "value"],
)
def test_a_mistake_in_the_call_is_one_line_and_exit_status_2(manage: Manage, arguments: tuple[str, ...], said: str):
    done = manage("natskv_bucket", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.error


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "nosuch"),
        ("update", "nosuch", "--history", "2"),
        ("update", "nosuch", "--placement-tag", "ssd"),
        ("delete", "nosuch"),
        ("delete", "nosuch", "--no-input"),
        ("purge-deletes", "nosuch"),
    ],
    ids=" ".join,
)
def test_no_such_bucket_is_one_line_and_exit_status_3(manage: Manage, arguments: tuple[str, ...]):
    done = manage("natskv_bucket", *arguments)
    assert (done.code, done.out) == (3, "")
    assert "There is no bucket 'nosuch'" in done.error


def test_a_server_that_is_down_is_one_line_that_says_what_to_check(manage: Manage):
    done = manage("natskv_bucket", "list", "--using", "down")
    assert (done.code, done.out) == (1, "")
    assert "nats://127.0.0.1:1" in done.error
    assert 'Check SERVERS of NATSKV["down"] in the settings.' in done.error
    assert manage("natskv_bucket", "--using", "down", "list").error == done.error


def test_wrong_credentials_are_one_line_without_them(manage: Manage, make_server: MakeServer):
    server = make_server(config="authorization { user: shop, password: right-one }")
    manage.configure({"default": {"SERVERS": [server.url], "USER": "shop", "PASSWORD": "wrong-one"}})
    done = manage("natskv_bucket", "list")
    assert (done.code, done.out) == (1, "")
    assert 'Check the credentials of NATSKV["default"] in the settings.' in done.error
    assert "wrong-one" not in done.error


def test_a_missing_permission_is_one_line_that_names_it(manage: Manage, make_server: MakeServer):
    user = '{ user: shop, password: right-one, permissions: { publish: { deny: "$JS.API.STREAM.CREATE.>" } } }'
    server = make_server(config=f"authorization {{ users: [ {user} ] }}")
    manage.configure({"default": {"SERVERS": [server.url], "USER": "shop", "PASSWORD": "right-one"}})
    done = manage("natskv_bucket", "create", "flags")
    assert (done.code, done.out) == (1, "")
    assert "$JS.API.STREAM.CREATE.KV_flags" in done.error


def test_a_server_without_jetstream_is_one_line(manage: Manage, make_server: MakeServer):
    manage.configure({"default": {"SERVERS": [make_server(jetstream=None).url]}})
    done = manage("natskv_bucket", "list")
    assert (done.code, done.out) == (1, "")
    assert "JetStream is not enabled" in done.error


def test_a_server_that_does_not_answer_in_time_is_one_line(manage: Manage, make_proxy: Any, nats_server: NatsServer):
    proxy: Proxy = make_proxy(nats_server.url)
    proxy.blackhole()
    manage.configure({"default": {"SERVERS": [proxy.url], "CONNECT_TIMEOUT": 0.3, "REQUEST_TIMEOUT": 0.5}})
    done = manage("natskv_bucket", "list")
    assert (done.code, done.out) == (1, "")
    assert done.error.startswith("CommandError: ")


def test_a_write_without_an_answer_says_that_it_may_have_been_done(manage: Manage, make_server: MakeServer):
    server = make_server()
    at = {"SERVERS": [server.url]}
    manage.configure({"default": at})
    assert manage("natskv_bucket", "create", "flags").code == 0
    manage.configure({"default": {**at, "REQUEST_TIMEOUT": 2.0}})  # in which it has to come as far as its question
    done = manage.on_terminal("natskv_bucket", "delete", "flags", "--no-color", answer="y\n", meanwhile=server.freeze)
    assert done.code == 1
    last = done.screen.splitlines()[-1]
    assert "may have been" in last
    assert 'REQUEST_TIMEOUT of NATSKV["default"] in the settings is how long to wait.' in last


def test_settings_that_cannot_be_used_are_one_line(manage: Manage):
    manage.configure({"default": {"SERVER": "nats://127.0.0.1", "TLS": {"NO": 1}}})
    done = manage("natskv_bucket", "list")
    assert (done.code, done.out) == (1, "")
    assert "natskv.E004" in done.error


def test_traceback_shows_the_cause(manage: Manage):
    done = manage("natskv_bucket", "status", "nosuch", "--traceback")
    assert done.code == 1  # Python's own, for an error that nobody caught
    assert "Traceback" in done.err
    assert "BucketNotFound" in done.err


@pytest.mark.parametrize("traceback", [False, True])
def test_ctrl_c_while_waiting_is_one_line(manage: Manage, make_proxy: Any, nats_server: NatsServer, traceback: bool):
    proxy: Proxy = make_proxy(nats_server.url)
    proxy.blackhole()
    manage.configure({"default": {"SERVERS": [proxy.url], "CONNECT_TIMEOUT": 40.0, "REQUEST_TIMEOUT": 40.0}})
    process = manage.start("natskv_bucket", "list", *["--traceback"] * traceback)
    eventually(lambda: proxy.accepted == 1, 30, "the command is waiting")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=25)
    assert out == ""
    if traceback:
        assert "KeyboardInterrupt" in err
    else:
        assert process.returncode == 1
        assert err == "Interrupted. What was asked for may have been done, or not.\n"


def test_a_reader_that_leaves_is_no_reason_to_complain(manage: Manage, stocked: str):
    process = manage.start("natskv_bucket", "status", stocked)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(50) == 1
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_disk_that_is_full_is_one_line(manage: Manage, stocked: str):
    with Path("/dev/full").open("w") as full:
        process = manage.start("natskv_bucket", "dump", stocked, stdout=full)
        _, errors = process.communicate(timeout=50)
    assert Finished(process.returncode, err=errors).error.endswith("No space left on device.")
    assert process.returncode == 1
