"""Declared flags on a real server: asked, changed, seen at once, and safe whatever is stored."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
import logging
import pickle
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core import mail
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

from django_natskv import connections, registry
from django_natskv.exceptions import UsageError
from django_natskv.registry import InvalidDefinition, _flag_pages, _flag_sets, rules as r
from django_natskv.registry._flag_pages import Page
from django_natskv.registry._flag_sets import Undeclared
from tests.fix_local import insist
from tests.fix_registry import all_is_told
from tests.fix_waiting import eventually
from tests.flag_classes import Features
from tests.registry_classes import BUCKET

ON_OFF = {"on": True, "off": False}


@pytest.fixture
def request_of():
    def make(user=None):
        request = RequestFactory().get("/")
        request.user = user or AnonymousUser()
        return request

    return make


@pytest.fixture
def failures():
    """What flag_failed and undecodable told: (sender, key, error)."""
    heard = []

    def receive(sender, key, error, **_):
        heard.append((sender, key, str(error)))

    all_is_told()
    for signal in (registry.flag_failed, registry.undecodable):
        signal.connect(receive)
    yield heard
    for signal in (registry.flag_failed, registry.undecodable):
        signal.disconnect(receive)


# --- nothing stored ---


def test_what_is_declared_holds_while_nothing_is_stored(flags, request_of, failures):
    request = request_of()
    assert Features.new_checkout.on(request) is False
    assert Features.kill_switch.on() is True
    assert (Features.theme.value(request), Features.limit.value(), Features.rate.value()) == ("old", 10, 0.5)
    assert Features.layout.value() == {"columns": 1}
    details = Features.theme.details(request)
    assert (details.value, details.variant, details.reason, details.error) == ("old", "old", "DEFAULT", "")
    assert Features.theme.definition is None
    assert not flags.exists  # a read makes no bucket
    assert failures == []


# --- changed ---


def test_a_flag_is_set_for_everyone_and_reset(flags, request_of, do):
    revision = do(Features.new_checkout.set, True, actor="änn", comment="launch")
    assert Features.new_checkout.on(request_of()) is True
    details = Features.new_checkout.details()
    assert (details.variant, details.reason, details.revision) == ("on", "STATIC", revision)
    assert details.metadata == {"owner": "payments", "expires": "2999-03-01"}
    stored = flags.read("new_checkout")
    assert (stored["state"], stored["variants"], stored["defaultVariant"]) == ("ENABLED", ON_OFF, "on")
    assert Features.new_checkout.definition == stored
    do(Features.new_checkout.reset, actor="bob")
    assert Features.new_checkout.on() is False
    assert flags.read("new_checkout") is None
    do(Features.new_checkout.reset)  # nothing to do
    first, second = do(Features.new_checkout.history)
    assert (first.actor, first.comment, first.value, first.revision) == ("änn", "launch", stored, revision)
    assert first.changes["defaultVariant"] == (None, "on")
    assert (second.actor, second.value, second.changes["state"]) == ("bob", None, ("ENABLED", None))


def test_rules_say_for_whom(flags, request_of):
    Features.theme.set("new", when=(r.attribute("plan") == "pro") | r.users(7))
    assert Features.theme.value(plan="pro") == "new"
    assert Features.theme.value(plan="free") == "old"
    assert Features.theme.value(key=7) == "new"
    assert Features.theme.value(user=User(pk=7)) == "new"
    assert Features.theme.value(request_of(User(pk=7))) == "new"
    assert Features.theme.value(request_of(User(pk=8)), plan="pro") == "new"
    assert Features.theme.value(request_of(User(pk=8)), key=7) == "new"
    assert Features.theme.details(plan="pro").reason == "TARGETING_MATCH"
    assert Features.theme.details().reason == "DEFAULT"
    Features.kill_switch.set(False, when=r.staff, otherwise=True)
    assert Features.kill_switch.on(request_of(User(pk=8, is_staff=True))) is False
    assert Features.kill_switch.on(request_of(User(pk=8))) is True


def test_numbers_and_objects_may_be_defined_that_code_does_not_have(flags):
    Features.limit.define({"state": "ENABLED", "variants": {"huge": 900}, "defaultVariant": "huge"})
    assert Features.limit.value() == 900
    Features.layout.set({"columns": 3})
    Features.layout.value()["columns"] = 99  # the reader's own
    assert Features.layout.value() == {"columns": 3}
    Features.rate.set(1.5)
    assert Features.rate.value() == 1.5


def test_what_is_invalid_is_refused_and_nothing_is_written(flags, do):
    with pytest.raises(UsageError, match="no variant with the value 'blue'"):
        do(Features.theme.set, "blue")
    with pytest.raises(InvalidDefinition, match=r'Cannot define "theme": .*defaultVariant'):
        do(Features.theme.define, {"state": "ENABLED", "variants": {"old": "old"}, "defaultVariant": "blue"})
    with pytest.raises(InvalidDefinition, match="shared rule"):
        do(Features.new_checkout.define, refers_to("nobody_has"))
    with pytest.raises(InvalidDefinition):
        do(Features.share_rules, {"pro": 7})
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    for stored in (None, [1], "on", refers_to(float("nan")), {**refers_to("x"), "targeting": deep}):
        with pytest.raises(InvalidDefinition):
            do(Features.new_checkout.define, stored)
    assert not flags.exists


def test_a_flag_can_be_handed_to_another_process():
    assert pickle.loads(pickle.dumps(Features.theme)) is copy.deepcopy(Features.theme) is Features.theme


def refers_to(rule):
    targeting = {"if": [{"$ref": rule}, "on", "off"]}
    return {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "off", "targeting": targeting}


def test_shared_rules_are_kept_beside_the_flags(flags, do):
    rules = {"pro": (r.attribute("plan") == "pro").logic}
    do(Features.share_rules, rules, actor="ann")
    assert flags.read("_evaluators") == rules == Features.shared_rules
    do(Features.new_checkout.define, refers_to("pro"))
    assert Features.new_checkout.on(plan="pro") is True
    do(Features.share_rules, {"pro": (r.attribute("plan") == "max").logic})
    assert (Features.new_checkout.on(plan="pro"), Features.new_checkout.on(plan="max")) == (False, True)


def test_a_write_of_somebody_else_between_read_and_write_is_overwritten_knowingly(flags):
    async def together():
        await asyncio.gather(*(Features.limit.aset(value) for value in (10, 50) * 5))

    asyncio.run(together())
    assert Features.limit.value() in (10, 50)
    assert len(Features.limit.history()) == 10


def test_changes_of_others_are_seen(flags):
    Features.kill_switch.set(True)
    assert Features.kill_switch.on() is True
    flags.put("kill_switch", {"state": "ENABLED", "variants": ON_OFF, "defaultVariant": "off"})
    eventually(lambda: Features.kill_switch.on() is False)
    flags.bucket.delete("kill_switch")
    eventually(lambda: Features.kill_switch.on() is True)


def test_a_change_is_compiled_once_and_what_did_not_change_is_kept(flags):
    Features.theme.set("new", when=r.attribute("plan") == "pro")
    assert Features.theme.value(plan="pro") == "new"
    compiled = Features.theme._now()
    Features.kill_switch.set(False)
    assert Features.kill_switch.on() is False
    assert Features.theme._now() is compiled
    Features.theme.set("new")
    assert Features.theme._now() is not compiled


def test_what_was_answered_in_a_request_is_answered_again(flags, request_of):
    request = request_of(User(pk=7))
    Features.theme.set("new", when=r.users(7))
    assert Features.theme.value(request) == "new"
    request.user = User(pk=8)  # who has signed in meanwhile: a page is not made of two answers
    assert Features.theme.value(request) == "new"
    assert Features.theme.value(request_of(request.user)) == "old"


def test_changes_are_told_with_both_sides(flags):
    heard = []

    def receive(sender, old, new, changed, actor, comment, **_):
        heard.append((sender, old, new, changed, actor, comment))

    Features.theme.set("old")
    assert Features.theme.value() == "old"
    registry.config_changed.connect(receive, sender=Features)
    try:
        assert registry.wait_ready(30)
        before = Features.theme.definition
        Features.theme.set("new", actor="ann", comment="why")
        # The change before may be told too: a copy that was begun by its write may have found the bucket still empty.
        [told] = eventually(lambda: [one for one in heard if one[4] == "ann"])
    finally:
        registry.config_changed.disconnect(receive, sender=Features)
    assert told == (Features, before, flags.read("theme"), ("theme",), "ann", "why")


# --- never an exception ---


@pytest.mark.parametrize(
    ("stored", "error"),
    [
        (b"{", "holds no JSON"),
        (b"\xff", "holds no JSON"),
        ([1], "object"),
        ({"state": "ENABLED", "variants": {"old": 3}, "defaultVariant": "old"}, "type str"),
        ({"state": "ENABLED", "variants": {"old": "old"}, "defaultVariant": "blue"}, "blue"),
        (
            {
                "state": "ENABLED",
                "variants": {"new": "new"},
                "defaultVariant": "new",
                "targeting": {"$ref": "gone"},
            },
            "gone",
        ),
    ],
)
def test_what_cannot_be_used_gives_the_default_a_reason_one_line_and_a_signal(flags, failures, caplog, stored, error):
    revision = flags.put("theme", stored)
    caplog.set_level(logging.WARNING, "django_natskv.flags")
    eventually(lambda: Features.theme.details().error)
    details = Features.theme.details()
    assert (details.value, details.variant, details.reason, details.revision) == ("old", None, "ERROR", revision)
    assert error in details.error
    for _ in range(3):
        assert Features.theme.value() == "old"
    assert Features.theme.details(key="x").value == "old"
    lines = [record.getMessage() for record in caplog.records if record.name == "django_natskv.flags"]
    assert len(lines) == 1
    assert '"theme"' in lines[0]
    eventually(lambda: (Features, "theme") in [(sender, key) for sender, key, _ in failures])
    assert flags.bucket.get("theme").revision == revision


def test_a_switched_off_definition_gives_the_default(flags):
    Features.theme.define({"state": "DISABLED", "variants": {"new": "new"}, "defaultVariant": "new"})
    details = Features.theme.details()
    assert (details.value, details.reason) == ("old", "DISABLED")


def test_shared_rules_that_are_no_json_are_told_and_fail_nobody(flags, failures):
    flags.put("_evaluators", b"{")
    flags.put("new_checkout", refers_to("pro"))
    eventually(lambda: "pro" in Features.new_checkout.details().error)
    assert Features.new_checkout.on() is False
    eventually(lambda: (None, "_evaluators") in [(sender, key) for sender, key, _ in failures])


def test_with_nats_down_there_is_the_default_one_line_and_one_signal(settings, failures, caplog, natskv):
    settings.NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"], "LOCAL_CACHE": {"WAIT": 30}}}
    caplog.set_level(logging.WARNING)
    details = Features.theme.details()
    assert (details.value, details.variant, details.reason, details.revision) == ("old", None, "ERROR", None)
    assert "cannot be read" in details.error
    assert Features.kill_switch.on() is True
    assert Features.limit.value(key="x") == 10
    lines = [one.getMessage() for one in caplog.records if "declared stands in" in one.getMessage()]
    assert len(lines) == 1
    assert [one for one in caplog.records if one.name == "django_natskv.flags"] == []
    assert [(sender, key) for sender, key, _ in eventually(lambda: failures)] == [(None, None)]
    connections.close_all()


def test_what_was_read_holds_while_nats_is_away(make_server, settings):
    server = make_server()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"WAIT": 30}}}
    Features.theme.set("new")
    assert Features.theme.value() == "new"
    eventually(lambda: registry.status()[("default", BUCKET)].state == "live")
    server.kill()
    eventually(lambda: registry.status()[("default", BUCKET)].state == "stale")
    details = Features.theme.details()
    assert (details.value, details.reason) == ("new", "STATIC")


def test_in_a_running_loop_a_user_that_is_not_loaded_is_not_waited_for(flags, caplog):
    Features.theme.set("new", when=r.users(7))
    request = RequestFactory().get("/")
    request.user = SimpleLazyObject(lambda: User(pk=7))  # type: ignore[assignment]  # as the middleware does

    async def auser():
        return User(pk=7)

    request.auser = auser

    async def view():
        return Features.theme.details(request), await Features.theme.avalue(request)

    details, value = asyncio.run(view())
    assert (details.value, details.reason) == ("old", "ERROR")
    assert "avalue()" in details.error
    assert "await aon()" in caplog.text
    assert value == "new"


def test_the_awaited_faces_answer_the_same(flags, request_of):
    Features.new_checkout.set(True, when=r.users(7))
    request = request_of(User(pk=7))

    async def ask():
        assert await Features.new_checkout.aon(request) is True
        assert await Features.new_checkout.avalue(key=8) is False
        assert await Features.kill_switch.aon() is True
        assert await Features.theme.avalue() == "old"
        return await Features.new_checkout.adetails(request)

    assert asyncio.run(ask()).reason == "TARGETING_MATCH"


# --- names that nobody declared ---


def test_an_undeclared_name_raises_where_mistakes_may():
    with pytest.raises(registry.UnknownFlag, match='"new_chekout" in Features'):
        Features.new_chekout  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(registry.UnknownFlag):
        registry.find_flag("nobody")
    assert registry.find_flag("theme") is Features.theme
    assert not hasattr(Features, "_private")


def test_an_undeclared_name_is_off_in_production_and_logged_once(monkeypatch, caplog, request_of):
    monkeypatch.delattr(mail, "outbox")
    assert not hasattr(Features, "__wrapped__")  # which Python asks of any class
    found: Any = Features.nobody_says_so  # type: ignore[attr-defined]
    assert isinstance(found, Undeclared)
    for _ in range(2):
        assert Features.nobody_says_so is found  # type: ignore[attr-defined]
        assert (found.on(request_of()), found.value(), found.details().reason) == (False, None, "ERROR")
        assert registry.find_flag("nobody_says_so").details().error

    async def ask():
        return await found.aon(), await found.avalue(), (await found.adetails()).reason

    assert asyncio.run(ask()) == (False, None, "ERROR")
    assert len([one for one in caplog.records if "nobody_says_so" in one.getMessage()]) == 1
    with pytest.raises(registry.UnknownFlag):
        found.set(True)
    with pytest.raises(registry.UnknownFlag):
        found.definition  # noqa: B018


def test_names_that_a_browser_makes_up_are_not_kept_without_end(monkeypatch, caplog):
    monkeypatch.delattr(mail, "outbox")
    monkeypatch.setattr(_flag_sets, "_undeclared", {})
    monkeypatch.setattr(_flag_sets, "MOST_UNDECLARED", 3)
    for number in range(6):
        assert registry.find_flag(f"made_up_{number}").value() is None
    told = [one for one in caplog.records if "made_up_" in one.getMessage()]  # others may end meanwhile, and say so
    assert len(_flag_sets._undeclared) == len(told) == 3


# --- moments ---


def test_a_pinned_moment_answers_the_same_until_its_end(flags):
    flags.put("theme", json.loads('{"state":"ENABLED","variants":{"new":"new"},"defaultVariant":"new"}'))
    eventually(lambda: Features.theme.value() == "new")
    with registry.snapshot():
        assert Features.theme.value() == "new"
        flags.bucket.delete("theme")
        before = Features.theme.details()
        assert before.value == "new"
        assert Features.kill_switch.on() is True
    eventually(lambda: Features.theme.value() == "old")


def test_an_own_write_is_seen_within_a_pinned_moment(flags):
    with registry.snapshot():
        assert Features.theme.value() == "old"
        Features.theme.set("new")
        assert Features.theme.value() == "new"
        Features.theme.reset()
        assert Features.theme.value() == "old"


def test_percentages_hold_over_many_keys(flags):
    Features.new_checkout.set(True, when=r.percentage(25))
    chosen = {number for number in range(100_000) if Features.new_checkout.on(key=f"user-{number}")}
    assert 24_500 <= len(chosen) <= 25_500
    assert Features.new_checkout.details(key="user-1").reason == "SPLIT"
    Features.new_checkout.set(True, when=r.percentage(30))
    assert all(Features.new_checkout.on(key=f"user-{number}") for number in sorted(chosen)[:2000])


def test_a_date_window_is_asked_each_time(flags):
    Features.kill_switch.set(False, when=r.between(None, dt.datetime(2001, 1, 1, tzinfo=dt.UTC)))
    assert Features.kill_switch._now().constant is None
    assert Features.kill_switch.on() is True


def test_a_copy_that_failed_from_the_start_recovers(make_server, settings):
    server = make_server()
    server.stop()
    settings.NATSKV = {"default": {"SERVERS": [server.url], "LOCAL_CACHE": {"WAIT": 30}}}
    registry.start()  # the copy has a moment from then on, which an empty bucket does not change
    assert Features.theme.details().reason == "ERROR"
    server.restart()
    eventually(lambda: Features.theme.details().reason == "DEFAULT")  # there is no bucket
    insist(Features.theme.set, "new")  # on another connection, which comes back by itself too
    eventually(lambda: Features.theme.value() == "new")


def test_what_another_thread_reads_meanwhile_does_not_make_a_flag_stale(flags, monkeypatch):
    Features.theme.set("old")
    assert Features.theme.value() == "old"
    flag, look = Features.theme, Page.of

    def and_then_it_changes(page, one):
        found = look(page, one)
        monkeypatch.setattr(Page, "of", look)
        flag.set("new")
        Features.kill_switch.on()  # reads the newer page
        return found

    Features.limit.set(50)  # so that there is something to look up
    monkeypatch.setattr(Page, "of", and_then_it_changes)
    assert flag.value() == "old"
    assert flag.value() == "new"


def test_a_change_while_a_page_is_read_is_not_lost(flags, monkeypatch):
    read = _flag_pages._read

    def and_then_it_changes(place, cache):
        found = read(place, cache)
        monkeypatch.setattr(_flag_pages, "_read", read)
        Features.theme.set("new")
        return found

    Features.limit.set(50)  # so that there is something to read
    monkeypatch.setattr(_flag_pages, "_read", and_then_it_changes)
    assert [Features.theme.value(), Features.theme.value()] == ["old", "new"]
