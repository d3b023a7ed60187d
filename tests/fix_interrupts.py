"""Signals whose handlers raise, at every moment at which one may: what they must not leave behind.

Owns the moments; knows nothing of what is interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class Stopped(BaseException):
    """What a signal's handler raises, as Ctrl-C does."""


def interrupted_at(moment: int, do: Callable[[], Any], *modules: ModuleType) -> bool:
    """Raise in ``do`` at the so many-th moment at which a handler may run in ``modules``; tell whether it came to that.

    Handlers run where a function begins and where a call of one in C has ended.
    """
    files = {module.__file__ for module in modules}
    left = moment

    def profile(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_filename in files:
            left -= 1
            if not left:
                raise Stopped

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        do()
    except Stopped:
        return True
    finally:
        sys.setprofile(before)
    return False
