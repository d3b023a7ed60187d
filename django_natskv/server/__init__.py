"""The embedded development server: one real nats-server a project, shared by its local processes.

Owns how it is found, started, joined and stopped (ADR 0006). Must not know Django, the facade or nats-py: the
process that looks after the server imports this package bare.
"""

from __future__ import annotations

from django_natskv.server._binary import MINIMUM_VERSION, binary_version, find_binary
from django_natskv.server._directory import default_directory
from django_natskv.server._foreground import serve
from django_natskv.server._join import EmbeddedServer, ensure_running, running, stop

__all__ = [
    "MINIMUM_VERSION",
    "EmbeddedServer",
    "binary_version",
    "default_directory",
    "ensure_running",
    "find_binary",
    "running",
    "serve",
    "stop",
]
