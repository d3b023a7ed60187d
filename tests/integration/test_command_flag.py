"""``manage.py natskv_flag``, run as a user runs it, on a real server; and seen by other processes."""

from __future__ import annotations

import getpass
import io
import json
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.fix_commands import Manage
from tests.fix_waiting import eventually
from tests.flag_classes import Features
from tests.registry_classes import BUCKET

SETTINGS = {
    "INSTALLED_APPS": ["django.contrib.contenttypes", "django.contrib.auth", "django_natskv", "shop"],
    "SILENCED_SYSTEM_CHECKS": [],
}
CONFIG = """
import datetime as dt
from tests.flag_classes import Features
from django_natskv import registry
class Old(registry.FlagSet):
    leftover = registry.Flag(expires=dt.date(2020, 1, 2), owner="payments", description="an old one")
    class Meta:
        bucket = "{}"
"""
ELSEWHERE = """
from django_natskv import registry
class Far(registry.FlagSet):
    far = registry.Flag()
    class Meta:
        connection = "down"
"""


@pytest.fixture
def flag(manage: Manage, flags, nats_server):
    """Run natskv_flag in a project that declares the flags of the tests, and one that has expired."""
    (manage.directory / "shop").mkdir()
    (manage.directory / "shop" / "__init__.py").touch()
    (manage.directory / "shop" / "config.py").write_text(CONFIG.format(BUCKET))
    database = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(manage.directory / "db")}}
    manage.configure({"default": {"SERVERS": [nats_server.url]}}, **SETTINGS, DATABASES=database)
    return lambda *arguments: manage("natskv_flag", *arguments)


def as_json(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_flag_is_switched_with_who_and_why_and_shown(flag, flags):
    done = flag("on", "new_checkout", "--actor", "änn", "--comment", "launch")
    [first] = Features.new_checkout.history()
    assert (done.code, done.out, done.error) == (0, f"{first.revision}\n", "new_checkout: on for everyone")
    assert (first.actor, first.comment) == ("änn", "launch")
    eventually(lambda: Features.new_checkout.on() is True)
    shown = as_json(flag("show", "new_checkout", "--format", "json"))
    assert (shown["definition"], shown["revision"]) == (flags.read("new_checkout"), first.revision)
    assert (shown["says"], shown["owner"], shown["type"], shown["public"]) == (
        "on for everyone",
        "payments",
        "boolean",
        True,
    )
    done = flag("off", "new_checkout", "--format", "json")
    assert set(as_json(done)) == {"bucket", "key", "revision"}
    eventually(lambda: Features.new_checkout.on() is False)
    assert Features.new_checkout.history()[-1].actor == getpass.getuser()


def test_all_flags_are_listed_in_words(flag, flags):
    flag("rollout", "theme", "2.5", "--value", "new")
    flags.put("limit", b"{")
    listed = {one["name"]: one["says"] for one in as_json(flag("list", "--format", "json"))}
    assert listed["theme"] == '"new" for 2.5 % of users, otherwise the default (old)'
    assert listed["new_checkout"] == "off (declared)"
    assert "cannot be read" in listed["limit"]
    lines = flag("list").out.splitlines()
    assert lines[0].split() == ["Name", "Says", "Revision", "Owner", "Expires"]
    assert [line.split()[0] for line in lines[1:]] == sorted(listed)
    assert flag("list", "--format", "plain").out.splitlines()[0].count("\t") == 4


def test_a_flag_is_given_to_some(flag, flags):
    done = flag("target", "new_checkout", "--users", "7", "8", "--groups", "beta", "--staff")
    assert done.error == 'new_checkout: "on" for users 7, 8 or group beta or staff, otherwise the default (off)'
    eventually(lambda: [Features.new_checkout.on(key=key) for key in (7, 9)] == [True, False])
    done = flag(
        "target", "theme", "--value", "new", "--languages", "de", "--from", "2027-03-01", "--until", "2027-04-01T12:00"
    )
    assert "language de and from 2027-03-01" in done.error
    done = flag("target", "kill_switch", "--percentage", "0.5", "--value", "off", "--otherwise", "on")
    assert '"off" for 0.5 % of users' in done.error
    done = flag("target", "kill_switch", "--until", "2000-01-01", "--superusers", "--authenticated", "--value", "off")
    assert done.code == 0


def test_a_flag_is_given_to_whom_all_options_name_or_to_everyone_else(flag, flags):
    beta, german = {"groups": ["beta"]}, {"language": "de-at"}
    askers: tuple[dict[str, Any], ...] = ({**beta, **german}, beta, german, {})
    for options, words, answers in (
        (["--all"], "group beta and language de", [True, False, False, False]),
        (["--not"], "not (group beta or language de)", [False, False, False, True]),
        (["--all", "--not"], "not (group beta and language de)", [False, True, True, True]),
    ):
        done = flag("target", "new_checkout", *options, "--groups", "beta", "--languages", "de")
        assert done.error == f'new_checkout: "on" for {words}, otherwise the default (off)'

        def answered(wanted: list[bool] = answers) -> bool:
            people = [{"groups": [], "language": "en", **one} for one in askers]
            return [Features.new_checkout.on(key=7, **one) for one in people] == wanted

        eventually(answered)


def test_a_flag_is_set_to_a_value_or_a_definition(flag, flags, tmp_path):
    assert flag("set", "theme", "new").code == 0
    assert flags.read("theme")["defaultVariant"] == "new"
    assert flag("set", "limit", "50").code == 0
    eventually(lambda: Features.limit.value() == 50)
    path = tmp_path / "definition.json"
    path.write_text(json.dumps({"state": "ENABLED", "variants": {"huge": 900}, "defaultVariant": "huge"}))
    assert flag("set", "limit", "--json", str(path)).error == "limit: huge for everyone"
    eventually(lambda: Features.limit.value() == 900)
    path.write_text(json.dumps({"state": "ON", "variants": {"huge": True}, "defaultVariant": "huge"}))
    done = flag("set", "limit", "--json", str(path))
    assert (done.code, "state" in done.error) == (2, True)
    assert Features.limit.value() == 900


def test_a_flag_is_reset_to_what_is_declared_whatever_is_stored(flag, flags):
    done = flag("reset", "new_checkout")
    assert (done.code, done.out, done.error) == (0, "", "new_checkout: off (declared); nothing was stored")
    assert not flags.exists
    assert flag("on", "new_checkout").code == 0
    done = flag("reset", "new_checkout", "--actor", "ann", "--comment", "enough")
    assert (done.code, done.error) == (0, "new_checkout: off (declared)")
    assert flags.read("new_checkout") is None
    assert [(one.actor, one.comment) for one in Features.new_checkout.history()][-1] == ("ann", "enough")
    flags.put("limit", b"{")
    gone = {"bucket": BUCKET, "key": "limit", "reset": True}
    assert as_json(flag("reset", "limit", "--format", "json")) == gone
    assert flags.read("limit") is None


def test_what_a_flag_says_to_somebody_is_explained(flag, flags):
    assert as_json(flag("explain", "new_checkout", "--format", "json"))["why"].startswith("nothing is stored")
    flag("target", "new_checkout", "--users", "7", "--groups", "beta")
    told = as_json(flag("explain", "new_checkout", "--key", "7", "--format", "json"))
    assert (told["value"], told["variant"], told["reason"]) == (True, "on", "TARGETING_MATCH")
    assert told["why"] == "a rule matched: user 7"
    assert told["rules"] == [{"rule": "user 7", "holds": True}, {"rule": "group beta", "holds": False}]
    told = as_json(flag("explain", "new_checkout", "--attribute", 'groups=["beta"]', "--format", "json"))
    assert told["why"] == "a rule matched: group beta"
    done = flag("explain", "new_checkout", "--key", "8")
    assert "Why       no rule matched" in done.out
    assert "user 7: no; group beta: no" in done.out
    flags.put("theme", b"{")
    assert as_json(flag("explain", "theme", "--format", "json"))["reason"] == "ERROR"


_USER_7 = {"in": [{"var": "targetingKey"}, ["7"]]}
_STAFF = {"var": "is_staff"}
_PRO = {"===": [{"var": "plan"}, "pro"]}
_RULES = {"if": [{"and": [_USER_7, _STAFF]}, "new", _PRO, "new", "old"]}
_HALF = {"fractional": [[True, 50], [False, 50]]}


@pytest.mark.parametrize(
    ("targeting", "key", "attributes", "why"),
    [
        # Of each rule all has to hold, and a part of one decides nothing.
        (_RULES, "7", ["plan=pro"], 'a rule matched: plan is "pro"'),
        (_RULES, "7", ["plan=free"], "no rule matched"),
        (_RULES, "7", ["is_staff=true"], "a rule matched: user 7 and staff"),
        ({"if": [{"or": [_STAFF, _USER_7, _PRO]}, "new"]}, "7", ["plan=pro"], "a rule matched: user 7"),
        ({"if": [_USER_7, None, _PRO, "new"]}, "7", [], "a rule matched and leaves it at the default: user 7"),
        ({"if": [_HALF, "new", _PRO, "new"]}, "4", ["plan=pro"], 'a rule matched: plan is "pro"'),
        ({"if": [_HALF, "new"]}, "4", [], "a percentage decided"),
        ({"if": [_HALF, "new"]}, "7", [], "a percentage decided: 50 % of users"),
        ({"if": [_HALF, "new"]}, None, [], "no rule matched; a percentage goes by --user or --key"),
        ({"fractional": [["old", 50], ["new", 50]]}, "7", [], "a percentage decided"),
        ({"var": "theme"}, "7", ["theme=new"], "targeting decided"),
    ],
)
def test_the_rule_that_is_named_is_the_one_that_decided(flags, targeting, key, attributes, why):
    definition = {"state": "ENABLED", "variants": {"old": "old", "new": "new"}, "defaultVariant": "old"}
    flags.put("theme", json.dumps({**definition, "targeting": targeting}).encode())
    out = io.StringIO()
    call_command("natskv_flag", "explain", "theme", key=key, attribute=attributes, format="json", stdout=out)
    assert json.loads(out.getvalue())["why"] == why


def test_a_database_that_cannot_be_asked_is_one_line(flag):
    done = flag("explain", "new_checkout", "--user", "7")
    assert (done.code, done.out) == (1, "")
    assert "no such table: auth_user" in done.error


def test_a_user_of_the_database_is_asked_about(flag, manage):
    assert manage("migrate", "--verbosity", "0").code == 0
    made = (
        "from django.contrib.auth.models import Group, User; "
        "User.objects.create(pk=7).groups.add(Group.objects.create(name='beta'))"
    )
    assert manage("shell", "--verbosity", "0", "-c", made).code == 0
    flag("target", "new_checkout", "--groups", "beta")
    told = as_json(flag("explain", "new_checkout", "--user", "7", "--format", "json"))
    assert (told["value"], told["why"]) == (True, "a rule matched: group beta")
    assert flag("explain", "new_checkout", "--user", "8").code == 3


def test_expired_flags_are_listed_with_their_owners_and_warned_of(flag, manage):
    [gone] = as_json(flag("expired", "--format", "json"))
    assert (gone["name"], gone["owner"], gone["expires"]) == ("leftover", "payments", "2020-01-02")
    assert len(as_json(flag("expired", "--on", "2999-12-31", "--format", "json"))) == 2
    checked = manage("check")
    assert "natskv.W220" in checked.err
    assert checked.code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("on", "new_chekout"), "Did you mean new_checkout?"),
        (("on", "zzz"), "natskv_flag list"),
        (("on", "theme"), "neither on nor off"),
        (("rollout", "new_checkout", "101"), "from 0 to 100"),
        (("rollout", "new_checkout", "many"), "from 0 to 100"),
        (("rollout", "new_checkout", "33.3333"), "up to 3 decimals"),
        (("rollout", "theme", "5"), "--value"),
        (("rollout", "theme", "5", "--value", "blue"), "old, new"),
        (("target", "new_checkout"), "Say for whom"),
        (("target", "new_checkout", "--not", "--until", "2027-03-01"), "Say for whom"),
        (("target", "new_checkout", "--from", "soon"), "2027-03-01"),
        (("target", "new_checkout", "--until", "2027-13-01"), "2027-03-01"),
        (("set", "theme"), "one of them"),
        (("set", "theme", "new", "--json", "x"), "one of them"),
        (("set", "theme", "--json", "/no/such"), "cannot be read"),
        (("set", "theme", "--json", "manage.py"), "no JSON"),
        (("explain", "theme", "--attribute", "plan"), "NAME=VALUE"),
        (("expired", "--on", "today"), "no day"),
        (("reset", "zzz"), "natskv_flag list"),
        (("show", "theme", "--using", "other"), "'default'"),
        (("nothing",), "invalid choice"),
    ],
)
def test_a_mistake_in_the_call_is_one_line_and_writes_nothing(flag, flags, arguments, text):
    done = flag(*arguments)
    assert (done.code, done.out) == (2, "")
    assert text in done.error
    assert not flags.exists


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        (None, r"^There is no stdin to read a value from\.$"),
        (io.TextIOWrapper(io.BytesIO(b"{")), "^--json: stdin is no JSON: Expecting"),
    ],
    ids=["closed", "no JSON"],
)
def test_a_definition_that_stdin_does_not_have_is_told_so(flags, monkeypatch, stdin, said):
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(CommandError, match=said) as refused:
        call_command("natskv_flag", "set", "new_checkout", "--json", "-")
    assert refused.value.returncode == 2
    assert not flags.exists


def test_using_leaves_out_the_flags_of_other_connections(manage, nats_server):
    (manage.directory / "shop").mkdir()
    (manage.directory / "shop" / "__init__.py").touch()
    (manage.directory / "shop" / "config.py").write_text(ELSEWHERE)
    down = {"SERVERS": ["nats://127.0.0.1:1"]}
    manage.configure({"default": {"SERVERS": [nats_server.url]}, "down": down}, **SETTINGS)
    done = manage("natskv_flag", "list")
    assert (done.code, 'NATSKV["down"]' in done.error) == (1, True)
    done = manage("natskv_flag", "list", "--using", "default", "--format", "json")
    assert (as_json(done), done.error) == ([], "No flag is declared on the connection 'default'.")
    done = manage("natskv_flag", "list", "--using", "nowhere")
    assert (done.code, "nowhere" in done.error) == (2, True)
    done = manage("natskv_flag", "show", "far", "--using", "default")
    assert (done.code, "'down', not on 'default'" in done.error) == (2, True)


def test_without_flags_it_says_so(manage, nats_server):
    manage.configure({"default": {"SERVERS": [nats_server.url]}}, INSTALLED_APPS=["django_natskv"])
    done = manage("natskv_flag", "list")
    assert (done.code, done.out, done.error) == (0, "", "No flag is declared.")
    done = manage("natskv_flag", "expired")
    assert (done.code, done.out, done.error) == (0, "", "No flag has expired.")


def test_without_a_server_it_fails_in_one_line(flag, manage):
    manage.configure({"default": {"SERVERS": ["nats://127.0.0.1:1"]}}, **SETTINGS)
    for arguments in (("list",), ("on", "new_checkout"), ("explain", "theme"), ("reset", "theme")):
        done = flag(*arguments)
        assert (done.code, done.out) == (1, "")
        assert "SERVERS" in done.error


def test_a_flag_flipped_by_the_command_is_seen_by_running_processes(flag, flags, program, settings):
    code = """
from tests.flag_classes import Features
from django_natskv import registry
from tests.fix_waiting import eventually
print(json.dumps(Features.new_checkout.on()), flush=True)
eventually(lambda: Features.new_checkout.on(), 50)
print(json.dumps(Features.new_checkout.details().reason), flush=True)
eventually(lambda: not Features.new_checkout.on(), 50)
print(json.dumps(Features.new_checkout.on()), flush=True)
"""
    programs = [program(code, settings.NATSKV) for _ in range(2)]
    assert [one.read() for one in programs] == [False, False]
    assert flag("on", "new_checkout").code == 0
    assert [one.read() for one in programs] == ["STATIC", "STATIC"]
    assert flag("off", "new_checkout").code == 0
    assert [one.read() for one in programs] == [False, False]
