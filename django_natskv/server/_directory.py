"""The data directory of an embedded server: where it is, and that it is its owner's alone.

Owns that, and the words for what the system refuses there. Must not know the files in it but the lease.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django_natskv.exceptions import ConnectFailed
from django_natskv.server._files import LEASE

DIRECTORY_ENV = "NATSKV_EMBEDDED_DIR"
DIRECTORY_NAME = ".natskv"


def default_directory(project: Path | None = None) -> Path:
    """Return where the embedded server of a project keeps its files.

    ``NATSKV_EMBEDDED_DIR`` if it is set, else ``.natskv`` in ``project``, which is the current directory unless given.
    """
    named = os.environ.get(DIRECTORY_ENV)
    if not named:
        return (project or Path.cwd()) / DIRECTORY_NAME
    return Path(os.path.expanduser(named))  # noqa: PTH111 - pathlib's raises where there is no home directory


def resolve(directory: Path | None) -> Path:
    """Return the one name of ``directory``, or the default one, by which all processes lock it; ``ConnectFailed``."""
    place = directory or default_directory()
    try:
        return place.expanduser().resolve()
    except RuntimeError as error:  # nobody's home directory, or links that lead to each other
        raise ConnectFailed(f"The embedded server cannot keep its data in {place}: {error}") from error


def prepare(directory: Path | None) -> Path:
    """Make the directory, or close it to others, and return its one name.

    Raises ``ConnectFailed`` for a directory that others may read and that holds other things: it is not ours to close.
    """
    place = resolve(directory)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if place.stat().st_mode & 0o077:
        ours = place.name == DIRECTORY_NAME or (place / LEASE).exists() or not any(place.iterdir())
        if not ours:
            raise ConnectFailed(
                f"The embedded server cannot keep its data in {place}: it holds other files, and others may read it. "
                f"Name a directory of its own, or an empty one ({DIRECTORY_ENV})."
            )
        place.chmod(0o700)
    ignore = place / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
    return place


@contextmanager
def failures_named(what: str) -> Iterator[None]:
    """Turn what the system refuses into a ``ConnectFailed`` that says what the server cannot do ("be started")."""
    if sys.platform == "win32":
        raise ConnectFailed(
            "The embedded server needs Linux or macOS. On Windows run nats-server yourself and give its URL in SERVERS."
        )
    try:
        yield
    except OSError as error:
        raise ConnectFailed(f"The embedded server cannot {what}: {error}") from error
