"""The rules of SERVERS and of logging in, by their check ids."""

from __future__ import annotations

import pytest

from django_natskv.conf import problems
from tests.unit.problems_found import CREDS, USER_SEED, found


def server(url):
    return found({"SERVERS": [url]})


@pytest.mark.parametrize("port", ["0", "65536", "99999999", "-1", "abc", "42 22".replace(" ", "_"), "4222,b:4222"])
def test_e010_a_port_is_from_1_to_65535(port):
    assert server(f"nats://host:{port}") == [("E010", '["SERVERS"][0]')]


def test_e011_a_domain_and_an_api_prefix_contradict_each_other():
    assert found({"DOMAIN": "hub", "API_PREFIX": "$JS.hub.API"}) == [("E011", '["DOMAIN"]')]


@pytest.mark.parametrize(
    "mapping",
    [
        {"USER": "u", "PASSWORD": "p", "TOKEN": "t"},
        {"TOKEN": "t", "CREDENTIALS": CREDS},
        {"CREDENTIALS": CREDS, "NKEY_SEED": USER_SEED},
        {"USER": "u", "PASSWORD": "p", "NKEY_SEED": USER_SEED},
    ],
)
def test_e012_there_is_one_way_to_log_in(mapping):
    [problem] = problems(mapping, "default")
    assert (problem.code, problem.path) == ("E012", 'NATSKV["default"]')
    assert all(key in problem.detail for key in mapping)


@pytest.mark.parametrize(
    "mapping", [{"USER": "u", "PASSWORD": "p"}, {"TOKEN": "t"}, {"CREDENTIALS": CREDS}, {"NKEY_SEED": USER_SEED}]
)
def test_one_way_to_log_in_passes_beside_keys_that_are_not_set(mapping):
    unset = dict.fromkeys(("USER", "PASSWORD", "TOKEN", "CREDENTIALS", "NKEY_SEED"), "")
    assert found(unset | mapping) == []
    assert found(dict.fromkeys(unset) | mapping) == []


@pytest.mark.parametrize(("one", "other"), [("USER", "PASSWORD"), ("PASSWORD", "USER")])
def test_e013_user_and_password_go_together(one, other):
    assert found({one: "x"}) == [("E013", f'["{one}"]')]
    assert found({one: "x", other: ""}) == [("E013", f'["{one}"]')]
    assert found({one: "x", other: 5}) == [("E005", f'["{other}"]')], "what is broken is not missing"


@pytest.mark.parametrize("login", ["", ":", "user:", ":password"])
def test_e013_a_url_holds_a_whole_login(login):
    assert server(f"nats://{login}@host") == [("E013", '["SERVERS"][0]')]


@pytest.mark.parametrize("mapping", [{"USER": "u", "PASSWORD": "p"}, {"TOKEN": "t"}, {"NKEY_SEED": USER_SEED}])
def test_e014_credentials_are_in_the_url_or_outside_it(mapping):
    assert found({"SERVERS": "nats://u:p@host", **mapping}) == [("E014", '["SERVERS"]')]
    assert found({"SERVERS": ["nats://a", "nats://t@b"], **mapping}) == [("E014", '["SERVERS"]')]
    assert found({"SERVERS": ["nats://a", "nats://b"], **mapping}) == []


@pytest.mark.parametrize("second", ["v:p", "u:q", "u", "p"])
def test_e015_all_urls_hold_the_same_credentials(second):
    assert found({"SERVERS": ["nats://u:p@a", f"nats://{second}@b"]}) == [("E015", '["SERVERS"]')]


def test_credentials_in_one_url_or_the_same_in_all_pass():
    assert found({"SERVERS": ["nats://u:p@a", "nats://b"]}) == []
    assert found({"SERVERS": ["nats://u:p@a", "tls://u:p@b"]}) == []


@pytest.mark.parametrize("value", ["", [], ()])
def test_e016_there_is_a_server(value):
    assert found({"SERVERS": value}) == [("E016", '["SERVERS"]')]


@pytest.mark.parametrize("url", ["nats://a b", " nats://a", "nats://a\n", "nats://a\r\nb", "nats://a\0", "nats://a\tb"])
def test_e017_a_url_holds_no_space_and_no_control_character(url):
    assert server(url) == [("E017", '["SERVERS"][0]')]


@pytest.mark.parametrize(
    "url", ["", "host", "host:4222", "u:p@host", "ws://host", "wss://host", "http://host", "nats:/a"]
)
def test_e018_a_url_begins_with_nats_or_tls(url):
    assert server(url) == [("E018", '["SERVERS"][0]')]


@pytest.mark.parametrize(
    "url",
    [
        "nats://",
        "nats:///",
        "nats://u:p@",
        "nats://:4222",
        "nats://host/path",
        "nats://host?x=1",
        "nats://host#x",
        "nats://u:p/w@host",
        "nats://a,b",
        "nats://a:4222,nats://b:4222",
        "nats://[::1",
        "nats://[host]",
        "nats://::1",
        "nats://[::1]x",
    ],
)
def test_e019_a_url_is_well_formed(url):
    assert server(url) == [("E019", '["SERVERS"][0]')]


def test_e020_the_embedded_server_stands_alone():
    assert found({"SERVERS": ["embedded"]}) == [("E020", '["SERVERS"][0]')]
    assert found({"SERVERS": ["nats://a", "embedded"]}) == [("E020", '["SERVERS"][1]')]


@pytest.mark.parametrize(
    "url",
    [
        "nats://host",
        "tls://host:4222/",
        "NATS://Host:1",
        "nats://10.0.0.5:65535",
        "nats://[::1]:4222",
        "nats://my_host.example-1.com.",
        "nats://user:p%2Fw%40d@host",
        "nats://user:p@ss@host",
        "nats://token@host",
    ],
)
def test_a_url_passes_alone_and_in_a_list(url):
    assert found({"SERVERS": url}) == []
    assert server(url) == []


def test_e021_the_embedded_server_has_no_tls():
    assert found({"SERVERS": "embedded", "TLS": {"HANDSHAKE_FIRST": True}}) == [("E021", '["TLS"]')]
    assert found({"SERVERS": "embedded", "TLS": {"CA": "", "HANDSHAKE_FIRST": False}}) == []


@pytest.mark.parametrize("login", ["us%0Der:pw", "user:p%0aw", "tok%00en"])
def test_e007_a_line_break_that_a_url_hides_is_refused(login):
    assert server(f"nats://{login}@host") == [("E007", '["SERVERS"][0]')]
