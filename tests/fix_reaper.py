"""Nothing that the tests start outlives them, even when they are killed.

Owns a process that waits for the end of this one and then ends what is still on its list. Knows nothing of servers.
"""

from __future__ import annotations

import os
import subprocess
import sys

_REAP = """
import os, signal, sys
left = set()
for line in sys.stdin:
    (left.add if line[0] == "+" else left.discard)(int(line[1:]))
for pid in left:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""
_reapers: dict[int, subprocess.Popen[str]] = {}  # by the process that asked: a forked child's list is its own


def note_started(pid: int) -> None:
    """Have the process ``pid`` ended when this one has."""
    _tell(f"+{pid}")


def note_ended(pid: int) -> None:
    """Take that the process ``pid`` has ended, and that its number may come to mean another."""
    _tell(f"-{pid}")


def _tell(line: str) -> None:
    reaper = _reapers.get(os.getpid())
    if reaper is None:
        reaper = _reapers[os.getpid()] = subprocess.Popen(
            [sys.executable, "-c", _REAP], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        reaper.returncode = 0  # it ends after us: nobody waits for it
    assert reaper.stdin is not None
    print(line, file=reaper.stdin, flush=True)
