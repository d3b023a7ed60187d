"""Other processes: ``manage.py`` as one types it, and how to start something so that this process ends it.

Owns where they are started and how they end. Knows nothing of what they do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from example_project.transcript import Transcript

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
ROOT = MANAGE.parent.parent
PATIENCE = 30.0  # seconds to wait for another process before the walk has failed; a busy machine takes its time


def manage(transcript: Transcript, *arguments: str) -> int:
    """Run ``manage.py`` to its end, show what it says and return its exit status."""
    with started(transcript, [str(MANAGE), *arguments]) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    transcript.output(out)
    return process.returncode


def started(
    transcript: Transcript, arguments: Sequence[str], *, out: int | IO[str] = subprocess.PIPE, fd: int | None = None
) -> subprocess.Popen[str]:
    """Show and start our own interpreter with ``arguments``, where Ctrl-C does not reach it.

    This process ends it, without its own last words. ``fd`` is a file descriptor that it inherits.
    """
    transcript.command([short(sys.executable), *map(short, arguments)])
    return subprocess.Popen(  # noqa: S603 - our own command, in our own interpreter
        [sys.executable, *arguments],
        cwd=None if fd is None else ROOT,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        pass_fds=() if fd is None else (fd,),
    )


def end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """End processes and what they have started, all at once; by force those that do not listen."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def short(path: Path | str) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)
