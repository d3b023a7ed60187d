"""The rules of files, secrets, codecs and buckets, by their check ids."""

from __future__ import annotations

import os

import pytest

from django_natskv.conf import problems
from tests.unit.problems_found import ACCOUNT_SEED, CREDS, USER_SEED, found


class Upper:
    """A codec, found by its dotted path."""

    def encode(self, value):
        return value.upper().encode()

    def decode(self, data):
        return data.decode()


class Demanding(Upper):
    """A codec that cannot be made without being told more."""

    def __init__(self, secret):
        self.secret = secret


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "a.pem"
    path.write_text("text")
    return path


# -- files and secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("CERT", "KEY"), ("KEY", "CERT")])
def test_e022_a_client_certificate_takes_its_key(one, other, secret_file):
    assert found({"TLS": {one: secret_file}}) == [("E022", f'["TLS"]["{one}"]')]
    assert found({"TLS": {one: secret_file, other: secret_file}}) == []


@pytest.mark.parametrize("text", ["-----BEGIN NATS USER JWT-----\neyJ0\n", "SUAB\nSUAB", CREDS.replace("SEED", "")])
def test_e023_the_text_of_credentials_is_whole(text):
    assert found({"CREDENTIALS": text}) == [("E023", '["CREDENTIALS"]')]


@pytest.mark.parametrize("seed", [ACCOUNT_SEED, ACCOUNT_SEED + "\n", "SO" + "B" * 56])
def test_e024_a_seed_is_a_users(seed):
    assert found({"NKEY_SEED": seed}) == [("E024", '["NKEY_SEED"]')]


@pytest.mark.parametrize("key", ["CREDENTIALS", "NKEY_SEED"])
def test_w002_a_file_of_credentials_exists(key, tmp_path, secret_file):
    assert found({key: str(secret_file)}) == []
    assert found({key: secret_file}) == []
    assert found({key: tmp_path / "other"}) == [("W002", f'["{key}"]')]
    assert found({key: tmp_path}) == [("W002", f'["{key}"]')], "a directory is no file"
    assert found({key: "x" * 5000}) == [("W002", f'["{key}"]')], "too long for a name of a file"


@pytest.mark.parametrize("key", ["CA", "CERT", "KEY"])
def test_w002_a_file_of_tls_exists(key, tmp_path, secret_file):
    files = {"CERT": secret_file, "KEY": secret_file}
    assert found({"TLS": {**files, key: str(tmp_path / "other")}}) == [("W002", f'["TLS"]["{key}"]')]


def test_w002_a_file_can_be_read(secret_file, monkeypatch):
    # A file without permissions would not keep out a superuser, which the tests may run as.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    assert found({"TLS": {"CA": secret_file}}) == [("W002", '["TLS"]["CA"]')]


def test_credentials_and_seeds_pass_as_text():
    assert found({"CREDENTIALS": CREDS}) == []
    assert found({"NKEY_SEED": f" {USER_SEED}\n"}) == []


@pytest.mark.parametrize(
    "mapping",
    [
        {"PASSWORD": 5, "USER": "hunter2\n"},
        {"USER": "hunter2"},
        {"TOKEN": "hunter2", "NKEY_SEED": "hunter2", "CREDENTIALS": "hunter2"},
        {"CREDENTIALS": "hunter2\n"},
        {"NKEY_SEED": "SAHUNTER2" + "A" * 49},
        {"TLS": {"KEY": "hunter2"}},
        {"SERVERS": ["nats://hunter2:hunter2@", "nats://hunter2:hunter2", "hunter2:hunter2@host", "nats://hunter2:@a"]},
        {"SERVERS": ["nats://u:hunter2@a", "nats://hunter2@b"], "TOKEN": "hunter2"},
        {"SERVERS": ["nats://u:hunter2/x@a", "nats://u:hunter2@a:0", "http://u:hunter2@a", "nats://u:hunter2@a b"]},
        {"nats://u:hunter2@a": 1},
        {"nats://u:hun/ter2@a": 1},
        {b"hunter2": 1},
    ],
)
def test_no_message_and_no_hint_holds_a_secret(mapping):
    for alias in ("default", "nats://hunter2:hunter2@host"):
        shown = [f"{problem!r} {problem.message}" for problem in problems(mapping, alias)]
        assert shown
        assert not any("hunter2" in text.lower() or "ter2" in text for text in shown)


# -- codecs and buckets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codec",
    [
        "jason",
        "",
        None,
        5,
        "no.such.module",
        "tests.unit.test_checks_values.missing",
        f"{__name__}.Demanding",
        "..relative",
        Upper,
    ],
)
def test_e025_a_codec_can_be_found_and_made(codec):
    [problem] = problems({"CODEC": codec}, "default")
    assert (problem.code, problem.path) == ("E025", 'NATSKV["default"]["CODEC"]')
    assert "json, bytes, text, msgpack, pickle" in problem.hint


@pytest.mark.parametrize("codec", ["json", "bytes", "text", "pickle", "msgpack", f"{Upper.__module__}.Upper", Upper()])
def test_a_codec_passes(codec):
    assert found({"CODEC": codec}) == []


@pytest.mark.parametrize("name", ["a.b", "a b", "", "ä", "x" * 129, 5])
def test_e026_a_bucket_has_a_good_name(name):
    [problem] = problems({"BUCKETS": {name: {}}}, "default")
    assert problem.code == "E026"


def test_e027_a_bucket_is_named_by_its_key():
    assert found({"BUCKETS": {"one": {"bucket": "two"}}}) == [("E027", '["BUCKETS"]["one"]["bucket"]')]
    assert found({"BUCKETS": {"one": {"bucket": "one"}}}) == []


def test_e028_the_options_of_a_bucket_are_closed():
    [problem] = problems({"BUCKETS": {"one": {"histroy": 5}}}, "default")
    assert (problem.code, problem.path) == ("E028", 'NATSKV["default"]["BUCKETS"]["one"]')
    assert "history" in problem.message
    assert "ttl_ms" in problem.hint


@pytest.mark.parametrize(
    "config", [{"history": 0}, {"history": True}, {"storage": "tape"}, {"republish": {"source": ">"}}]
)
def test_e029_the_options_of_a_bucket_have_good_values(config):
    assert found({"BUCKETS": {"one": config}}) == [("E029", '["BUCKETS"]["one"]')]


def test_e029_a_mirror_of_a_bad_name_is_not_the_buckets_own_name():
    assert found({"BUCKETS": {"one": {"mirror": "a.b"}}}) == [("E029", '["BUCKETS"]["one"]')]


@pytest.mark.parametrize("reconnect", [{"WAIT": 2, "MAX_WAIT": 1}, {"WAIT": 6}, {"MAX_WAIT": 0.1}])
def test_e030_the_first_wait_is_not_longer_than_the_longest(reconnect):
    assert found({"RECONNECT": reconnect}) == [("E030", '["RECONNECT"]["WAIT"]')]


def test_equal_waits_pass():
    assert found({"RECONNECT": {"WAIT": 1, "MAX_WAIT": 1}}) == []
