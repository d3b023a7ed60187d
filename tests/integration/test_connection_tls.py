"""TLS: every setting of it against real servers, and that what was asked to be encrypted is never sent in the clear."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from django_natskv.exceptions import AuthInvalid, ConnectFailed
from tests.fix_connections import Connect
from tests.fix_credentials import Certificates, Credentials, Nkey
from tests.fix_servers import HOST, MakeServer, NatsServer
from tests.fix_waiting import eventually

PASSWORD = "s3cr3t-on-the-wire"


@pytest.fixture
def connect(connect: Connect) -> Connect:
    """Connections that have time for their handshakes on a busy machine."""
    return lambda servers, **options: connect(servers, **{"CONNECT_TIMEOUT": 20.0, "REQUEST_TIMEOUT": 20.0, **options})


def roundtrip(connection: Any) -> None:
    bucket = connection.kv().create_bucket({"bucket": "tls", "storage": "memory"})
    assert bucket.get("key") is None
    assert bucket.put("key", 1) == 1


def back(connection: Any, server: NatsServer) -> None:
    """Wait until a connection to a server that was started again is there, and not the one that it had before."""
    eventually(server.connections, 30)
    eventually(lambda: connection.status == "connected", 30)


def is_encrypted(connection: Any) -> bool:
    writer = connection._requests._dialled.client._transport._io_writer
    return isinstance(writer.get_extra_info("ssl_object"), ssl.SSLObject)


def test_a_ca(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    connection = connect(make_server(config=certificates.server_config()).url, TLS={"CA": certificates.ca})
    roundtrip(connection)
    assert is_encrypted(connection)


def test_a_client_certificate(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=certificates.server_config(verify=True))
    tls = {"CA": certificates.ca, "CERT": certificates.client_cert, "KEY": certificates.client_key}
    roundtrip(connect(server.tls_url, TLS=tls))


def test_a_client_certificate_that_is_the_login(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    config = certificates.server_config(verify=True).replace("verify: true", "verify_and_map: true")
    server = make_server(config=f'{config}\nauthorization {{ users = [ {{ user: "client@example.com" }} ] }}')
    tls = {"CA": certificates.ca, "CERT": certificates.client_cert, "KEY": certificates.client_key}
    roundtrip(connect(server.tls_url, TLS=tls))


def test_a_client_certificate_that_is_missing(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=certificates.server_config(verify=True))
    with pytest.raises(ConnectFailed, match=r"client certificate.*CERT and KEY"):
        connect(server.tls_url, TLS={"CA": certificates.ca}).kv()


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_its_passphrase(
    connect: Connect, make_server: MakeServer, certificates: Certificates, tmp_path: Path
) -> None:
    server = make_server(config=certificates.server_config(verify=True))
    key = serialization.load_pem_private_key(Path(certificates.client_key).read_bytes(), None)
    encrypted = tmp_path / "client.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    tls = {"CA": certificates.ca, "CERT": certificates.client_cert, "KEY": str(encrypted)}
    with pytest.raises(ConnectFailed, match="KEY is encrypted"):
        connect(server.tls_url, TLS=tls).kv()


def test_a_host_name_other_than_the_one_that_is_dialled(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=certificates.server_config())
    roundtrip(connect(server.tls_url, TLS={"CA": certificates.ca, "HOSTNAME": "localhost"}))
    with pytest.raises(ConnectFailed, match=r"TLS.*(?i:hostname mismatch)"):
        connect(server.tls_url, TLS={"CA": certificates.ca, "HOSTNAME": "elsewhere.example"}).kv()


def test_the_handshake_first(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=certificates.server_config(handshake_first=True))
    roundtrip(connect(server.tls_url, TLS={"CA": certificates.ca, "HANDSHAKE_FIRST": True}))


def test_the_handshake_first_where_the_server_speaks_first(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=certificates.server_config())
    with pytest.raises(ConnectFailed, match="HANDSHAKE_FIRST"):
        connect(server.tls_url, TLS={"CA": certificates.ca, "HANDSHAKE_FIRST": True}, CONNECT_TIMEOUT=0.5).kv()


def test_a_server_that_waits_for_the_handshake(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=certificates.server_config(handshake_first=True))
    with pytest.raises(ConnectFailed, match="HANDSHAKE_FIRST"):
        connect(server.tls_url, TLS={"CA": certificates.ca}, CONNECT_TIMEOUT=0.5).kv()


def test_a_certificate_of_another_ca(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=certificates.server_config())
    with pytest.raises(ConnectFailed, match=r"TLS.*certificate verify failed"):
        connect(server.tls_url, TLS={"CA": certificates.other_ca}).kv()


def test_a_server_that_requires_tls_where_none_is_configured(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=certificates.server_config())
    with pytest.raises(ConnectFailed, match=r"requires TLS.*\bCA\b"):
        connect(server.url).kv()


def test_tls_with_wrong_credentials(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=f"authorization {{ user: a, password: b }}\n{certificates.server_config()}")
    with pytest.raises(AuthInvalid):
        connect(server.tls_url, TLS={"CA": certificates.ca}, USER="a", PASSWORD="c").kv()


def test_it_comes_back_encrypted(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=certificates.server_config())
    connection = connect(server.tls_url, TLS={"CA": certificates.ca})
    bucket = connection.kv().create_bucket({"bucket": "back"})
    server.restart()
    back(connection, server)
    assert bucket.put("key", 1) == 1
    assert is_encrypted(connection)


def test_a_server_of_the_cluster_that_is_known_by_address_only(
    connect: Connect, make_server: MakeServer, tmp_path: Path
) -> None:
    """Its certificate holds the name that the configured servers are dialled by."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}'
    second = make_server(config=tls)
    first = make_server(config=tls)
    connection = connect(f"tls://localhost:{first.port}", TLS={"CA": str(ca)})
    connection.kv()
    connection._requests._servers._discovered = {f"127.0.0.1:{second.port}": None}  # as a cluster tells
    first.stop()
    eventually(second.connections, 30)
    eventually(lambda: connection.status == "connected", 30)


# ------------------------------------------------------------------ never in the clear (F24)


class PlainServer:
    """Says INFO without TLS and keeps every byte that comes."""

    def __init__(self, **info: object) -> None:
        self.received = b""
        self.accepted = 0
        self._taken: socket.socket | None = None
        self._info = {"server_id": "A", "version": "2.15.1", "headers": True, "max_payload": 1048576, **info}
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._taken = taken
            with taken:
                taken.settimeout(5)
                taken.sendall(b"INFO " + json.dumps(self._info).encode() + b"\r\n")
                while data := self._read(taken):
                    self.received += data
                    if b"PING\r\n" in data:
                        taken.sendall(b"PONG\r\n")

    @staticmethod
    def _read(taken: socket.socket) -> bytes:
        try:
            return taken.recv(65536)
        except OSError:
            return b""

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._taken is not None:
            with contextlib.suppress(OSError):  # it is over already
                self._taken.shutdown(socket.SHUT_RDWR)
        self._thread.join()


@pytest.fixture
def plain_server() -> Iterator[PlainServer]:
    server = PlainServer(auth_required=True, nonce="bm9uY2U")
    yield server
    server.close()


@pytest.mark.parametrize("login", ["password", "token", "creds", "creds file", "nkey", "none"])
@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_tls_that_the_server_lacks_is_refused_before_a_byte_is_sent(
    connect: Connect, plain_server: PlainServer, credentials: Credentials, nkey: Nkey, login: str, scheme: str
) -> None:
    logins: dict[str, dict[str, str]] = {
        "password": {"USER": "shop", "PASSWORD": PASSWORD},
        "token": {"TOKEN": PASSWORD},
        "creds": {"CREDENTIALS": credentials.text},
        "creds file": {"CREDENTIALS": str(credentials.path)},
        "nkey": {"NKEY_SEED": nkey.seed},
        "none": {},
    }
    # The scheme alone asks for it, and so does any setting of TLS.
    options: dict[str, Any] = {} if scheme == "tls" else {"TLS": {"HOSTNAME": "localhost"}}
    connection = connect(f"{scheme}://{HOST}:{plain_server.port}", NAME="n", **logins[login], **options)
    with pytest.raises(ConnectFailed, match=r"TLS.*No credentials were sent"):
        connection.kv()
    connection.close()
    eventually(lambda: plain_server.accepted, 30)
    assert plain_server.received == b""


def test_the_plain_server_of_these_tests_would_have_heard(connect: Connect, plain_server: PlainServer) -> None:
    connection = connect(f"nats://{HOST}:{plain_server.port}", USER="shop", PASSWORD=PASSWORD, REQUEST_TIMEOUT=0.5)
    with pytest.raises(TimeoutError):
        connection.kv()
    assert PASSWORD.encode() in plain_server.received


def test_a_plain_real_server_gets_no_credentials(
    connect: Connect, make_server: MakeServer, certificates: Certificates
) -> None:
    server = make_server(config=f'authorization {{ user: shop, password: "{PASSWORD}" }}')
    connection = connect(server.tls_url, USER="shop", PASSWORD=PASSWORD, TLS={"CA": certificates.ca})
    with pytest.raises(ConnectFailed, match="No credentials were sent"):
        connection.kv()
    eventually(lambda: server.connections() == [], 30)


def test_the_end_of_an_encrypted_line_is_not_worth_a_warning(
    connect: Connect, make_server: MakeServer, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(config=certificates.server_config())
    connection = connect(server.tls_url, TLS={"CA": certificates.ca})
    connection.kv()
    server.restart()
    back(connection, server)
    connection.close()
    # Not what other tests' connections have to say, which end meanwhile.
    told = [f"{record.name} {record.getMessage()}" for record in caplog.records]
    assert [line for line in told if line.startswith("asyncio") or str(server.port) in line] == []
