"""Make one connected nats-py client for one server, or say in our own words why it cannot be.

Owns authentication, encryption and the reasons of a failed connect. Knows nothing of what the connection is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nats.aio.client import RawCredentials
from nats.errors import NoServersError

from django_natskv.exceptions import AuthInvalid, ConnectFailed, OperationalError, PermissionsViolation
from django_natskv.kv._loop import cut_off
from django_natskv.kv._nats.lean import LeanClient
from django_natskv.kv.settings import ConnectionSettings, TLSSettings

OLDEST_SERVER = (2, 11)
PING_INTERVAL = 1  # seconds; with two pings outstanding a half-open line is noticed in about 3 s (F11)
CLOSE_TIMEOUT = 0.1  # seconds that a client gets to close in order; the end of the process waits for it

_VIOLATION = re.compile(r'permissions violation for (publish|subscription)\b.*? (?:to|of) "([^"]*)"', re.IGNORECASE)
# Names of our own consumers are random: the permission is for any.
_MADE_UP = re.compile(r"(?<=\.)natskv-[0-9a-f]{16}\Z")
_LAST_WORDS = re.compile(rb"^-ERR '([^'\r\n]*)'", re.MULTILINE)
_AUTH = ("authorization violation", "authentication", "user jwt", "nonce", "authorization timeout")

OnError = Callable[[Exception], Awaitable[None]]
OnEnd = Callable[[], None]


class _Refused(Exception):  # noqa: N818 - never seen outside
    """Carries the first error of a connect through nats-py, which would swallow it and try again."""


class _Plain(Exception):  # noqa: N818 - never seen outside
    """TLS was asked for and the line is not encrypted (F24)."""


class _GuardedClient(LeanClient):
    """A client that logs in on an encrypted line only, where one was asked for."""

    must_encrypt = False

    def _connect_command(self) -> bytes:
        # Every credential passes here, signatures and JWTs included: the last moment to refuse a plain line (F24).
        if self.must_encrypt:
            writer = getattr(self._transport, "_io_writer", None)
            if writer is None or writer.get_extra_info("ssl_object") is None:
                raise _Plain
        return super()._connect_command()


class Dialled:
    """A connected client with the callbacks that its owner may set once it is in use."""

    def __init__(self, *, must_encrypt: bool = False) -> None:
        self.client = _GuardedClient()
        self.client.must_encrypt = must_encrypt
        self.on_error: OnError | None = None
        self.on_end: OnEnd | None = None
        self.closed = False
        self.violations: list[Violation] = []

    def watch(self, on_error: OnError, on_end: OnEnd) -> None:
        """Tell of asynchronous errors and of the end from now on. ``on_end`` may be called more than once."""
        self.on_error = on_error
        self.on_end = on_end
        self.client.read_directly()
        reading = self.client._reading_task  # noqa: SLF001 - nats-py has no public way to ask
        if reading is None or reading.done():
            self.closed = True
        else:
            # nats-py calls back after it has closed, and a dead line can keep it from closing for long; when its read
            # loop breaks, it never does, and goes on as if connected (F7, F8). The end of that loop tells of both.
            reading.add_done_callback(_forgive)
            reading.add_done_callback(lambda _task: on_end())

    async def error_cb(self, error: Exception) -> None:
        """Receive nats-py's asynchronous errors: fatal while connecting, the owner's afterwards."""
        if self.on_error is not None:
            await self.on_error(error)
            return
        violation = parse_violation(str(error))
        if violation:
            self.violations.append(violation)
        elif not self.client.is_connected and not self.closed:
            raise _Refused from error

    async def closed_cb(self) -> None:
        """Receive the end of the client, whatever ended it."""
        self.closed = True
        if self.on_end is not None:
            self.on_end()

    def mark_encrypted(self) -> None:
        """Tell asyncio's protocol of the encryption that nats-py added; it would log a warning at each line's end."""
        writer = self._writer
        if writer is not None and writer.get_extra_info("ssl_object") is not None:
            protocol: Any = writer.transport.get_protocol()
            protocol._over_ssl = True  # noqa: SLF001 - what asyncio's own start_tls sets

    def cut_off(self) -> None:
        """Let go of an inherited socket in a forked child without a word to the server, which the parent talks to."""
        writer = self._writer
        sock = writer.get_extra_info("socket") if writer is not None else None
        if sock is not None and sock.fileno() >= 0:
            cut_off(sock.fileno())

    async def close(self) -> None:
        """Close the client; never raises, never takes longer than ``CLOSE_TIMEOUT``."""
        self.closed = True
        writer, reading = self._writer, self.client._reading_task  # noqa: SLF001 - nats-py has no public way to ask
        if reading is not None:
            reading.add_done_callback(_forgive)
        try:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.client.close(), CLOSE_TIMEOUT)
        finally:  # also when that is cancelled; and nats-py may have let go of the line, which is open still
            _abort(writer)
            self.abort()

    def abort(self) -> None:
        """Drop the line without a word: nats-py, and TLS beneath it, would wait for a peer that may be gone."""
        _abort(self._writer)

    @property
    def last_words(self) -> str:
        """Why the server has closed the line in the middle of a connect, where nats-py has not read it; else ""."""
        reader = getattr(self.client._transport, "_io_reader", None)  # noqa: SLF001 - nats-py has no public way to ask
        found = _LAST_WORDS.search(bytes(getattr(reader, "_buffer", b"")))
        return found[1].decode("utf-8", "replace") if found else ""

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        return getattr(self.client._transport, "_io_writer", None)  # noqa: SLF001 - nats-py has no public way to ask


def _abort(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.transport.abort()


def _forgive(reading: asyncio.Task[Any]) -> None:
    """Take notice of the error that ended nats-py's read loop, or asyncio would log it, with a traceback.

    When a line is gone it closes the client, sends on that line what was yet to be sent, and fails at that.
    """
    if not reading.cancelled():
        reading.exception()


class Violation(NamedTuple):
    """What the server refused: to "publish" or for a "subscription"; ``small`` is the subject in small letters."""

    action: str
    small: str
    subject: str  # as it was sent, or "" where that is not known

    def concerns(self, subject: str) -> bool:
        """Tell whether it is about ``subject``: for all that is known, where only its letters are."""
        return subject == self.subject if self.subject else subject.lower() == self.small


def parse_violation(text: str, line: bytes = b"") -> Violation | None:
    """Return what the server refused, if ``text`` is about that; ``line`` is how it said so, where that is known.

    nats-py makes small letters of the text (F12), and two keys may differ in nothing else.
    """
    found = _VIOLATION.search(text)
    if found is None:
        return None
    small = found[2].lower()
    said = _VIOLATION.search(line.decode("utf-8", "replace"))
    return Violation(found[1].lower(), small, said[2] if said and said[2].lower() == small else "")


async def dial(url: str, settings: ConnectionSettings, *, tls_name: str = "") -> Dialled:
    """Connect to the server at ``url``; ``tls_name`` is in its certificate where that is not the host of ``url``.

    Raises ``AuthInvalid`` when the server refuses the credentials and ``ConnectFailed`` for everything else, within
    ``settings.connect_timeout`` seconds. Nothing is left open then.
    """
    dialled = Dialled(must_encrypt=settings.tls is not None)
    try:
        options = _options(dialled, settings, tls_name)
        await asyncio.wait_for(dialled.client.connect(servers=[url], **options), settings.connect_timeout)
        dialled.mark_encrypted()
        _check_version(url, dialled.client)
    except BaseException as error:
        await dialled.close()
        if isinstance(error, OperationalError) or not isinstance(error, Exception):
            raise
        raise _explain(url, error, settings, dialled) from None
    return dialled


def _options(dialled: Dialled, settings: ConnectionSettings, tls_name: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": settings.name or None,
        "error_cb": dialled.error_cb,
        "closed_cb": dialled.closed_cb,
        "allow_reconnect": False,
        "connect_timeout": settings.connect_timeout,
        "reconnect_time_wait": 0,
        "max_reconnect_attempts": 1,
        "dont_randomize": True,  # there is one, and Python's shared source of chance is the program's own
        "ping_interval": PING_INTERVAL,
        "pending_size": 0,  # a publish without a connection fails at once instead of going out later (F10)
        "inbox_prefix": settings.inbox_prefix or "_INBOX",
    }
    options.update(_credentials(settings))
    if settings.tls is not None:
        options["tls"] = _ssl_context(settings.tls)
        options["tls_hostname"] = settings.tls.hostname or tls_name or None
        options["tls_handshake_first"] = settings.tls.handshake_first
    return options


def _credentials(settings: ConnectionSettings) -> dict[str, Any]:
    if settings.user:
        return {"user": settings.user, "password": settings.password}
    if settings.token:
        return {"token": settings.token}
    if settings.credentials:
        text = settings.credentials
        if "BEGIN NATS USER JWT" not in text:
            text = _read("CREDENTIALS", text)
        # nats-py reads line by line and takes the end of a line off by position.
        return {"user_credentials": RawCredentials("\n".join(text.splitlines()) + "\n")}
    if settings.nkey_seed:
        seed = settings.nkey_seed.strip()
        if not re.fullmatch(r"SU[A-Z2-7]+", seed):
            seed = _read("NKEY_SEED", seed).strip()
        return {"nkeys_seed_str": seed}
    return {}


def _read(setting: str, path: str) -> str:
    try:
        return Path(path).expanduser().read_text()
    except (OSError, ValueError, RuntimeError):
        # Not shown, not even by the system: a mistyped secret looks like a path.
        message = f"{setting} is neither a secret of the right form nor the path of a file that can be read."
        raise ConnectFailed(message) from None


def _ssl_context(tls: TLSSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None, password=_no_passphrase)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        message = f"The files that TLS names for CA, CERT and KEY cannot be used: {reason}."
        raise ConnectFailed(message) from None
    return context


def _no_passphrase() -> str:
    # Without this OpenSSL would ask for one on the terminal, and everything waits until somebody types.
    message = "The file that TLS names for KEY is encrypted, and there is no passphrase for it: give one that is not."
    raise ConnectFailed(message)


def _check_version(url: str, client: LeanClient) -> None:
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


def _explain(url: str, error: Exception, settings: ConnectionSettings, dialled: Dialled) -> OperationalError:
    """Return our error for whatever ended a connect."""
    info: Mapping[str, Any] = dialled.client._server_info  # noqa: SLF001 - what the server had told of itself by then
    cause = error.__cause__ if isinstance(error, _Refused) and error.__cause__ else error
    reason = dialled.last_words or str(cause).removeprefix("nats: ").strip().strip("'") or type(cause).__name__
    if isinstance(cause, _Plain):
        return ConnectFailed(
            f"TLS is asked for and the server at {url} does not offer it. No credentials were sent. "
            "Enable TLS on the server, or remove TLS from the settings."
        )
    if any(sign in reason.lower() for sign in _AUTH):
        return AuthInvalid(f"The server at {url} refused the credentials: {reason}.", reason=reason)
    if isinstance(cause, ModuleNotFoundError) and cause.name == "nkeys":
        return ConnectFailed('Credentials and nkeys need the nkeys package: pip install "django-natskv[nkeys]".')
    advice = _tls_advice(cause, settings.tls, info)
    if isinstance(cause, ssl.SSLError):
        return ConnectFailed(f"TLS with the server at {url} failed: {reason}.{advice}")
    if isinstance(cause, TimeoutError):
        return ConnectFailed(f"The server at {url} did not answer within {settings.connect_timeout:g} s.{advice}")
    if isinstance(cause, OSError | NoServersError):
        silent = "The connection to" if info else "Nothing answers at"
        return ConnectFailed(f"{silent} {url}{' failed' if info else ''}: {reason}.{advice}")
    if settings.credentials or settings.nkey_seed:
        # The text of an error about a secret may hold the secret.
        return ConnectFailed(f"Connecting to {url} with the configured credentials failed: {type(cause).__name__}.")
    return ConnectFailed(f"Connecting to {url} failed: {reason}.")


def _tls_advice(cause: BaseException, tls: TLSSettings | None, info: Mapping[str, Any]) -> str:
    """Return a sentence on what the settings of TLS probably lack."""
    if info.get("tls_required") and tls is None:
        return " The server requires TLS: set it in the settings, with the CA that signed its certificate."
    if tls is None:
        return ""
    if info.get("tls_verify") and not tls.cert:
        return " The server asks for a client certificate: set CERT and KEY of TLS."
    if info or not isinstance(cause, ssl.SSLError | TimeoutError):
        return ""
    if tls.handshake_first:
        return " HANDSHAKE_FIRST is set, and the server may expect to speak first."
    return " It may be waiting for the TLS handshake: HANDSHAKE_FIRST."


def refused(violation: Violation, subject: str, what: str) -> PermissionsViolation:
    """Return the error for a violation: what was refused, and the permission that is missing."""
    action = "subscribe" if violation.action == "subscription" else "publish"
    if ".CONSUMER." in subject:
        subject = _MADE_UP.sub("*", subject)
    message = f'The server refused {what}: grant this user the permission to {action} to "{subject}".'
    return PermissionsViolation(message, action=action, subject=subject)
