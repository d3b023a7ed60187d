"""Server URLs: what may stand in SERVERS.

Owns their grammar and takes the credentials out of them. Must not show a URL in a message: until it has been
understood, any part of it may be a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from django_natskv.conf._problem import Problem, at
from django_natskv.conf._values import broken_line, wrong_type

EMBEDDED = "embedded"
DEFAULT_PORT = 4222
MAX_PORT = 65_535
SCHEMES = ("nats", "tls")

_EXAMPLE = 'Write "nats://host:4222" or "tls://host:4222"; several servers are a list of such strings.'
_UNWRITABLE = re.compile(r"[\s\x00-\x1f\x7f]")
_URL = re.compile(
    r"(?P<scheme>[^:/@]+)://"
    r"(?:(?P<userinfo>[^/?#]*)@)?"
    r"(?P<host>\[[^\]/@]*\]|[^:/@?#\[\]]*)"
    r"(?::(?P<port>[^/?#]*))?/?\Z"
)
_HOST = re.compile(r"[\w.-]+\Z")


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials of a URL: a user with a password, or a token. All empty when it has none."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """One server: ``url`` without credentials, with its port; ``login`` what the credentials were."""

    url: str
    secure: bool
    login: Login


def check_servers(path: str, value: Any) -> Iterator[Problem]:
    """Yield the problems of a value of SERVERS."""
    if isinstance(value, str) and value == EMBEDDED:
        return
    if not isinstance(value, str | list | tuple):
        yield wrong_type(path, value, 'a URL, a list of URLs, or "embedded"')
        return
    if not value:
        yield Problem("E016", path, "names no server.", _EXAMPLE)
        return
    logins = set()
    for place, url in _places(path, value):
        server = _read(place, url)
        if isinstance(server, Problem):
            yield server
        elif server.login != Login():
            logins.add(server.login)
    if len(logins) > 1:
        yield Problem(
            "E015",
            path,
            "has servers with different credentials.",
            "A connection logs in as one user at all its servers: use the same credentials in every URL, in one URL, "
            "or outside the URLs.",
        )


def read_servers(value: Any) -> tuple[Server, ...]:
    """Return the servers of a value of SERVERS; those that cannot be read, and "embedded", are left out."""
    read = (_read(place, url) for place, url in _places("", value) if url != EMBEDDED)
    return tuple(server for server in read if isinstance(server, Server))


def _places(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, str):
        return [(path, value)]
    return [(at(path, position), url) for position, url in enumerate(value)]


def _read(path: str, url: Any) -> Server | Problem:
    if not isinstance(url, str):
        return wrong_type(path, url, "a URL")
    if url == EMBEDDED:
        return Problem(
            "E020", path, 'is "embedded" in a list.', 'Write "SERVERS": "embedded" alone, or the URLs of servers.'
        )
    if _UNWRITABLE.search(url):
        return Problem("E017", path, "is a URL with a space, line break or control character.", _EXAMPLE)
    if not url.lower().startswith(tuple(f"{scheme}://" for scheme in SCHEMES)):
        return Problem(
            "E018", path, "does not begin with nats:// or tls://.", f"{_EXAMPLE} WebSocket is not supported."
        )
    found = _URL.match(url)
    if not found or not _is_host(found["host"]):
        return Problem(
            "E019",
            path,
            "is not the URL of a server.",
            f"{_EXAMPLE} Percent-encode what is special in a user name or password (a slash is %2F).",
        )
    return _assemble(path, found)


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return bool(_HOST.match(host))
    try:
        ipaddress.IPv6Address(host[1:-1])
    except ValueError:
        return False
    return True


def _assemble(path: str, found: re.Match[str]) -> Server | Problem:
    port = found["port"] or str(DEFAULT_PORT)
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) <= MAX_PORT:
        return Problem("E010", path, f"has a port that is not a number from 1 to {MAX_PORT}.", _EXAMPLE)
    login = _read_login(path, found["userinfo"])
    if isinstance(login, Problem):
        return login
    scheme = found["scheme"].lower()
    return Server(f"{scheme}://{found['host']}:{int(port)}", scheme == "tls", login)


def _read_login(path: str, userinfo: str | None) -> Login | Problem:
    if userinfo is None:
        return Login()
    first, colon, second = userinfo.partition(":")
    user, password = unquote(first), unquote(second)
    problem = next(broken_line(path, user + password), None)
    if problem:
        return problem
    if not user or bool(colon) != bool(password):
        return Problem(
            "E013",
            path,
            "has half a login before the @.",
            "Write user:password@, or token@, or nothing.",
        )
    return Login(user=user, password=password) if colon else Login(token=user)
