"""The servers that a connection may be made to, and which of them takes it.

Owns what is known of a cluster and the race between its servers. Knows nothing of what a connection is for.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from urllib.parse import urlsplit

from django_natskv.exceptions import AuthInvalid, ConnectFailed, OperationalError
from django_natskv.kv import spread
from django_natskv.kv._nats.dial import Dialled, dial
from django_natskv.kv.settings import ConnectionSettings

logger = logging.getLogger("django_natskv.connection")

HEAD_START = 0.3  # seconds that one server has to answer before the next one is tried beside it


class Servers:
    """The servers of the settings, and those that a cluster told of."""

    def __init__(self) -> None:
        self._discovered: dict[str, None] = {}

    def learn(self, dialled: Dialled) -> None:
        """Remember the cluster's servers as the latest one told them: those told before may be gone for good."""
        told = dialled.client.discovered_servers
        if told:
            self._discovered = dict.fromkeys(server.netloc for server in told)

    async def dial_any(self, settings: ConnectionSettings) -> Dialled:
        """Try each known server once, in random order, until one takes us; one that keeps silent holds up no other."""
        attempts: set[asyncio.Task[Dialled]] = set()
        taken: Dialled | None = None
        errors: list[OperationalError] = []
        servers = self._known(settings)
        try:
            while taken is None and (servers or attempts):
                if servers:
                    server, tls_name = servers.pop()
                    attempts.add(asyncio.ensure_future(dial(server, settings, tls_name=tls_name)))
                timeout = HEAD_START if servers else None
                done, attempts = await asyncio.wait(attempts, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    error = attempt.exception()
                    if error is None and taken is None:
                        taken = attempt.result()
                    elif error is None:
                        attempts.add(attempt)  # one is enough
                    else:
                        errors.append(as_operational(error))
        finally:
            await _give_up(attempts, taken)
        if taken is None:
            # A refusal tells more than a silence.
            raise next((error for error in errors if isinstance(error, AuthInvalid)), errors[0])
        return taken

    def _known(self, settings: ConnectionSettings) -> list[tuple[str, str]]:
        """Return the URLs of all known servers in random order, each with the name in its certificate if it differs."""
        known = {urlsplit(server).netloc: (server, "") for server in settings.servers}
        first = urlsplit(settings.servers[0])
        for netloc in self._discovered:
            url = f"{first.scheme}://{netloc}"
            # Servers tell of each other by address, and certificates seldom hold addresses.
            known.setdefault(netloc, (url, (first.hostname or "") if _is_address(url) else ""))
        servers = list(known.values())
        spread.shuffle(servers)
        return servers


def as_operational(error: BaseException) -> OperationalError:
    """Return ``error`` if it is one of ours; what else ends an attempt to connect is a failed one, and logged."""
    if isinstance(error, OperationalError):
        return error
    logger.error("Connecting failed in a way that was not foreseen", exc_info=error)
    return ConnectFailed(f"Connecting failed: {type(error).__name__}.")


async def _give_up(attempts: set[asyncio.Task[Dialled]], taken: Dialled | None) -> None:
    """Cancel ``attempts`` and close what they bring; where that is broken off, drop it, and ``taken`` too."""
    for attempt in attempts:
        attempt.cancel()
        attempt.add_done_callback(_drop)
    try:
        for result in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(result, Dialled):
                await result.close()
    except BaseException:
        if taken is not None:
            taken.abort()
        raise


def _drop(attempt: asyncio.Task[Dialled]) -> None:
    """Leave no line open that nobody waits for: a loop that ends cancels again who cleans up after a first time."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


def _is_address(url: str) -> bool:
    try:
        ipaddress.ip_address(urlsplit(url).hostname or "")
    except ValueError:
        return False
    return True
