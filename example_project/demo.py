"""``make demo``: a walk through the real thing in the terminal, then the example project in the browser."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

HOST = "127.0.0.1"
PORT = 8000
HINTS = (
    ("natskv_key", "put", "orders", "order.1", '{"item": "tea"}'),
    ("natskv_config", "set", "shop.ShopConfig.banner", "Tea week"),
    ("natskv_flag", "rollout", "new_checkout", "50"),
)
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 1 when a step of the walk did not do what it says; 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m example_project.demo", description=__doc__)
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--once", action="store_true", help="end after the walk")
    parts.add_argument("--serve", action="store_true", help="leave the walk out")
    parser.add_argument("--port", type=int, default=PORT, help="serve on this port, or the next free one (%(default)s)")
    options = parser.parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    # A pipe is to show each line when it happens, too.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import django  # noqa: PLC0415 - from here on Ctrl-C is understood, and the settings are known

    django.setup()
    return (0 if options.serve else _walk()) or (0 if options.once else _serve(options.port))


def _walk() -> int:
    from django_natskv.exceptions import NatsKVError  # noqa: PLC0415
    from example_project.transcript import Transcript, WalkFailed  # noqa: PLC0415
    from example_project.walk import walk  # noqa: PLC0415

    try:
        walk(Transcript())
    except (WalkFailed, NatsKVError) as error:
        print(f"The walk failed. {error}", file=sys.stderr)
        return 1
    return 0


def _serve(wanted: int) -> int:
    """Serve the example until Ctrl-C, on the port that is wanted or the next free one."""
    from django.core.management import CommandError, call_command  # noqa: PLC0415

    from example_project.transcript import Transcript  # noqa: PLC0415

    try:
        call_command("natskv_bucket", "sync", stdout=io.StringIO(), stderr=io.StringIO())
    except CommandError as error:
        print(f"The buckets of the shop cannot be made. {error}", file=sys.stderr)
        return 1
    port = free_port(wanted)
    transcript = Transcript()
    transcript.title("The shop, in your browser")
    if port != wanted:
        transcript.say(f"Port {wanted} of {HOST} is taken by another program: this is on port {port} instead.")
    transcript.good(f"http://{HOST}:{port}/")
    transcript.say("Leave it open in a browser, and change something from another terminal:")
    for words in HINTS:
        transcript.say(f"$ {_typed(words)}")
    transcript.say("Ctrl-C ends it. The nats-server ends by itself when nobody uses it any more; the data stays.")
    print()
    os.environ["DJANGO_RUNSERVER_HIDE_WARNING"] = "true"  # that it is for development is what this is about
    call_command("runserver", f"{HOST}:{port}", use_reloader=False)
    return 0


def _typed(words: Sequence[str]) -> str:
    """Return how one types a command of the example's ``manage.py`` here."""
    from example_project.walk.processes import MANAGE, short  # noqa: PLC0415

    return shlex.join([short(sys.executable), short(MANAGE), *words])


def free_port(first: int) -> int:
    """Return the first port from ``first`` on that nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SystemExit(f"The ports {first} to {first + 99} of {HOST} are all taken.")


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """Leave in order, whatever this process is doing."""
    signal.signal(number, signal.SIG_IGN)  # once is enough, and the end is not to be interrupted
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def run() -> NoReturn:
    """Run ``main()`` so that Ctrl-C, ``kill`` and a closed pipe end it without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    status = 1
    try:
        try:
            status = main()
        except KeyboardInterrupt:
            status = INTERRUPTED
            print("\nInterrupted.")
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status)


if __name__ == "__main__":
    run()
