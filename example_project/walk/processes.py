"""Other processes: ``manage.py`` as one types it, and how to start something so that this process ends it.

Owns where they are started and how they end. Knows nothing of what they do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from example_project.transcript import Transcript

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
ROOT = MANAGE.parent.parent
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 30.0  # seconds to wait for another process before the walk has failed; a busy machine takes its time


def manage(transcript: Transcript, *arguments: str) -> int:
    """Run ``manage.py`` to its end, show what it says and return its exit status."""
    with started(transcript, [str(MANAGE), *arguments]) as process:
        out, _ = process.communicate(timeout=60)
    transcript.output(out)
    return process.returncode


@contextmanager
def started(
    transcript: Transcript, arguments: Sequence[str], *, out: int | IO[str] = subprocess.PIPE, fd: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Show our own interpreter with ``arguments``, and run it while the block does, where Ctrl-C does not reach it.

    This process ends it, without its own last words. ``fd`` is a file descriptor that it inherits.
    """
    transcript.command([short(sys.executable), *map(short, arguments)])
    with (
        _signals_held_back() as release,
        subprocess.Popen(  # noqa: S603 - our own command, in our own interpreter
            [sys.executable, *arguments],
            cwd=None if fd is None else ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
            pass_fds=() if fd is None else (fd,),
        ) as process,
    ):
        try:
            release()
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a process and what it has started; by force if it does not listen."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _signals_held_back() -> Iterator[Callable[[], None]]:
    """Let what ends this process wait until it is released: a process that was started half is ended by nobody."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}

    def release() -> None:
        while before:
            signal.signal(*before.popitem())
        while came:
            signal.raise_signal(came.pop())

    try:
        yield release
    finally:
        release()


def short(path: Path | str) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else str(path)
