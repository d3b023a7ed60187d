"""Logging in: every way that settings know, each against a real server that asks for it; and what nobody may see."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from django_natskv.exceptions import AuthInvalid, ConnectFailed, NatsKVError
from django_natskv.kv import ConnectionSettings
from tests.fix_connections import Connect
from tests.fix_credentials import Certificates, Credentials, Nkey
from tests.fix_servers import MakeServer

PASSWORD = "s3cr3t-Pa55word/with:odd@signs"
TOKEN = "t0ken-that-nobody-may-see"
USER = f'authorization {{ user: "shop", password: "{PASSWORD}" }}'


def roundtrip(connection: Any) -> None:
    """Prove that the connection is good for more than a handshake."""
    bucket = connection.kv().create_bucket({"bucket": "login", "storage": "memory"})
    revision = bucket.put("key", "value")
    entry = bucket.get("key")
    assert (entry.value, entry.revision) == ("value", revision)


def test_without_credentials(connect: Connect, make_server: MakeServer) -> None:
    roundtrip(connect(make_server().url))


def test_a_user_and_a_password(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=USER)
    roundtrip(connect(server.url, USER="shop", PASSWORD=PASSWORD))


def test_credentials_in_the_url(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config='authorization { user: shop, password: "p/w d" }')
    roundtrip(connect(f"nats://shop:p%2Fw%20d@127.0.0.1:{server.port}"))


def test_a_token(connect: Connect, make_server: MakeServer) -> None:
    server = make_server(config=f'authorization {{ token: "{TOKEN}" }}')
    roundtrip(connect(server.url, TOKEN=TOKEN))


def test_a_creds_file(connect: Connect, make_server: MakeServer, credentials: Credentials) -> None:
    roundtrip(connect(make_server(config=credentials.config).url, CREDENTIALS=str(credentials.path)))


def test_the_text_of_a_creds_file(connect: Connect, make_server: MakeServer, credentials: Credentials) -> None:
    roundtrip(connect(make_server(config=credentials.config).url, CREDENTIALS=credentials.text))


def test_the_text_of_a_creds_file_with_the_line_ends_of_windows(
    connect: Connect, make_server: MakeServer, credentials: Credentials
) -> None:
    text = "\r\n".join(credentials.text.splitlines())
    roundtrip(connect(make_server(config=credentials.config).url, CREDENTIALS=text))


def test_the_text_of_a_creds_file_without_a_last_line_end(
    connect: Connect, make_server: MakeServer, credentials: Credentials
) -> None:
    roundtrip(connect(make_server(config=credentials.config).url, CREDENTIALS=credentials.text.strip()))


def test_an_nkey_seed(connect: Connect, make_server: MakeServer, nkey: Nkey) -> None:
    roundtrip(connect(make_server(config=nkey.server_config()).url, NKEY_SEED=nkey.seed))


def test_the_path_of_an_nkey_seed(connect: Connect, make_server: MakeServer, nkey: Nkey, tmp_path: Path) -> None:
    seed = tmp_path / "user.nk"
    seed.write_text(f"{nkey.seed}\n")
    roundtrip(connect(make_server(config=nkey.server_config()).url, NKEY_SEED=str(seed)))


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (USER, {"USER": "shop", "PASSWORD": "wrong-password"}),
        (USER, {"USER": "nobody", "PASSWORD": PASSWORD}),
        (USER, {"TOKEN": TOKEN}),
        (USER, {}),
        (f'authorization {{ token: "{TOKEN}" }}', {"TOKEN": "wrong-token"}),
    ],
    ids=["password", "user", "method", "nothing", "token"],
)
def test_wrong_credentials_are_auth_invalid_with_the_reason_of_the_server(
    connect: Connect, make_server: MakeServer, config: str, options: dict[str, str]
) -> None:
    connection = connect(make_server(config=config).url, **options)
    for _ in range(2):  # the first attempt, and while coming back
        with pytest.raises(AuthInvalid) as caught:
            connection.kv()
        assert "authorization violation" in caught.value.reason.lower()
        assert "authorization violation" in str(caught.value).lower()


def test_an_unknown_nkey_is_auth_invalid(connect: Connect, make_server: MakeServer, nkey: Nkey) -> None:
    other = nkey.public[:-1] + ("A" if nkey.public[-1] != "A" else "B")
    config = f'authorization {{ users = [ {{ user: a, password: "{PASSWORD}" }} ] }}'
    assert other
    with pytest.raises(AuthInvalid):
        connect(make_server(config=config).url, NKEY_SEED=nkey.seed).kv()


def test_the_creds_of_another_operator_are_auth_invalid(
    connect: Connect, make_server: MakeServer, credentials: Credentials, tmp_path: Path, nkey: Nkey
) -> None:
    seed = credentials.text.split("SEED-----\n")[1].split("\n")[0]
    text = credentials.text.replace(seed, nkey.seed)  # does not belong to the JWT
    with pytest.raises(AuthInvalid):
        connect(make_server(config=credentials.config).url, CREDENTIALS=text).kv()


# ------------------------------------------------------------------ what nobody may see


def everything(error: BaseException | None) -> str:
    """Return all that a log or an error page would show of an error and of what led to it."""
    seen = []
    while error is not None:
        seen.append(f"{error!s} {error!r} {getattr(error, '__dict__', '')}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(seen)


CASES: dict[str, dict[str, str]] = {
    "password": {"USER": "shop", "PASSWORD": PASSWORD},
    "token": {"TOKEN": TOKEN},
    "seed": {"NKEY_SEED": "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZY"},
    "seed with a wrong checksum": {"NKEY_SEED": "SUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZA"},
    "creds": {
        "CREDENTIALS": "-----BEGIN NATS USER JWT-----\nJWT-that-nobody-may-see\n------END NATS USER JWT------\n"
        "-----BEGIN USER NKEY SEED-----\nSUAKYRHVIOREXV7EUZTBHUHL7NUMHPMAS7QMDU3GTIUWEI5LDNOXD43IZA\n"
        "------END USER NKEY SEED------\n"
    },
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
@pytest.mark.parametrize("there", [True, False], ids=["refused", "down"])
def test_secrets_show_nowhere(
    connect: Connect,
    make_server: MakeServer,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    options: dict[str, str],
    there: bool,
) -> None:
    server = make_server(config='authorization { user: a, password: "another" }', start=there)
    secrets = [value for key, value in options.items() if key != "USER"]
    secrets += ["SUAKYRHVIOREXV7EUZTBHUHL7NUM", "suakyrhviorexv7euztbhuhl7num", "JWT-that-nobody-may-see"]
    connection = connect(server.url, **options)
    with caplog.at_level(logging.DEBUG):
        shown = ""
        for _ in range(2):
            with pytest.raises(NatsKVError) as caught:
                connection.kv()
            shown += everything(caught.value)
    shown += f"{connection!r} {connection.settings!r} {connection._requests!r} {caplog.text}"
    shown += "".join(repr(vars(record)) for record in caplog.records)
    shown += "".join(capfd.readouterr())
    for secret in secrets:
        assert secret not in shown
    if there:
        assert all(secret not in server.log for secret in secrets)


def test_secrets_and_values_show_nowhere_in_a_working_connection(
    connect: Connect, make_server: MakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(config=USER)
    connection = connect(server.url, USER="shop", PASSWORD=PASSWORD, NAME="the shop")
    with caplog.at_level(logging.DEBUG):
        bucket = connection.kv().create_bucket({"bucket": "quiet"}, codec="text")
        bucket.put("key", "v4lue-that-nobody-may-see")
        bucket.get("key")
        server.restart()
        with pytest.raises(NatsKVError) as caught:
            bucket.create("key" * 400, "v4lue-that-nobody-may-see")
    shown = caplog.text + "".join(repr(vars(record)) for record in caplog.records) + everything(caught.value)
    shown += repr(server.ask("connz", auth=1, subs=1)) + repr(connection) + repr(bucket)
    assert PASSWORD not in shown
    assert "v4lue-that-nobody-may-see" not in shown


def test_the_server_shows_the_configured_name(connect: Connect, make_server: MakeServer) -> None:
    server = make_server()
    connect(server.url, NAME="the shop").kv()
    assert len(server.connections("the shop")) == 1


# ------------------------------------------------------------------ files that are not there


@pytest.mark.parametrize("setting", ["CREDENTIALS", "NKEY_SEED", "TLS"])
def test_a_file_that_went_missing_is_named_by_its_setting(
    connect: Connect, make_server: MakeServer, nkey: Nkey, tmp_path: Path, setting: str
) -> None:
    server = make_server(config=nkey.server_config())
    file = tmp_path / "file"
    file.touch()
    options: dict[str, Any] = {setting: {"CA": str(file)} if setting == "TLS" else str(file)}
    connection = connect(server.url, **options)
    file.unlink()
    with pytest.raises(ConnectFailed, match=setting) as caught:
        connection.kv()
    assert "Nothing answers" not in str(caught.value)


@pytest.mark.parametrize("field", ["credentials", "nkey_seed"])
def test_a_mistyped_secret_that_is_taken_for_a_path_does_not_show(
    connect: Connect, make_server: MakeServer, nkey: Nkey, field: str
) -> None:
    secret = nkey.seed.lower()
    options: dict[str, Any] = {field: secret}
    settings = ConnectionSettings((make_server(config=nkey.server_config()).url,), **options)
    with pytest.raises(ConnectFailed) as caught:
        connect(settings).kv()
    assert secret not in everything(caught.value)


def test_a_creds_file_without_the_nkeys_package(
    connect: Connect, make_server: MakeServer, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nkeys", None)
    with pytest.raises(ConnectFailed, match="nkeys"):
        connect(make_server(config=credentials.config).url, CREDENTIALS=credentials.text).kv()


def test_tls_and_a_login_together(connect: Connect, make_server: MakeServer, certificates: Certificates) -> None:
    server = make_server(config=f"{USER}\n{certificates.server_config()}")
    roundtrip(connect(server.tls_url, USER="shop", PASSWORD=PASSWORD, TLS={"CA": certificates.ca}))
