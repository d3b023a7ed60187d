"""What a connection needs to know, as frozen values.

Owns the types that ``django_natskv.conf`` fills from ``settings.NATSKV``. Knows nothing of Django and does not
validate: whoever builds one by hand is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """How to encrypt. Paths are file paths; an empty string means "not set"."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    hostname: str = ""
    handshake_first: bool = False


@dataclass(frozen=True, slots=True)
class ReconnectSettings:
    """How to come back: at most ``max`` attempts in a row (-1: for ever), waiting ``wait`` to ``max_wait`` seconds."""

    max: int = -1
    wait: float = 0.25
    max_wait: float = 5.0


@dataclass(frozen=True, slots=True)
class LocalCacheSettings:
    """Bounds of the local caches of a connection: bytes each, seconds to wait, a directory for snapshot files."""

    max_bytes: int = 64 * 2**20
    wait: float = 2.0
    snapshot_dir: str | None = None


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What is said of the registry: whether its first write may make a missing bucket."""

    create: bool = True


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """One alias of ``settings.NATSKV``, checked and complete.

    Secrets never show in ``repr``. ``tls`` is None when no TLS was asked for; with it, a connection is encrypted
    or refused (NATS-FACTS F24). ``servers`` hold no credentials: those of a URL are moved to ``user`` and so on.
    """

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    name: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    credentials: str = field(default="", repr=False)  # a path, or the text of a .creds file
    nkey_seed: str = field(default="", repr=False)  # a path, or the seed itself
    tls: TLSSettings | None = None
    connect_timeout: float = 2.0
    request_timeout: float = 2.0
    reconnect: ReconnectSettings = ReconnectSettings()
    domain: str | None = None
    api_prefix: str | None = None
    inbox_prefix: str | None = None
    codec: Any = "json"
    buckets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    local_cache: LocalCacheSettings = LocalCacheSettings()
    registry: RegistrySettings = RegistrySettings()
    embedded: bool = False  # SERVERS = "embedded": ``servers`` is filled when the server is known
