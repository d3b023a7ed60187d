"""The files of dumps: one that appears whole or not at all, and one that is read twice.

Owns where the bytes are. Must not know what they say.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from django.core.management.base import CommandError

from django_natskv.exceptions import NatsKVError, UsageError

if sys.platform != "win32":
    import fcntl

STANDARD = "-"
_SUFFIX = ".part"


def called(name: str) -> str:
    """Return how a file to read is called in words."""
    return "stdin" if name == STANDARD else name


@contextlib.contextmanager
def whole_file(name: str) -> Iterator[IO[bytes]]:
    """Give a file to write that takes the place of ``name`` when all went well, with its owner's permissions only.

    What is not whole is beside it under another name: removed after an error, and written over by the next run where
    a process was killed. Raises ``CommandError`` where that cannot be, and when another process is at it;
    ``UsageError`` for a name that is empty.
    """
    _check(name)
    path = Path(os.path.realpath(name))
    if path.exists() and not path.is_file():
        raise CommandError(f"{name} is no regular file: to write to something else, lead stdout there.")
    aside = path.with_name(path.name + _SUFFIX)
    try:
        with _alone(aside, name) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                aside.replace(path)
            except BaseException:
                aside.unlink(missing_ok=True)
                raise
    except NatsKVError:
        raise  # one that took too long is an OSError too
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error.strerror or error}.") from error


def _check(name: str) -> None:
    if not name:
        raise UsageError("The name of the file is empty.")


def _alone(aside: Path, name: str) -> IO[bytes]:
    """Open the file for this process alone, emptied: the last one that was at it may have been killed."""
    while True:
        # Not through a link that somebody else may have laid there.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(aside, flags, 0o600), "r+b", buffering=2**16)
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise CommandError(f"Another dump is being written to {name}.") from None
            os.fchmod(file.fileno(), 0o600)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), aside.stat()):
                file.truncate()
                return file
        file.close()  # it was finished and renamed in between


@contextlib.contextmanager
def readable_twice(name: str) -> Iterator[IO[bytes]]:
    """Give a file to read and seek in; what cannot be read twice, as a pipe, is kept aside meanwhile.

    Raises ``CommandError`` where it cannot be read, ``UsageError`` where there is no stdin.
    """
    _check(name)
    if name == STANDARD and sys.stdin is None:
        raise UsageError("There is no stdin to read from.")
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if name == STANDARD else stack.enter_context(Path(name).open("rb"))
            if name == STANDARD or not file.seekable():
                aside = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, aside, 2**20)
                aside.seek(0)
                file = aside
        except OSError as error:
            raise CommandError(f"{called(name)} cannot be read: {error.strerror or error}.") from error
        yield file
