"""The map of settings: each key, what it takes, and the rules between keys.

Owns the closed maps at every level and how they become ``ConnectionSettings``. Must not read settings itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from django_natskv.conf import _relations, _values
from django_natskv.conf._problem import Problem, at, quoted
from django_natskv.conf._servers import Login, Server, check_servers, read_servers
from django_natskv.conf._values import Check, Value
from django_natskv.kv.settings import (
    ConnectionSettings,
    LocalCacheSettings,
    ReconnectSettings,
    RegistrySettings,
    TLSSettings,
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A rule between ``keys``. It is only asked when the value of each of them, or its absence, is sound."""

    keys: tuple[str, ...]
    check: Check


@dataclass(frozen=True, slots=True)
class ClosedMap:
    """A mapping with the keys of ``values`` and no others, and ``relations`` between them; read into ``result``."""

    result: Callable[..., Any]
    values: Mapping[str, Value]
    relations: tuple[Relation, ...] = ()

    def check(self, path: str, given: object) -> Iterator[Problem]:
        """Yield every problem of ``given``: of its keys, of their values, and between those that are sound."""
        if not isinstance(given, Mapping):
            hint = f"Give a mapping; its keys are {', '.join(self.values)}."
            yield Problem("E003", path, f"is {type(given).__name__}, not a mapping.", hint)
            return
        broken: set[object] = set()
        for key, value in given.items():
            for problem in self._check_key(path, key, value):
                yield problem
                if not problem.is_warning:
                    broken.add(key)
        for relation in self.relations:
            if broken.isdisjoint(relation.keys):
                yield from relation.check(path, given)

    def read(self, given: Mapping[str, Any]) -> Any:
        """Return ``result`` made from ``given``, which has no problems."""
        return self.result(**{key.lower(): self.values[key].read(value) for key, value in given.items()})

    def _check_key(self, path: str, key: object, value: object) -> Iterator[Problem]:
        if isinstance(key, str) and key in self.values:
            yield from self.values[key].check(at(path, key), value)
            return
        close = get_close_matches(key.upper(), self.values, n=1) if isinstance(key, str) else []
        hint = "".join(f'Did you mean "{guess}"? ' for guess in close) + f"The keys are {', '.join(self.values)}."
        yield Problem("E004", path, f"has an unknown key {quoted(key)}.", hint)


def _nested(closed: ClosedMap) -> Value:
    return Value(closed.check, closed.read)


def _to_settings(
    servers: tuple[Server, ...] | None = None, tls: TLSSettings | None = None, **fields: Any
) -> ConnectionSettings:
    secure = any(server.secure for server in servers or ())
    if secure or (tls and tls != TLSSettings()):
        fields["tls"] = tls or TLSSettings()
    if servers is not None:
        # An empty list is refused, so what names no server is the embedded one.
        fields.update(servers=tuple(server.url for server in servers), embedded=not servers)
    for server in servers or ():
        if server.login != Login():
            fields.update(user=server.login.user, password=server.login.password, token=server.login.token)
    return ConnectionSettings(**fields)


_TLS = ClosedMap(
    TLSSettings,
    {
        "CA": _values.FILE,
        "CERT": _values.FILE,
        "KEY": _values.FILE,
        "HOSTNAME": _values.TEXT,
        "HANDSHAKE_FIRST": _values.FLAG,
    },
    (Relation(("CERT", "KEY"), _relations.certificate_with_key),),
)

_RECONNECT = ClosedMap(
    ReconnectSettings,
    {
        "MAX": _values.whole(-1, "a number of attempts, or -1 for no limit"),
        "WAIT": _values.SECONDS,
        "MAX_WAIT": _values.SECONDS,
    },
    (Relation(("WAIT", "MAX_WAIT"), _relations.waits_in_order),),
)

_LOCAL_CACHE = ClosedMap(
    LocalCacheSettings,
    {
        "MAX_BYTES": _values.whole(1, "a number of bytes above 0"),
        "WAIT": _values.PATIENCE,
        "SNAPSHOT_DIR": _values.PATH,
    },
)

_REGISTRY = ClosedMap(RegistrySettings, {"CREATE": _values.FLAG})

CONNECTION = ClosedMap(
    _to_settings,
    {
        "SERVERS": Value(check_servers, read_servers),
        "NAME": _values.TEXT,
        "USER": _values.TEXT,
        "PASSWORD": _values.TEXT,
        "TOKEN": _values.TEXT,
        "CREDENTIALS": _values.CREDENTIALS,
        "NKEY_SEED": _values.SEED,
        "TLS": _nested(_TLS),
        "CONNECT_TIMEOUT": _values.SECONDS,
        "REQUEST_TIMEOUT": _values.SECONDS,
        "RECONNECT": _nested(_RECONNECT),
        "DOMAIN": _values.DOMAIN,
        "API_PREFIX": _values.PREFIX,
        "INBOX_PREFIX": _values.PREFIX,
        "CODEC": _values.CODEC,
        "BUCKETS": _values.BUCKETS,
        "LOCAL_CACHE": _nested(_LOCAL_CACHE),
        "REGISTRY": _nested(_REGISTRY),
    },
    (
        Relation(("USER", "PASSWORD"), _relations.half_a_login),
        Relation(_relations.LOGIN_KEYS, _relations.one_login),
        Relation((*_relations.LOGIN_KEYS, "SERVERS"), _relations.no_login_twice),
        Relation(("DOMAIN", "API_PREFIX"), _relations.one_prefix),
        Relation(("SERVERS", "TLS"), _relations.no_tls_when_embedded),
    ),
)


def build(given: Mapping[str, Any]) -> ConnectionSettings:
    """Return the settings of one connection from ``given``, which has no problems."""
    settings: ConnectionSettings = CONNECTION.read(given)
    return settings
