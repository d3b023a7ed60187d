"""The fixtures of the whole suite, each kept in the ``fix_*`` module that it belongs to."""

from __future__ import annotations

pytest_plugins = [
    "tests.fix_servers",
    "tests.fix_proxy",
    "tests.fix_connections",
    "tests.fix_credentials",
    "tests.fix_embedded",
    "tests.fix_facade",
    "tests.fix_commands",
]
