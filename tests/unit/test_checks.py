"""The system check, and the rules of ``settings.NATSKV`` that hold at every level, by their check ids."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from django.core import checks
from django.test import override_settings

from django_natskv.checks import TAG, check_settings
from django_natskv.conf import problems
from tests.unit.problems_found import found

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "settings.md"
CONF = ROOT / "django_natskv" / "conf"


def all_text(directory, pattern):
    return "".join(path.read_text(encoding="utf-8") for path in directory.glob(pattern))


# -- through Django ---------------------------------------------------------------------------------------------------


def test_the_check_is_registered_under_its_tag():
    assert checks.registry.registry.tag_exists(TAG)


@override_settings(NATSKV={"default": {"SERVER": "nats://a"}})
def test_a_broken_rule_is_an_error_with_id_place_and_hint():
    [message] = checks.run_checks(tags=[TAG])
    assert message.level == checks.ERROR
    assert message.id == "natskv.E004"
    assert message.msg == 'NATSKV["default"] has an unknown key "SERVER".'
    assert 'Did you mean "SERVERS"?' in str(message.hint)


@override_settings(NATSKV={"default": {"TLS": {"CA": "/no/such/file"}}})
def test_a_missing_file_is_a_warning():
    [message] = check_settings(app_configs=None)
    assert (message.level, message.id) == (checks.WARNING, "natskv.W002")


@override_settings()
def test_no_setting_is_no_mistake(settings):
    del settings.NATSKV
    assert check_settings() == []


@override_settings(NATSKV={}, DEBUG=False)
def test_no_alias_is_no_mistake():
    assert check_settings() == []


def test_every_id_is_in_the_reference_and_every_id_of_the_reference_is_in_the_code():
    code = all_text(CONF, "*.py")
    used = set(re.findall(r'"([EW]\d{3})"', code))
    documented = set(re.findall(r"`natskv\.([EW]\d{3})`", REFERENCE.read_text(encoding="utf-8")))
    assert used == documented
    assert used


def test_every_id_has_a_test():
    code = all_text(CONF, "*.py")
    tests = all_text(Path(__file__).parent, "test_checks*.py")
    tested = set(re.findall(r"def test_([ew]\d{3})_", tests))
    assert {code.lower() for code in re.findall(r'"([EW]\d{3})"', code)} <= tested


@override_settings(NATSKV={"default": {"SERVERS": "embedded"}})
def test_w001_the_embedded_server_is_for_development():
    with override_settings(DEBUG=False):
        [message] = check_settings()
        assert (message.level, message.id) == (checks.WARNING, "natskv.W001")
        assert message.msg.startswith('NATSKV["default"]["SERVERS"] ')
        assert "authentication" not in (message.hint or "")  # it has one
    with override_settings(DEBUG=True):
        assert check_settings() == []


@override_settings(NATSKV={"default": "embedded"}, DEBUG=False)
def test_w001_is_not_said_of_what_is_no_mapping():
    assert [message.id for message in check_settings()] == ["natskv.E003"]


# -- the maps ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [None, [], "nats://localhost", 5])
def test_e001_the_setting_is_a_mapping(setting):
    with override_settings(NATSKV=setting):
        [message] = check_settings()
    assert message.id == "natskv.E001"
    assert message.hint


@pytest.mark.parametrize("alias", ["", 1, None, b"default"])
def test_e002_an_alias_is_a_name(alias):
    assert [problem.code for problem in problems({}, alias)] == ["E002"]


@pytest.mark.parametrize("key", [None, "TLS", "RECONNECT", "LOCAL_CACHE"])
@pytest.mark.parametrize("value", [None, [], "nats://localhost", True])
def test_e003_every_level_is_a_mapping(key, value):
    if key is None:
        assert found(value) == [("E003", "")]
    else:
        assert found({key: value}) == [("E003", f'["{key}"]')]


@pytest.mark.parametrize(
    ("mapping", "path", "guess"),
    [
        ({"SERVER": "nats://a"}, "", "SERVERS"),
        ({"servers": "nats://a"}, "", "SERVERS"),
        ({"TLS": {"CAFILE": ""}}, '["TLS"]', None),
        ({"TLS": {"CERTS": ""}}, '["TLS"]', "CERT"),
        ({"RECONNECT": {"MAXWAIT": 1}}, '["RECONNECT"]', "MAX_WAIT"),
        ({"LOCAL_CACHE": {"MAXBYTES": 1}}, '["LOCAL_CACHE"]', "MAX_BYTES"),
        ({7: 1}, "", None),
        ({None: 1}, "", None),
    ],
)
def test_e004_an_unknown_key_is_refused_at_every_level(mapping, path, guess):
    [problem] = problems(mapping, "default")
    assert (problem.code, problem.path) == ("E004", f'NATSKV["default"]{path}')
    assert ("Did you mean" in problem.hint) is (guess is not None)
    assert guess is None or f'Did you mean "{guess}"?' in problem.hint
    assert "The keys are" in problem.hint


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 5) for key in ("NAME", "USER", "PASSWORD", "TOKEN", "CREDENTIALS", "NKEY_SEED")),
        *((key, b"x") for key in ("NAME", "PASSWORD", "CREDENTIALS", "NKEY_SEED", "INBOX_PREFIX")),
        *((key, value) for key in ("CONNECT_TIMEOUT", "REQUEST_TIMEOUT") for value in (True, "2", None, 1j)),
        *((key, 5) for key in ("DOMAIN", "API_PREFIX", "INBOX_PREFIX")),
        ("SERVERS", None),
        ("SERVERS", {"nats://a"}),
        ("BUCKETS", ["config"]),
    ],
)
def test_e005_a_value_of_the_wrong_type_is_refused(key, value):
    assert found({key: value}) == [("E005", f'["{key}"]')]


@pytest.mark.parametrize(
    ("outer", "inner", "value"),
    [
        *(("TLS", key, 5) for key in ("CA", "CERT", "KEY", "HOSTNAME")),
        *(("TLS", "HANDSHAKE_FIRST", value) for value in (1, "yes", None)),
        *(("RECONNECT", "MAX", value) for value in (True, 1.0, "3", None)),
        *(("RECONNECT", key, value) for key in ("WAIT", "MAX_WAIT") for value in (True, "1", None)),
        *(("LOCAL_CACHE", "MAX_BYTES", value) for value in (True, 1e6, "1")),
        *(("LOCAL_CACHE", "WAIT", value) for value in (False, "1", None)),
        ("LOCAL_CACHE", "SNAPSHOT_DIR", 5),
        ("BUCKETS", "config", None),
        ("BUCKETS", "config", 20),
    ],
)
def test_e005_a_nested_value_of_the_wrong_type_is_refused(outer, inner, value):
    assert found({outer: {inner: value}}) == [("E005", f'["{outer}"]["{inner}"]')]


def test_e005_a_server_is_a_string():
    assert found({"SERVERS": ["nats://a", 5]}) == [("E005", '["SERVERS"][1]')]


@pytest.mark.parametrize("key", ["CONNECT_TIMEOUT", "REQUEST_TIMEOUT"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, -math.inf, 86_401, 10**400])
def test_e006_a_timeout_is_above_zero_and_finite(key, value):
    assert found({key: value}) == [("E006", f'["{key}"]')]


@pytest.mark.parametrize(
    ("outer", "inner", "value"),
    [
        ("RECONNECT", "MAX", -2),
        ("RECONNECT", "WAIT", 0),
        ("RECONNECT", "MAX_WAIT", math.inf),
        ("LOCAL_CACHE", "MAX_BYTES", 0),
        ("LOCAL_CACHE", "WAIT", -0.1),
        ("LOCAL_CACHE", "WAIT", math.nan),
    ],
)
def test_e006_a_nested_number_out_of_range_is_refused(outer, inner, value):
    assert found({outer: {inner: value}}) == [("E006", f'["{outer}"]["{inner}"]')]


@pytest.mark.parametrize(
    "mapping",
    [
        {"CONNECT_TIMEOUT": 1, "REQUEST_TIMEOUT": 86_400},
        {"RECONNECT": {"MAX": -1}},
        {"RECONNECT": {"MAX": 0}},
        {"LOCAL_CACHE": {"MAX_BYTES": 1, "WAIT": 0}},
    ],
)
def test_the_ends_of_a_range_are_in_it(mapping):
    assert found(mapping) == []


@pytest.mark.parametrize("character", ["\r", "\n", "\0"])
def test_e007_a_line_break_in_a_text_is_refused(character):
    text = f"a{character}b"
    assert found({"NAME": text}) == [("E007", '["NAME"]')]
    assert found({"TOKEN": text}) == [("E007", '["TOKEN"]')]
    assert found({"USER": text, "PASSWORD": text}) == [("E007", '["USER"]'), ("E007", '["PASSWORD"]')]
    assert found({"TLS": {"HOSTNAME": text}}) == [("E007", '["TLS"]["HOSTNAME"]')]
    assert found({"TLS": {"CA": text}}) == [("E007", '["TLS"]["CA"]')]
    assert found({"LOCAL_CACHE": {"SNAPSHOT_DIR": text}}) == [("E007", '["LOCAL_CACHE"]["SNAPSHOT_DIR"]')]


def test_spaces_and_wildcards_pass_where_they_do_no_harm():
    assert found({"NAME": "my shop *", "USER": "a b", "PASSWORD": "> *"}) == []


@pytest.mark.parametrize("key", ["API_PREFIX", "INBOX_PREFIX"])
@pytest.mark.parametrize("value", ["a b", "a.*", "a.>", "a*", ".a", "a.", "a..b", "a\nb", "a\n", "a\0", ".", " "])
def test_e008_a_prefix_is_words_joined_by_dots(key, value):
    assert found({key: value}) == [("E008", f'["{key}"]')]


@pytest.mark.parametrize("value", [None, "", "_INBOX", "$JS.hub.API", "_INBOX_shop.web-1"])
def test_a_prefix_passes(value):
    assert found({"API_PREFIX": value, "INBOX_PREFIX": value}) == []


@pytest.mark.parametrize("value", ["a.b", "a b", "*", ">", "a\n", "."])
def test_e009_a_domain_is_one_word(value):
    assert found({"DOMAIN": value}) == [("E009", '["DOMAIN"]')]


@pytest.mark.parametrize("value", [None, "", "hub", "leaf-1"])
def test_a_domain_passes(value):
    assert found({"DOMAIN": value}) == []
