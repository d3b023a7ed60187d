"""The supervisor as a background process: leaves its starter, reports once, then writes to the log.

Owns that process's beginning and end. Must not know how it is asked for.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from django_natskv.server import _files
from django_natskv.server._supervisor import BUSY, READY, BusyError, StartError, Supervisor

_LOG_LIMIT = 2**20  # bytes; a longer log is put aside when a server starts
_TAIL = 3  # lines of the log that a failed start quotes


def main() -> None:
    """Run with the arguments DIRECTORY, BINARY and GRACE, and write "ready", "busy" or what failed to stdout."""
    directory, binary, grace = sys.argv[-3:]
    # The starter waits for this process only: its child belongs to nobody, so that no zombie is left to anyone.
    if os.fork():
        os._exit(0)
    os.umask(0o077)
    os.chdir("/")
    log = _open_log(Path(directory))
    supervisor = Supervisor(Path(directory), Path(binary), float(grace), log)
    try:
        report = _start(supervisor)
        if _tell(report, log) == READY:
            supervisor.watch()
    finally:
        supervisor.close()


def _start(supervisor: Supervisor) -> str:
    try:
        supervisor.start()
    except BusyError:
        return BUSY
    except StartError as error:
        supervisor.say(str(error))
        log = supervisor.directory / _files.LOG
        return " | ".join([f"{error}. The end of {log}:", *_tail(log)])
    except OSError as error:
        return str(error)
    return READY


def _tell(report: str, log: int) -> str:
    """Send the report and close the pipe to the starter, who may be gone by now."""
    with suppress(OSError):
        os.write(1, report.encode(errors="backslashreplace"))
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    return report


def _open_log(directory: Path) -> int:
    path = directory / _files.LOG
    if path.exists() and path.stat().st_size > _LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _tail(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if "natskv:" not in line][-_TAIL:]
