"""``make demo``: a walk through the real thing in the terminal, then the example project in the browser."""

from __future__ import annotations

import argparse
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
INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0; 1 when a step of the walk did not do what it says; 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m example_project.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the walk")
    options = parser.parse_args(arguments)
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    # A pipe is to show each line when it happens, too.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return _walk() or (0 if options.once else _serve())


def _walk() -> int:
    import django  # noqa: PLC0415 - from here on Ctrl-C is understood, and the settings are known

    django.setup()
    from django_natskv.exceptions import NatsKVError  # noqa: PLC0415
    from example_project.transcript import Transcript, WalkFailed  # noqa: PLC0415
    from example_project.walk import walk  # noqa: PLC0415

    try:
        walk(Transcript())
    except (WalkFailed, NatsKVError) as error:
        print(f"The walk failed. {error}", file=sys.stderr)
        return 1
    return 0


def _serve() -> int:
    """Serve the example until Ctrl-C."""
    from django.core.management import call_command  # noqa: PLC0415

    from example_project.transcript import Transcript  # noqa: PLC0415

    port = free_port(PORT)
    transcript = Transcript()
    transcript.title("7. The example project")
    if port != PORT:
        transcript.say(f"Port {PORT} of {HOST} is taken by another program: this is on port {port} instead.")
    transcript.good(f"http://{HOST}:{port}/")
    transcript.say("Leave it open in a browser, and change something from another terminal:")
    transcript.say(f"$ {_hint()}")
    transcript.say("Ctrl-C ends it. The nats-server ends by itself when nobody uses it any more; the data stays.")
    print()
    os.environ["DJANGO_RUNSERVER_HIDE_WARNING"] = "true"  # that it is for development is what this is about
    call_command("runserver", f"{HOST}:{port}", use_reloader=False)
    return 0


def _hint() -> str:
    """Return a command that changes an entry."""
    from example_project.shop.orders import BUCKET  # noqa: PLC0415
    from example_project.walk import MANAGE, short  # noqa: PLC0415

    write = f'c["default"].kv().open_bucket("{BUCKET}").put("order.1", "mine")'
    code = f"from django_natskv import connections as c; {write}"
    return shlex.join([short(sys.executable), short(MANAGE), "shell", "-v0", "-c", code])


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
