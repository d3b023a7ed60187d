"""The names of a cache's values: no two of one, back again, within a bucket's alphabet, and found by their patterns."""

from __future__ import annotations

import fnmatch
import hashlib
import re

import pytest
from hypothesis import example, given, strategies as st

from django_natskv.cache import keys
from django_natskv.kv.names import check_key, check_patterns, disjoint, matcher

ODD = [*"ab_-/=.*>?[] :%~$\n\r\t\0\x7f\u00e9\u2028\u4e2d\U0001f600\ud800\udfff", "==", "=5F", "=2E", "..", "a.b"]
odd = st.lists(st.sampled_from(ODD), max_size=8).map("".join)
anything = st.one_of(odd, st.text(st.characters(), max_size=300), st.text("ab.", max_size=230), st.just("_"))
versions = st.one_of(st.integers(), odd)
identities = st.tuples(anything, versions, anything)


def spelled(prefix: str, version: object, key: str) -> tuple[str, str, str]:
    return prefix, str(version), key


# ---------------------------------------------------------------- one name each


@pytest.mark.parametrize(
    ("prefix", "version", "key", "stored"),
    [
        ("shop", 1, "user-7", "shop.1.user-7"),
        ("", 1, "user-7", "_.1.user-7"),
        ("_", 1, "user-7", "=5F.1.user-7"),
        ("shop", 1, "", "shop.1._"),
        ("shop", 1, "_", "shop.1.=5F"),
        ("shop", 1, "__", "shop.1.__"),
        ("shop", "", "k", "shop._.k"),
        ("shop", -1, "k", "shop.-1.k"),
        ("my.shop", "v2.1", "a.b.c", "my=2Eshop.v2=2E1.a.b.c"),
        ("shop", 1, ".a", "shop.1.=2Ea"),
        ("shop", 1, "a.", "shop.1.a=2E"),
        ("shop", 1, "a..b", "shop.1.a=2E=2Eb"),
        ("shop", 1, "a.b..", "shop.1.a.b=2E=2E"),
        ("shop", 1, ".", "shop.1.=2E"),
        ("shop", 1, "a. .b", "shop.1.a.=20.b"),
        ("shop", 1, "sale:50%", "shop.1.sale=3A50=25"),
        ("shop", 1, "user/7=x", "shop.1.user/7=3Dx"),
        ("shop", 1, "*.>", "shop.1.=2A.=3E"),
        ("shop", 1, "a\n", "shop.1.a=0A"),
        ("shop", 1, "a.\n", "shop.1.a.=0A"),
        ("shop", 1, "caf\u00e9", "shop.1.caf=C3=A9"),
        ("shop", 1, "\ud800", "shop.1.=ED=A0=80"),
        ("shop\n", 1, "k", "shop=0A.1.k"),
    ],
)
def test_a_key_is_spelled_in_the_alphabet_of_a_bucket(prefix, version, key, stored):
    assert keys.encode(prefix, version, key) == stored


@given(anything, versions, anything)
@example("", 1, "")
@example("p" * 5000, 1, "k" * 5000)
@example("\n" * 66, "\n" * 66, "\n" * 66)
def test_any_key_can_be_stored(prefix, version, key):
    assert check_key(keys.encode(prefix, version, key))
    assert check_key(keys.encode_made(prefix, key))
    assert check_key(keys.lock(prefix, key))
    assert check_key(keys.clear_marker(prefix))
    assert check_key(keys.chunk(keys.encode(prefix, version, key), "f" * 64, 10**9))
    assert check_key(keys.chunk(keys.encode_made(prefix, key), "f" * 64, 10**9))


def readable(text: str, escaped: str) -> str | None:
    """The text that a name tells: none, of a long one."""
    return text if len(escaped) <= keys.MAX_PART else None


@given(anything, versions, anything)
@example("p" * 201, "v" * 201, "k" * 201)
@example("p" * 200, "v" * 200, "k" * 200)
@example("", "", "\u4e2d" * 22)
@example("", "", "\u4e2d" * 23)
def test_what_is_decoded_is_what_was_encoded(prefix, version, key):
    token = keys.escape
    expected = (
        readable(prefix, token(prefix).replace(".", "=2E")),
        readable(str(version), token(str(version)).replace(".", "=2E")),
        readable(key, token(key)),
    )
    assert keys.decode(keys.encode(prefix, version, key)) == expected
    assert keys.decode(keys.encode_made(prefix, key)) == (expected[0], None, expected[2])
    assert keys.is_hashed(keys.encode(prefix, version, key)) == (expected[2] is None)


@given(identities, identities)
@example(("a", 1, "b.c"), ("a", "1.b", "c"))
@example(("", 1, "k"), ("_", 1, "k"))
@example(("", 1, ""), ("", 1, "_"))
@example(("", 1, "k" * 200), ("", 1, "k" * 201))
@example(("", 1, "k" * 201), ("", 1, "k" * 202))
@example(("", 1, "\ud83d\ude00"), ("", 1, "\U0001f600"))
def test_different_keys_have_different_names(one, other):
    same = spelled(*one) == spelled(*other)
    assert (keys.encode(*one) == keys.encode(*other)) == same


@given(anything, anything, anything, anything)
def test_no_made_key_and_no_lock_has_the_name_of_another_or_of_a_key(prefix, text, other, more):
    assert keys.encode_made(prefix, text) != keys.encode(prefix, other, more)
    assert keys.lock(prefix, text) not in (keys.encode(prefix, other, more), keys.encode_made(prefix, more))
    assert (keys.encode_made(prefix, text) == keys.encode_made(prefix, other)) == (text == other)
    assert (keys.lock(prefix, text) == keys.lock(prefix, other)) == (text == other)


def test_a_key_that_spells_a_name_of_ours_is_another():
    hashed = keys.encode("", 1, "k" * 300)
    assert keys.encode("", 1, hashed.removeprefix("_.1.")) != hashed
    assert keys.encode("", "==made", "k") != keys.encode_made("", "k")
    assert keys.encode("==clear", 1, "k").split(".")[0] != keys.clear_marker()
    assert keys.encode("", "==clear", "k").split(".")[1] != "==clear"
    assert keys.all_of_prefix("==sha256-" + hashlib.sha256(b"p" * 300).hexdigest()) != keys.all_of_prefix("p" * 300)


def test_a_true_version_is_not_version_one_whichever_came_first():
    assert keys.encode("t", 1, "k") == keys.encode("t", "1", "k") == "t.1.k"
    assert keys.encode("t", True, "k") == "t.True.k"
    assert keys.encode("t", 1.0, "k") == "t.1=2E0.k"
    assert keys.encode("t", True, "k" * 300).startswith("t.True.")


def test_what_is_no_string_is_written_as_one():
    assert keys.encode("shop", 1, 7) == "shop.1.7"
    assert keys.encode("shop", 1, ["a"]) == keys.encode("shop", 1, "['a']")


def test_a_long_key_is_told_by_its_hash():
    assert keys.encode("shop", 1, "k" * 201) == "shop.1.==sha256." + hashlib.sha256(b"k" * 201).hexdigest()
    assert keys.encode_made("shop", "k" * 201) == "shop.==made.==sha256." + hashlib.sha256(b"k" * 201).hexdigest()
    assert keys.encode("p" * 201, 1, "k") == "==sha256-" + hashlib.sha256(b"p" * 201).hexdigest() + ".1.k"
    assert not keys.is_hashed(keys.encode("p" * 201, "v" * 201, "k"))


@given(anything)
def test_a_text_of_any_length_can_be_escaped_into_a_header(text):
    escaped = keys.escape(text)
    assert re.fullmatch(r"[!-~]+", escaped)
    assert keys.unescape(escaped) == text


@pytest.mark.parametrize("escaped", ["", "=", "=4", "=41", "=5f", "=ZZ", "==41", "a b", "a..b", "=FF", "\u00e9", "%41"])
def test_what_is_no_escaped_text_is_not_taken_for_one(escaped):
    with pytest.raises(ValueError, match=r"."):
        keys.unescape(escaped)


# ---------------------------------------------------------------- what is no value


@pytest.mark.parametrize(
    "name",
    [
        keys.clear_marker(),
        keys.clear_marker("shop"),
        keys.lock("shop", "nightly"),
        keys.lock("shop", "n" * 300),
        keys.chunk(keys.encode("shop", 1, "k"), "c0ffee", 0),
        keys.chunk(keys.encode_made("shop", "k" * 300), "c0ffee", 0),
        "word",
        "two.words",
        "shop.1.=zz",
        "shop.1.=41",
        "shop.1.==unknown.x",
        "shop.=FF.k",
        "=2e.1.k",
        "shop.1." + "k" * 201,
        "p" * 201 + ".1.k",
    ],
)
def test_what_is_no_value_of_a_cache_is_not_decoded(name):
    assert check_key(name)
    assert keys.decode(name) is None


@given(st.text("ab=.0123456789ABCDEF_-/", max_size=30))
def test_no_other_name_is_taken_for_that_of_a_key(name):
    found = keys.decode(name)
    if found is None or found.prefix is None or found.key is None or "" in name.split("."):
        return
    made = found.version is None
    again = keys.encode_made(found.prefix, found.key) if made else keys.encode(found.prefix, found.version, found.key)
    assert again == name


@given(anything, versions, anything, st.text("abc123", min_size=1, max_size=32), st.integers(0, 10**6))
def test_a_chunk_tells_whose_it_is(prefix, version, key, identity, number):
    for stored in (keys.encode(prefix, version, key), keys.encode_made(prefix, key)):
        name = keys.chunk(stored, identity, number)
        assert keys.chunk_of(name) == (stored, identity, number)
        assert keys.chunk_of(stored) is None
        assert keys.is_hashed(name) == keys.is_hashed(stored)


# ---------------------------------------------------------------- patterns


@given(anything, versions, anything, identities)
def test_the_patterns_of_a_prefix_and_a_version_find_their_own_and_no_others(prefix, version, key, other):
    stored = keys.encode(prefix, version, key)
    made = keys.encode_made(prefix, key)
    chunk = keys.chunk(stored, "c0ffee", 3)
    everything = matcher(check_patterns(keys.all_of_prefix(prefix)))
    assert all(everything(name) for name in (stored, made, keys.lock(prefix, key), keys.clear_marker(prefix)))
    assert not everything(chunk)
    assert bool(everything(keys.encode(*other))) == (other[0] == prefix)
    assert not everything(keys.clear_marker())

    of_version = matcher(check_patterns(keys.all_of_version(prefix, version)))
    assert of_version(stored)
    assert not of_version(made)
    assert not of_version(chunk)
    assert bool(of_version(keys.encode(*other))) == ((other[0], str(other[1])) == (prefix, str(version)))

    assert matcher(check_patterns(keys.all_made(prefix)))(made)
    assert not matcher([keys.all_made(prefix)])(stored)
    assert matcher(check_patterns(keys.all_chunks(prefix)))(chunk)
    assert matcher(check_patterns(keys.all_chunks(prefix, "c0ffee")))(chunk)
    assert not matcher([keys.all_chunks(prefix, "decaf")])(chunk)
    assert not matcher([keys.all_chunks(prefix)])(stored)


globs = st.lists(st.sampled_from([*"ab_.=* ?", "[ab]", "[!a]", "[", "]", "\n", "\u00e9", "a" * 199]), max_size=8).map(
    "".join
)
near = st.lists(st.sampled_from([*"ab_.= []", "\n", "\u00e9", "a" * 199]), max_size=8).map("".join)


@given(globs, st.lists(near, max_size=20))
@example("a.*", ["a.", "a..b", "a.b", "a"])
@example("_.a*", ["_.a", "_.ab"])
@example("a.b*", ["a.b", "a.b.", "a.b..c"])
@example("a.b*", ["a." + "b" * 300])
@example("a" * 200 + ".b*", ["a" * 200 + ".b"])
@example("a" * 199 + ".b*", ["a" * 199 + ".b"])
def test_a_search_finds_every_key_that_its_glob_matches(glob, some):
    for found, encode in (
        (keys.search("shop", 1, glob), lambda key: keys.encode("shop", 1, key)),
        (keys.search_made("shop", glob), lambda key: keys.encode_made("shop", key)),
    ):
        asked = matcher(check_patterns(found.patterns))
        for key in [*some, glob.replace("*", "."), glob.replace("*", ""), glob.replace("?", "b")]:
            assert found.matches(key) == fnmatch.fnmatchcase(key, glob)
            if found.matches(key):
                assert asked(encode(key)), key


@pytest.mark.parametrize(
    ("glob", "patterns"),
    [
        ("*", ("shop.1.>",)),
        ("user-*", ("shop.1.>",)),
        ("user.*", ("shop.1.>",)),
        ("user.7-*", ("shop.1.user.>", "shop.1.==sha256.*")),
        ("a b.c.d*", ("shop.1.a=20b.c.>", "shop.1.==sha256.*")),
        ("a..b.c?", ("shop.1.a=2E=2Eb.>", "shop.1.==sha256.*")),
        ("_.7[0-9]", ("shop.1._.>", "shop.1.==sha256.*")),
        ("user.7", ("shop.1.user.7",)),
        ("_", ("shop.1.=5F",)),
        ("a" * 200 + ".b*", ("shop.1.==sha256.*",)),
    ],
)
def test_a_search_asks_for_as_little_as_the_server_can_tell(glob, patterns):
    found = keys.search("shop", 1, glob)
    assert found.patterns == patterns
    assert disjoint(patterns) == patterns


def test_a_glob_tells_capitals_apart():
    assert keys.search("shop", 1, "User*").matches("Users")
    assert not keys.search("shop", 1, "User*").matches("users")
    assert not keys.search("shop", 1, "user").matches("User")


def test_long_keys_are_not_held_in_memory():
    before = keys._encode.cache_info().currsize, keys._encode_made.cache_info().currsize
    keys.encode("shop", 1, "long" * 10_000)
    keys.encode_made("shop", "long" * 10_000)
    assert before == (keys._encode.cache_info().currsize, keys._encode_made.cache_info().currsize)
