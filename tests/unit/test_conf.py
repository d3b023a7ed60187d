"""How ``settings.NATSKV`` becomes the settings of a connection."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils.connection import ConnectionDoesNotExist
from django.views.debug import ExceptionReporter

from django_natskv.conf import aliases, connection_settings, problems, settings_from
from django_natskv.kv.settings import (
    ConnectionSettings,
    LocalCacheSettings,
    ReconnectSettings,
    RegistrySettings,
    TLSSettings,
)

SEED = "SU" + "A" * 56


def read(**mapping):
    with override_settings(NATSKV={"default": mapping}):
        return connection_settings("default")


def test_nothing_given_is_every_default():
    assert read() == ConnectionSettings()


def test_the_defaults_of_the_contract_written_out_are_the_defaults():
    written = read(
        SERVERS=["nats://127.0.0.1:4222"],
        NAME="",
        USER="",
        PASSWORD="",
        TOKEN="",
        CREDENTIALS="",
        NKEY_SEED="",
        TLS={"CA": "", "CERT": "", "KEY": "", "HOSTNAME": "", "HANDSHAKE_FIRST": False},
        CONNECT_TIMEOUT=2.0,
        REQUEST_TIMEOUT=2.0,
        RECONNECT={"MAX": -1, "WAIT": 0.25, "MAX_WAIT": 5.0},
        DOMAIN=None,
        API_PREFIX=None,
        INBOX_PREFIX=None,
        CODEC="json",
        BUCKETS={},
        LOCAL_CACHE={"MAX_BYTES": 64 * 2**20, "WAIT": 2.0, "SNAPSHOT_DIR": None},
        REGISTRY={"CREATE": True},
    )
    assert written == ConnectionSettings()
    assert written.tls is None


def test_every_key_reaches_its_field(tmp_path):
    ca, cert, key = (tmp_path / name for name in ("ca", "cert", "key"))
    for path in (ca, cert, key):
        path.touch()
    assert read(
        SERVERS=("nats://a", "tls://b:4333/"),
        NAME="shop",
        USER="user",
        PASSWORD="word",
        TLS={"CA": ca, "CERT": str(cert), "KEY": key, "HOSTNAME": "nats.example", "HANDSHAKE_FIRST": True},
        CONNECT_TIMEOUT=3,
        REQUEST_TIMEOUT=4,
        RECONNECT={"MAX": 5, "WAIT": 1, "MAX_WAIT": 6},
        API_PREFIX="$JS.hub.API",
        INBOX_PREFIX="_INBOX_shop",
        CODEC="text",
        BUCKETS={"config": {"history": 20}, "flags": {"bucket": "flags", "mirror": "origin"}},
        LOCAL_CACHE={"MAX_BYTES": 7, "WAIT": 8, "SNAPSHOT_DIR": tmp_path},
        REGISTRY={"CREATE": False},
    ) == ConnectionSettings(
        servers=("nats://a:4222", "tls://b:4333"),
        name="shop",
        user="user",
        password="word",
        tls=TLSSettings(str(ca), str(cert), str(key), "nats.example", handshake_first=True),
        connect_timeout=3.0,
        request_timeout=4.0,
        reconnect=ReconnectSettings(5, 1.0, 6.0),
        api_prefix="$JS.hub.API",
        inbox_prefix="_INBOX_shop",
        codec="text",
        buckets={
            "config": {"bucket": "config", "history": 20},
            "flags": {"bucket": "flags", "mirror": {"bucket": "origin"}},
        },
        local_cache=LocalCacheSettings(7, 8.0, str(tmp_path)),
        registry=RegistrySettings(create=False),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("TOKEN", "t"), ("DOMAIN", "hub"), ("NKEY_SEED", SEED), ("NAME", "a b")],
)
def test_a_single_text_reaches_its_field(key, value):
    assert getattr(read(**{key: value}), key.lower()) == value


def test_a_seed_loses_the_line_break_of_its_file():
    assert read(NKEY_SEED=f"{SEED}\n").nkey_seed == SEED


def test_a_path_may_begin_with_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    here = tmp_path / "file"
    here.touch()
    assert read(CREDENTIALS="~/file").credentials == str(here)
    assert read(NKEY_SEED="~/file").nkey_seed == str(here)
    assert read(TLS={"CA": "~/file"}).tls == TLSSettings(ca=str(here))
    assert read(LOCAL_CACHE={"SNAPSHOT_DIR": "~/snapshots"}).local_cache.snapshot_dir == str(tmp_path / "snapshots")


def test_numbers_are_read_as_the_types_that_the_fields_declare():
    settings = read(CONNECT_TIMEOUT=3, LOCAL_CACHE={"WAIT": 0})
    assert type(settings.connect_timeout) is float
    assert type(settings.local_cache.wait) is float


def test_none_and_empty_are_not_set():
    keys = ("NAME", "USER", "PASSWORD", "TOKEN", "CREDENTIALS", "NKEY_SEED", "DOMAIN", "API_PREFIX", "INBOX_PREFIX")
    assert read(**dict.fromkeys(keys)) == read(**dict.fromkeys(keys, "")) == ConnectionSettings()
    tls = ("CA", "CERT", "KEY", "HOSTNAME")
    assert read(TLS=dict.fromkeys(tls)) == read(TLS={}) == ConnectionSettings()


def test_embedded_names_no_server():
    settings = read(SERVERS="embedded")
    assert settings.embedded
    assert settings.servers == ()


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://host", "nats://host:4222"),
        ("NATS://host:", "nats://host:4222"),
        ("tls://10.0.0.5:0443/", "tls://10.0.0.5:443"),
        ("nats://[::1]", "nats://[::1]:4222"),
        ("nats://u:p@host:1", "nats://host:1"),
    ],
)
def test_a_server_is_read_with_its_port_and_without_credentials(url, server):
    assert read(SERVERS=url).servers == (server,)
    assert not read(SERVERS=url).embedded


@pytest.mark.parametrize(
    ("login", "fields"),
    [
        ("user:word", {"user": "user", "password": "word"}),
        ("u%40home:p%2Fw%3A%25", {"user": "u@home", "password": "p/w:%"}),
        ("user:a:b@c", {"user": "user", "password": "a:b@c"}),
        ("s%3Acret", {"token": "s:cret"}),
    ],
)
def test_the_credentials_of_a_url_are_moved_out_of_it(login, fields):
    settings = read(SERVERS=["nats://a", f"nats://{login}@b"], USER="", TOKEN="")
    assert settings == ConnectionSettings(servers=("nats://a:4222", "nats://b:4222"), **fields)


def test_one_tls_url_asks_for_tls_everywhere():
    settings = read(SERVERS=["nats://a", "tls://b"])
    assert settings.tls == TLSSettings()


@pytest.mark.parametrize("tls", [{"HOSTNAME": "host"}, {"HANDSHAKE_FIRST": True}])
def test_any_option_of_tls_asks_for_tls(tls):
    assert read(TLS=tls).tls is not None


def test_what_was_read_is_apart_from_the_setting():
    metadata = {"team": "shop"}
    buckets = {"config": {"metadata": metadata}}
    settings = read(BUCKETS=buckets)
    metadata["team"] = "other"
    buckets["more"] = {}
    assert settings.buckets == {"config": {"bucket": "config", "metadata": {"team": "shop"}}}


def test_no_secret_shows_in_repr():
    for mapping in (
        {"SERVERS": "nats://hunter2:hunter2@host"},
        {"SERVERS": "nats://hunter2@host"},
        {"USER": "hunter2", "PASSWORD": "hunter2"},
        {"TOKEN": "hunter2"},
    ):
        assert "hunter2" not in repr(read(**mapping))


def test_a_codec_object_is_kept():
    class Codec:
        def encode(self, value): ...

        def decode(self, data): ...

    codec = Codec()
    assert read(CODEC=codec).codec is codec


# -- aliases and errors -----------------------------------------------------------------------------------------------


def test_no_setting_is_no_alias(settings):
    del settings.NATSKV
    assert aliases() == ()
    with pytest.raises(
        ConnectionDoesNotExist, match=r'The connection "default" doesn\'t exist\. NATSKV declares: none'
    ):
        connection_settings("default")


@override_settings(NATSKV={"default": {}, "eu": {}})
def test_aliases_come_in_the_order_of_the_setting():
    assert aliases() == ("default", "eu")
    with pytest.raises(ConnectionDoesNotExist, match='declares: "default", "eu"'):
        connection_settings("us")


@pytest.mark.parametrize("setting", [None, [], "nats://u:hunter2@host"])
def test_a_setting_that_is_no_mapping_is_improper(setting):
    with override_settings(NATSKV=setting):
        for call in (aliases, lambda: connection_settings("default")):
            with pytest.raises(ImproperlyConfigured, match=r"natskv\.E001") as caught:
                call()
            assert "hunter2" not in str(caught.value)


def test_an_override_takes_effect_at_once():
    with override_settings(NATSKV={"default": {"NAME": "one"}}):
        assert connection_settings("default").name == "one"
        with override_settings(NATSKV={"default": {"NAME": "two"}}):
            assert connection_settings("default").name == "two"
        assert connection_settings("default").name == "one"


def test_an_alias_that_cannot_be_used_names_every_mistake():
    with pytest.raises(ImproperlyConfigured) as caught:
        read(SERVERS=["http://u:hunter2@a"], TOKEN=5, TIMEOUT=1)
    text = str(caught.value)
    assert text.startswith('NATSKV["default"] cannot be used:\n')
    assert [f"natskv.{code}" in text for code in ("E018", "E005", "E004")] == [True] * 3
    assert "hunter2" not in text


@override_settings(NATSKV={"bad": {"TOKEN": 5}, "good": {}})
def test_a_bad_alias_does_not_spoil_the_others():
    assert connection_settings("good") == ConnectionSettings()
    with pytest.raises(ImproperlyConfigured):
        connection_settings("bad")


def test_a_missing_file_is_only_a_warning_to_the_check_and_refused_at_use():
    [problem] = problems({"CREDENTIALS": "/no/such.creds"}, "default")
    assert problem.is_warning
    with pytest.raises(ImproperlyConfigured, match=r"natskv\.W002") as caught:
        read(CREDENTIALS="/no/such.creds")
    assert "such.creds" not in str(caught.value)


@override_settings(DEBUG=False)
def test_the_embedded_server_can_be_used_without_debug():
    assert read(SERVERS="embedded").embedded


@override_settings(NATSKV={1: {}})
def test_an_alias_that_is_not_a_name_is_improper():
    with pytest.raises(ImproperlyConfigured, match=r"natskv\.E002"):
        connection_settings(1)  # type: ignore[arg-type]


def test_settings_from_elsewhere_are_held_to_the_same_rules():
    where = 'CACHES["default"]["LOCATION"]'
    assert settings_from({"SERVERS": "nats://a"}, where).servers == ("nats://a:4222",)
    with pytest.raises(ImproperlyConfigured) as caught:
        settings_from({"SERVERS": "nats://a:0"}, where)
    assert 'CACHES["default"]["LOCATION"]["SERVERS"] has a port' in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "nats://u:hunter2@host",
        {"default": {"SERVERS": "nats://u:hunter2@host", "PASSWORD": "hunter2", "TYPO": 1}},
        {"other": {"SERVERS": "nats://u:hunter2@host", "PASSWORD": "hunter2"}},
    ],
    ids=["no mapping", "mistaken", "unknown alias"],
)
def test_a_report_of_an_error_shows_no_credentials_among_the_variables_of_its_frames(setting):
    """As an error page does, and the mail that ADMINS get."""
    with override_settings(NATSKV=setting):
        for call in (
            lambda: connection_settings("default"),
            lambda: settings_from({"TOKEN": "hunter2", "TYPO": 1}, "there"),
        ):
            with pytest.raises((ImproperlyConfigured, ConnectionDoesNotExist)) as caught:
                call()
            report = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_data()
            ours = [frame for frame in report["frames"] if Path(frame["filename"]).parent.name == "conf"]
            assert ours
            assert "hunter2" not in repr([frame["vars"] for frame in ours])


def test_there_is_a_key_for_every_field():
    from django_natskv.conf._table import CONNECTION  # noqa: PLC0415 - behind the face, for this test alone

    fields = {field.name for field in dataclasses.fields(ConnectionSettings)} - {"embedded"}
    assert {key.lower() for key in CONNECTION.values} == fields
