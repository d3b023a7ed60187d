"""Make one connected nats-py client for one server, or say in our own words why it cannot be.

Owns authentication, encryption and the reasons of a failed connect. Knows nothing of what the connection is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient, RawCredentials
from nats.errors import NoServersError

from django_natskv.exceptions import AuthInvalid, ConnectFailed, OperationalError, PermissionsViolation
from django_natskv.kv.driver import cut_off
from django_natskv.kv.settings import ConnectionSettings, TLSSettings

OLDEST_SERVER = (2, 11)
PING_INTERVAL = 1  # seconds; with two pings outstanding a half-open line is noticed in about 3 s (F11)
CLOSE_TIMEOUT = 0.5  # seconds that a client gets to close in order

_VIOLATION = re.compile(r'permissions violation for (publish|subscription)\b.*? (?:to|of) "([^"]*)"')
_AUTH = ("authorization violation", "authentication", "user jwt", "nonce", "authorization timeout")

OnError = Callable[[Exception], Awaitable[None]]
OnClosed = Callable[[], Awaitable[None]]


class _Refused(Exception):  # noqa: N818 - never seen outside
    """Carries the first error of a connect through nats-py, which would swallow it and try again."""


class _Plain(Exception):  # noqa: N818 - never seen outside
    """TLS was asked for and the line is not encrypted (F24)."""


class Dialled:
    """A connected client with the callbacks that its owner may set once it is in use."""

    def __init__(self) -> None:
        self.client = NatsClient()
        self.on_error: OnError | None = None
        self.on_closed: OnClosed | None = None
        self.closed = False
        self.violations: list[tuple[str, str]] = []

    async def error_cb(self, error: Exception) -> None:
        """Receive nats-py's asynchronous errors: fatal while connecting, the owner's afterwards."""
        violation = parse_violation(str(error))
        if violation:
            self.violations.append(violation)
        elif not self.client.is_connected and not self.closed and self.on_error is None:
            raise _Refused from error
        if self.on_error is not None:
            await self.on_error(error)

    async def closed_cb(self) -> None:
        """Receive the end of the client, whatever ended it."""
        self.closed = True
        if self.on_closed is not None:
            await self.on_closed()

    def cut_off(self) -> None:
        """Let go of an inherited socket in a forked child without a word to the server, which the parent talks to."""
        writer = getattr(self.client._transport, "_io_writer", None)  # noqa: SLF001 - nats-py has no public way to ask
        sock = writer.get_extra_info("socket") if writer is not None else None
        if sock is not None and sock.fileno() >= 0:
            cut_off(sock.fileno())

    async def close(self) -> None:
        """Close the client; never raises, never takes longer than ``CLOSE_TIMEOUT``."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), CLOSE_TIMEOUT)


def parse_violation(text: str) -> tuple[str, str] | None:
    """Return the action and the lower-cased subject that the server refused, if ``text`` is about that (F12)."""
    found = _VIOLATION.search(text.lower())
    return (found[1], found[2]) if found else None


async def dial(url: str, settings: ConnectionSettings) -> Dialled:
    """Connect to the server at ``url``.

    Raises ``AuthInvalid`` when the server refuses the credentials and ``ConnectFailed`` for everything else, within
    ``settings.connect_timeout`` seconds. Nothing is left open then.
    """
    dialled = Dialled()
    try:
        options = _options(dialled, settings)
        await asyncio.wait_for(dialled.client.connect(servers=[url], **options), settings.connect_timeout)
        _check_encryption(dialled.client, settings)
        _check_version(url, dialled.client)
    except BaseException as error:
        await dialled.close()
        if isinstance(error, OperationalError) or not isinstance(error, Exception):
            raise
        raise _explain(url, error, settings) from None
    return dialled


def _options(dialled: Dialled, settings: ConnectionSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": settings.name or None,
        "error_cb": dialled.error_cb,
        "closed_cb": dialled.closed_cb,
        "allow_reconnect": False,
        "connect_timeout": settings.connect_timeout,
        "reconnect_time_wait": 0,
        "max_reconnect_attempts": 1,
        "ping_interval": PING_INTERVAL,
        "pending_size": 0,  # a publish without a connection fails at once instead of going out later (F10)
        "inbox_prefix": settings.inbox_prefix or "_INBOX",
    }
    options.update(_credentials(dialled.client, settings))
    if settings.tls is not None:
        options["tls"] = _ssl_context(settings.tls)
        options["tls_hostname"] = settings.tls.hostname or None
        options["tls_handshake_first"] = settings.tls.handshake_first
    return options


def _credentials(client: NatsClient, settings: ConnectionSettings) -> dict[str, Any]:
    def guarded(secret: str) -> Callable[[], str]:
        # nats-py asks for it at the moment of sending: the last one at which a plain line can be refused (F24).
        def reveal() -> str:
            _check_encryption(client, settings)
            return secret

        return reveal

    if settings.user:
        return {"user": guarded(settings.user), "password": guarded(settings.password)}
    if settings.token:
        return {"token": guarded(settings.token)}
    if settings.credentials:
        text = settings.credentials
        is_text = "BEGIN NATS USER JWT" in text
        return {"user_credentials": RawCredentials(text) if is_text else str(Path(text).expanduser())}
    if settings.nkey_seed:
        seed = settings.nkey_seed.strip()
        is_seed = re.fullmatch(r"SU[A-Z2-7]+", seed) is not None
        return {"nkeys_seed_str": seed} if is_seed else {"nkeys_seed": str(Path(seed).expanduser())}
    return {}


def _ssl_context(tls: TLSSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context


def _check_encryption(client: NatsClient, settings: ConnectionSettings) -> None:
    if settings.tls is None:
        return
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001 - nats-py has no public way to ask
    if writer is None or writer.get_extra_info("ssl_object") is None:
        raise _Plain


def _check_version(url: str, client: NatsClient) -> None:
    version = client.connected_server_version
    try:
        found = (version.major, version.minor)
    except ValueError:  # a build of the operator's own, with a name instead of a number: let it try
        return
    if found < OLDEST_SERVER:
        oldest = ".".join(map(str, OLDEST_SERVER))
        message = (
            f"The server at {url} is nats-server {found[0]}.{found[1]}, which ignores what a key-value bucket is asked "
            f"for without saying so. Upgrade it to {oldest} or later."
        )
        raise ConnectFailed(message)


def _explain(url: str, error: Exception, settings: ConnectionSettings) -> OperationalError:
    cause = error.__cause__ if isinstance(error, _Refused) and error.__cause__ else error
    reason = str(cause).removeprefix("nats: ").strip().strip("'")
    if isinstance(cause, _Plain):
        return ConnectFailed(
            f"TLS is asked for and the server at {url} does not offer it. No credentials were sent. "
            "Enable TLS on the server, or remove TLS from the settings."
        )
    if any(sign in reason.lower() for sign in _AUTH):
        return AuthInvalid(f"The server at {url} refused the credentials: {reason}.", reason=reason)
    if isinstance(cause, ModuleNotFoundError) and cause.name == "nkeys":
        return ConnectFailed('Credentials and nkeys need the nkeys package: pip install "django-natskv[nkeys]".')
    if isinstance(cause, ssl.SSLError):
        return ConnectFailed(f"TLS with the server at {url} failed: {reason or type(cause).__name__}.")
    if isinstance(cause, TimeoutError):
        return ConnectFailed(f"The server at {url} did not answer within {settings.connect_timeout:g} s.")
    if isinstance(cause, OSError | NoServersError):
        return ConnectFailed(f"Nothing answers at {url}: {reason or type(cause).__name__}.")
    if settings.credentials or settings.nkey_seed:
        # The text of an error about a secret may hold the secret.
        return ConnectFailed(f"Connecting to {url} with the configured credentials failed: {type(cause).__name__}.")
    return ConnectFailed(f"Connecting to {url} failed: {reason or type(cause).__name__}.")


def refused(violation: tuple[str, str], subject: str) -> PermissionsViolation:
    """Return the error for a violation: what was refused, and the permission that is missing."""
    action = "subscribe" if violation[0] == "subscription" else "publish"
    message = f'The server refused this user: grant the permission to {action} to "{subject}".'
    return PermissionsViolation(message, action=action, subject=subject)
