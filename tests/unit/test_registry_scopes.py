"""Scopes: their keys, which document wins, what of an object is a scope's own."""

from __future__ import annotations

import copy
import enum
import gc
import json
import pickle
import uuid
from dataclasses import replace

import pytest
from django.core.exceptions import ValidationError
from hypothesis import example, given, strategies as st

from django_natskv.exceptions import UsageError
from django_natskv.kv.names import check_key
from django_natskv.registry import Conflict, _scopes
from django_natskv.registry._layers import chain, owns, scope_at
from django_natskv.registry._reading import key_of
from django_natskv.registry._storing import load, to_document
from tests.registry_classes import ShopConfig, SiteConfig, Zone

KEY = "shop.SiteConfig"
SITE = f"{KEY}.site.3"
WHERE = SiteConfig._declaration
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def loaded(document, under=None, last=None, key=SITE, revision=3):
    data = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
    return load(SiteConfig, key, data, revision, last, under)[0]


# --- keys ---


@given(TEXT, TEXT)
@example("a.b", "a=2Eb")
@example("site", "*")
def test_a_scope_has_one_key_that_no_other_has(site, tenant):
    for values in ({"site": site}, {"tenant": tenant}, {"site": site, "tenant": tenant}):
        key = SiteConfig.for_scope(**values).key
        check_key(key)
        assert scope_at(WHERE, key) == values
        assert owns(WHERE, key)


@pytest.mark.parametrize(
    "key",
    [
        "site",
        "site.3.tenant",
        "tenant.a.site.3",  # the other way round
        "site.3.site.4",
        "other.3",
        "site.=33",  # an escape where none is needed
        "site.a=2eb",  # in small letters
        "site.=FF",  # no text
        "site.3.extra",
        "site.3.other.4",
    ],
)
def test_another_key_below_the_class_is_no_scope(key):
    assert scope_at(WHERE, f"{KEY}.{key}") is None
    assert not owns(WHERE, f"{KEY}.{key}")
    with pytest.raises(ValidationError):
        key_of(SiteConfig, f"{KEY}.{key}")


def test_a_class_without_scopes_has_one_key():
    assert scope_at(ShopConfig._declaration, "shop.ShopConfig.site.3") is None
    assert scope_at(WHERE, f"{KEY}x") is None
    assert chain(Zone._declaration, "shop.Zone.7") == ("shop.Zone.7",)


def test_the_later_name_wins_and_both_together_win_over_each():
    assert SiteConfig.for_scope(tenant="a", site=3)._chain == (
        KEY,
        f"{KEY}.site.3",
        f"{KEY}.tenant.a",
        f"{KEY}.site.3.tenant.a",
    )


def test_of_three_names_the_last_wins_over_the_first_two_together():
    where = replace(SiteConfig._declaration, scopes=("a", "b", "c"))
    parts = ("", ".a.1", ".b.2", ".a.1.b.2", ".c.3", ".a.1.c.3", ".b.2.c.3", ".a.1.b.2.c.3")
    assert chain(where, f"{KEY}.a.1.b.2.c.3") == tuple(f"{KEY}{part}" for part in parts)


class Number(enum.IntEnum):
    THREE = 3


class Word(enum.StrEnum):
    THREE = "3"


def test_one_scope_is_one_object_however_it_is_asked_for():
    scope = SiteConfig.for_scope(site=3)
    for same in ("3", Number.THREE, Word.THREE, Zone(number=3)):
        assert SiteConfig.for_scope(site=same) is scope
    assert SiteConfig.for_scope(site=uuid.UUID(int=3)).values == {"site": str(uuid.UUID(int=3))}
    assert SiteConfig.for_scope(tenant="a", site=3) is SiteConfig.for_scope(site=3, tenant="a")
    assert pickle.loads(pickle.dumps(scope)) is scope
    assert copy.deepcopy(scope) is scope
    assert repr(scope) == f"<Scope {SITE}>"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sit": 3}, "no scope 'sit'. Its Meta.scopes are: site, tenant."),
        ({"site": None}, "site=NoneType is no scope"),
        ({"site": ""}, "site is empty"),
        ({"site": True}, "site=bool is no scope"),
        ({"site": 1.0}, "site=float is no scope"),
        ({"site": [3]}, "site=list is no scope"),
        ({"site": [3], "tenant": "a"}, "site=list is no scope"),
        ({"site": Zone()}, "site=NoneType is no scope"),
        ({"site": "\ud800"}, "half of a character"),
        ({"site": "x" * 1100}, "has 1121 characters of 1024"),
    ],
)
def test_a_mistake_is_told_and_never_taken_for_another_scope(values, said):
    SiteConfig.for_scope(site=1)
    with pytest.raises(UsageError, match=said):
        SiteConfig.for_scope(**values)


def test_a_class_without_scopes_says_so():
    with pytest.raises(UsageError, match=r"Its Meta\.scopes are: none"):
        ShopConfig.for_scope(site=3)
    assert ShopConfig.for_scope().key == "shop.ShopConfig"


def test_what_is_kept_ready_is_bounded(monkeypatch):
    monkeypatch.setattr(_scopes, "MOST_KEPT", 5)
    scopes = _scopes.Scopes(SiteConfig)
    held = scopes.find({"site": "held"})
    for number in range(20):
        scopes.find({"site": number})
        scopes.find({"site": uuid.UUID(int=number)})
    assert len(scopes.given) == 5
    gc.collect()
    assert len(scopes.alive()) <= 6
    assert scopes.find({"site": "held"}) is held


def test_a_forked_child_has_a_lock_of_its_own():
    scopes = SiteConfig._scopes
    with scopes._lock:  # by a thread that the child does not have
        _scopes._forked()
        assert SiteConfig.for_scope(site="forked").key == f"{KEY}.site.forked"


# --- one document over another ---


def test_a_field_reads_as_the_scope_sets_it_else_as_it_falls_back_to():
    under = loaded({"banner": "all", "limit": 5, "tags": ["x"]}, key=KEY)
    found = loaded({"banner": "three"}, under)
    assert (found.banner, found.limit, found.tags, found.pk, found.scope) == (
        "three",
        5,
        ["x"],
        SITE,
        {"site": "3"},
    )
    assert found.own_fields == ("banner",)
    found.tags.append("y")
    assert under.tags == ["x"]


def test_only_what_the_scope_sets_is_stored_and_it_stays_set():
    under = loaded({"banner": "all", "limit": 5}, key=KEY)
    assert to_document(loaded(None, under)) == {}
    found = loaded({"banner": "all"}, under)  # the same by now: set all the same
    found.limit = 6
    assert to_document(found) == {"banner": "all", "limit": 6}
    found.limit = 5
    assert to_document(found) == {"banner": "all"}
    found.banner = ""
    assert to_document(found) == {"banner": ""}  # the declared default, but not what it falls back to


def test_a_scope_can_set_what_it_falls_back_to_and_follow_it_again():
    found = loaded({"banner": "three", "later": 1}, loaded({"banner": "all", "tags": [1]}, key=KEY))
    found.own("limit", "tags")
    assert found.own_fields == ("banner", "limit", "tags")
    assert to_document(found) == {"banner": "three", "limit": 10, "tags": [1], "later": 1}
    found.inherit("banner", "tags")
    assert (found.banner, found.own_fields) == ("all", ("limit",))
    assert to_document(found) == {"limit": 10, "later": 1}
    with pytest.raises(ValueError, match="no such fields"):
        found.inherit("bannner")
    everybody = loaded({"banner": "all"}, key=KEY)
    with pytest.raises(UsageError, match="for a scope"):
        everybody.own("limit")
    everybody.inherit("banner")
    assert (everybody.banner, to_document(everybody)) == ("", {})


def test_what_cannot_be_read_is_the_last_good_value_of_the_scope_else_what_it_falls_back_to():
    under = loaded({"limit": 5}, key=KEY)
    good = loaded({"limit": 7}, under)
    assert loaded({"limit": "many"}, under).limit == 5
    bad = loaded({"limit": "many"}, under, good)
    assert (bad.limit, bad.undecodable, to_document(bad)) == (7, ("limit",), {"limit": "many"})
    later = loaded({"limit": 6}, key=KEY)
    assert loaded({"limit": "many"}, later, bad).limit == 7
    never = loaded({"limit": "many"}, under, loaded({}, under))
    assert (never.limit, loaded({"limit": "many"}, later, loaded({}, under)).limit) == (5, 6)
    bad.inherit("limit")
    assert (bad.limit, to_document(bad)) == (5, {})


def test_a_document_that_cannot_be_read_at_all_keeps_what_the_scope_set():
    under = loaded({"limit": 5, "banner": "all"}, key=KEY)
    broken = loaded(b"{broken", under, loaded({"limit": 7}, under))
    assert (broken.limit, broken.banner, broken.undecodable) == (7, "all", ("$",))
    again = loaded(b"{broken", loaded({"banner": "new"}, key=KEY), broken)
    assert (again.limit, again.banner) == (7, "new")


def test_an_object_of_a_scope_is_copied_and_pickled_whole():
    found = loaded({"banner": "three"}, loaded({"limit": 5}, key=KEY))
    for made in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert (made.scope, made.limit, made.own_fields) == ({"site": "3"}, 5, ("banner",))
        assert made == found
    assert found != loaded({"banner": "three"}, key=KEY)
    assert str(found) == "site config (site=3)"
    assert str(SiteConfig()) == "site config"


# --- conflicts ---


def test_what_two_set_in_a_scope_is_merged_with_what_is_set_to_the_same():
    under = loaded({"limit": 5, "banner": "all"}, key=KEY)
    base, theirs, mine = (loaded({"banner": "three"}, under) for _ in range(3))
    theirs.tags = ["x"]
    mine.own("limit")
    mine.inherit("banner")
    merged = Conflict(base=base, theirs=theirs, mine=mine).merge()
    assert to_document(merged) == {"limit": 5, "tags": ["x"]}


def test_setting_and_following_again_clash():
    under = loaded({"limit": 5}, key=KEY)
    base, theirs, mine = (loaded({"limit": 7}, under) for _ in range(3))
    theirs.limit = 8
    mine.inherit("limit")
    assert Conflict(base=base, theirs=theirs, mine=mine).fields == ("limit",)


def test_what_was_set_stays_set_when_everybody_s_has_become_the_same():
    before, after = loaded({"limit": 5}, key=KEY), loaded({"limit": 7}, key=KEY)
    base, mine, theirs = loaded({}, before), loaded({}, before), loaded({}, after)
    mine.limit = 7
    assert to_document(Conflict(base=base, theirs=theirs, mine=mine).merge()) == {"limit": 7}
