"""The embedded server in the foreground: this process looks after it until it is told to stop.

Owns that arrangement. Must not know who prints what.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from django_natskv.exceptions import ConnectFailed
from django_natskv.server._binary import binary_version, find_binary
from django_natskv.server._directory import failures_named, prepare
from django_natskv.server._join import EmbeddedServer, describe, running
from django_natskv.server._supervisor import BusyError, StartError, Supervisor


def serve(
    directory: Path | None = None,
    *,
    port: int = 0,
    log: IO[Any],
    announce: Callable[[EmbeddedServer], None],
) -> None:
    """Run the embedded server of ``directory`` until SIGINT, SIGTERM or SIGHUP, and end it then. Its data stays.

    ``port`` 0 takes the port of the last run if it is free, else any. ``log`` is a real file, to which nats-server
    writes. ``announce`` is called once, when the server is ready. Only the main thread may call this, for it catches
    signals; the previous handlers are restored. Other processes join the server meanwhile, as any embedded one.

    Raises ``ConnectFailed`` when one runs already (the message has its URL), the port is in use, there is no
    nats-server to run, or the directory cannot be used. Nothing is left running then.
    """
    with failures_named("be started"):
        place = prepare(directory)
        _refuse_second(place)
        binary = find_binary()
        binary_version(binary)
        supervisor = Supervisor(place, binary, None, log, port=port)
        try:
            announce(describe(place, supervisor.start()))
            supervisor.watch()
        except BusyError:
            _refuse_second(place)
            raise ConnectFailed(f"Another process is starting or ending the embedded server in {place}.") from None
        except StartError as error:
            raise ConnectFailed(f"The embedded server could not be started: {error}.") from error
        finally:
            supervisor.close()


def _refuse_second(place: Path) -> None:
    other = running(place)
    if other is not None:
        raise ConnectFailed(f"The embedded server in {place} runs already: {other.url} (process {other.pid}).")
