"""The connections of this process, one an alias of ``settings.NATSKV``: made on first use, shared by all threads.

Owns which connection an alias means now, and their end, and brings the facade's codec "pickle". Knows nothing of
requests or entries.
"""

from __future__ import annotations

import atexit
import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.core.signals import setting_changed

from django_natskv import conf, kv, server, signals
from django_natskv.conf.project import project_directory


class Connection(kv.Connection):
    """The connection of one alias of ``settings.NATSKV``."""

    def __init__(self, alias: str, settings: kv.ConnectionSettings) -> None:
        listener = signals.SignalListener()
        super().__init__(settings, resolve=_resolve if settings.embedded else None, listener=listener)
        self.alias = alias
        listener.connection = self

    def __repr__(self) -> str:
        return f"<Connection {self.alias}: {self.status}>"


class Connections:
    """The connections of this process by alias: ``connections["default"]``."""

    def __init__(self) -> None:
        self._made: dict[str, Connection] = {}

    def __getitem__(self, alias: str) -> Connection:
        """Return the connection of ``alias``; Django's ``ConnectionDoesNotExist`` when there is no such alias.

        Raises ``ImproperlyConfigured`` when its settings are wrong.
        """
        made = self._made.get(alias)
        if made is None:
            # Two threads may each make one here and one of them is dropped, unused: neither has connected yet.
            made = self._made.setdefault(alias, Connection(alias, conf.connection_settings(alias)))
        return made

    def __iter__(self) -> Iterator[str]:
        """Iterate over the configured aliases."""
        return iter(conf.aliases())

    def close_all(self) -> None:
        """Close every connection that was made; the next use of each connects anew."""
        for connection in list(self._made.values()):
            connection.close()

    def settings_changed(self, *, setting: str, **_: Any) -> None:
        """Forget and close what was made from settings that are no longer in force."""
        if setting in ("NATSKV", "BASE_DIR"):
            made, self._made = self._made, {}
            for connection in made.values():
                connection.close()


def _resolve(settings: kv.ConnectionSettings) -> kv.ConnectionSettings:
    """Return ``settings`` with the development server's address in them, having started it where it does not run."""
    found = server.ensure_running(server.default_directory(project_directory()))
    return replace(settings, servers=(found.url,), user=found.user, password=found.password)


def _pickle() -> kv.Codec:
    # By name, when it is asked for: the facade knows no Django, and so no SECRET_KEY (ADR 0002).
    codec: kv.Codec = importlib.import_module("django_natskv.cache.pickling").PickleCodec()
    return codec


connections = Connections()
kv.codecs.register("pickle", _pickle)
setting_changed.connect(connections.settings_changed, dispatch_uid="django_natskv.connections")
atexit.register(connections.close_all)
