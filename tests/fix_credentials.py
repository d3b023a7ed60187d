"""Certificates, nkeys and credentials files made for a test, and the server configuration that accepts them.

Owns what secures a connection; knows nothing of the package under test.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
import pytest
import trustme


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files: a CA, a server's and a client's certificate with their keys, and another CA."""

    ca: str
    server_cert: str
    server_key: str
    client_cert: str
    client_key: str
    other_ca: str

    def server_config(self, *, verify: bool = False, handshake_first: bool = False) -> str:
        """Return the server's configuration; ``verify``: a client must show a certificate of the CA."""
        options = [
            f'cert_file: "{self.server_cert}"',
            f'key_file: "{self.server_key}"',
            f'ca_file: "{self.ca}"',
            f"verify: {str(verify).lower()}",
            f"handshake_first: {str(handshake_first).lower()}",
        ]
        return f"tls {{ {', '.join(options)} }}"

    def client_context(self, *, certificate: bool = False) -> ssl.SSLContext:
        """Return a context that trusts the CA and, if asked, shows the client's certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if certificate:
            context.load_cert_chain(self.client_cert, self.client_key)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A CA and what it has signed, for "localhost" and 127.0.0.1."""
    place = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("client@example.com", common_name="client")

    def write(name: str, *blobs: trustme.Blob) -> str:
        path = place / name
        path.write_bytes(b"".join(blob.bytes() for blob in blobs))
        path.chmod(0o600)
        return str(path)

    return Certificates(
        ca=write("ca.pem", authority.cert_pem),
        server_cert=write("server.pem", *server.cert_chain_pems),
        server_key=write("server.key", server.private_key_pem),
        client_cert=write("client.pem", *client.cert_chain_pems),
        client_key=write("client.key", client.private_key_pem),
        other_ca=write("other-ca.pem", trustme.CA().cert_pem),
    )


@dataclass(frozen=True)
class Nkey:
    """A key pair: ``public`` goes into the server's configuration, ``seed`` is the secret."""

    public: str
    seed: str

    def server_config(self) -> str:
        """Return the server's configuration with this key as its only user."""
        return f"authorization {{ users = [ {{ nkey: {self.public} }} ] }}"

    def sign(self, data: bytes) -> bytes:
        """Return the signature of ``data``."""
        return bytes(nkeys.from_seed(bytearray(self.seed.encode())).sign(data))


def make_nkey(prefix: int) -> Nkey:
    """Make a key pair; ``prefix`` is one of the ``PREFIX_BYTE_`` constants of nkeys."""
    seed = bytes(nkeys.encode_seed(secrets.token_bytes(32), prefix))
    public = nkeys.from_seed(bytearray(seed)).public_key
    return Nkey(public.decode(), seed.decode())


@pytest.fixture
def nkey() -> Nkey:
    """A user's key pair."""
    return make_nkey(nkeys.PREFIX_BYTE_USER)


@dataclass(frozen=True)
class Credentials:
    """A user of an operator's account: ``path`` and ``text`` of the .creds file, ``config`` of the server."""

    path: Path
    config: str

    @property
    def text(self) -> str:
        """What is in the file."""
        return self.path.read_text()


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    """A .creds file and the configuration of a server that accepts it, with JetStream in the account."""
    operator = make_nkey(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = make_nkey(nkeys.PREFIX_BYTE_ACCOUNT), make_nkey(nkeys.PREFIX_BYTE_ACCOUNT)
    user = make_nkey(nkeys.PREFIX_BYTE_USER)
    unlimited = dict.fromkeys(["subs", "conn", "leaf", "imports", "exports", "data", "payload"], -1)
    storage = dict.fromkeys(["mem_storage", "disk_storage", "streams", "consumer"], -1)
    limits = {**unlimited, "wildcards": True}
    operator_jwt = _token(operator, operator, "operator", system_account=system.public)
    system_jwt = _token(operator, system, "account", limits=limits)
    account_jwt = _token(operator, account, "account", limits={**limits, **storage})
    user_jwt = _token(account, user, "user", pub={}, sub={}, **dict.fromkeys(["subs", "data", "payload"], -1))
    path = tmp_path / "user.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    config = (
        f"operator: {operator_jwt}\nsystem_account: {system.public}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account.public}: {account_jwt}, {system.public}: {system_jwt} }}"
    )
    return Credentials(path, config)


def _token(issuer: Nkey, subject: Nkey, kind: str, **claims: Any) -> str:
    body = {
        "jti": secrets.token_hex(16),
        "iat": int(time.time()),
        "iss": issuer.public,
        "name": kind,
        "sub": subject.public,
        "nats": {"type": kind, "version": 2, **claims},
    }
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{signed}.{_base64(issuer.sign(signed.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
