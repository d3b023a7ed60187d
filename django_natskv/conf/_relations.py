"""The rules between keys: what contradicts what.

Owns the rules that take more than one key to break. Must not check a value by itself: a rule here is only shown keys
whose own values are sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django_natskv.conf._problem import Problem, at
from django_natskv.conf._servers import EMBEDDED, Login, read_servers
from django_natskv.kv.settings import ReconnectSettings

# The ways to log in, each by the keys that ask for it.
_METHODS = (("USER", "PASSWORD"), ("TOKEN",), ("CREDENTIALS",), ("NKEY_SEED",))
LOGIN_KEYS = tuple(key for method in _METHODS for key in method)


def half_a_login(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """USER and PASSWORD go together."""
    for one, other in (("USER", "PASSWORD"), ("PASSWORD", "USER")):
        if given.get(one) and not given.get(other):
            yield Problem("E013", at(path, one), f"is set without {other}.", f"Set both {one} and {other}, or neither.")


def one_login(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """There is at most one way to log in."""
    used = _used_methods(given)
    if len(used) > 1:
        yield Problem(
            "E012",
            path,
            f"has more than one way to log in: {', '.join(used)}.",
            "Keep one of USER with PASSWORD, TOKEN, CREDENTIALS and NKEY_SEED, and remove the rest.",
        )


def no_login_twice(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Credentials are in the URLs or outside them."""
    used = _used_methods(given)
    if used and any(server.login != Login() for server in read_servers(given.get("SERVERS", ()))):
        yield Problem(
            "E014",
            at(path, "SERVERS"),
            f"holds credentials in a URL beside {', '.join(used)}.",
            "Remove them from the URL: those outside are easier to keep secret.",
        )


def _used_methods(given: Mapping[str, Any]) -> list[str]:
    used = ([key for key in method if given.get(key)] for method in _METHODS)
    return [" and ".join(keys) for keys in used if keys]


def one_prefix(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """A domain is a prefix in short."""
    if given.get("DOMAIN") and given.get("API_PREFIX"):
        yield Problem(
            "E011",
            at(path, "DOMAIN"),
            "is set together with API_PREFIX.",
            "Keep one: a domain is short for the prefix $JS.<domain>.API.",
        )


def no_tls_when_embedded(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """What was asked to be encrypted is never sent in the clear, and the embedded server cannot encrypt (F24)."""
    if given.get("SERVERS") == EMBEDDED and any(given.get("TLS", {}).values()):
        yield Problem(
            "E021",
            at(path, "TLS"),
            "is set, and the embedded server does not speak TLS.",
            'Remove TLS where SERVERS is "embedded".',
        )


def certificate_with_key(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """A client certificate takes its key."""
    for one, other in (("CERT", "KEY"), ("KEY", "CERT")):
        if given.get(one) and not given.get(other):
            yield Problem(
                "E022",
                at(path, one),
                f"is set without {other}.",
                "A client certificate takes the files of both the certificate and its private key.",
            )


def waits_in_order(path: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    """The back-off grows from WAIT to MAX_WAIT."""
    default = ReconnectSettings()
    if given.get("WAIT", default.wait) > given.get("MAX_WAIT", default.max_wait):
        yield Problem(
            "E030",
            at(path, "WAIT"),
            "is longer than MAX_WAIT.",
            f"WAIT is the first pause and MAX_WAIT the longest, which is {default.max_wait} unless it is set.",
        )
