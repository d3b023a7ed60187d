"""Key-value buckets of NATS JetStream for Django: the package's front door.

Owns the two public names ``connections`` and ``__version__``. Must not import anything at import time, so that
``django_natskv.kv`` can be used without Django and nothing connects or reads settings before it is asked to.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_natskv.connections import connections

__version__ = "0.1.0"

__all__ = ["__version__", "connections"]


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        # Importing the submodule ``django_natskv.connections`` makes the import system bind the module under this very
        # name. Whoever imported it first would then decide whether ``from django_natskv import connections`` gives the
        # connections or the module they live in.
        if name == "connections" and isinstance(value, ModuleType):
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "connections":
        from django_natskv.connections import connections as found  # noqa: PLC0415 - lazy, see the module's docstring

        globals()["connections"] = found
        return found
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
