"""Patterns of keys: how they match, cover and overlap; held against a matcher too simple to be wrong."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, strategies as st

from django_natskv.exceptions import InvalidKey, InvalidKeys, InvalidName
from django_natskv.kv.names import check_key, check_name, check_patterns, covers, disjoint, matcher, overlaps

WORDS = ["a", "b", "c"]
KEYS = [".".join(words) for length in (1, 2, 3, 4) for words in itertools.product(WORDS, repeat=length)]

words = st.sampled_from([*WORDS, "*"])
patterns = st.builds(
    lambda parts, tail: ".".join([*parts, *tail]),
    st.lists(words, min_size=0, max_size=3),
    st.sampled_from([(), (">",)]),
).filter(bool)


def matches(pattern: str, key: str) -> bool:
    """Tell it word by word, as the server's documentation does."""
    left, right = pattern.split("."), key.split(".")
    for position, word in enumerate(left):
        if word == ">":
            return len(right) > position
        if position >= len(right) or word not in ("*", right[position]):
            return False
    return len(left) == len(right)


@given(st.lists(patterns, min_size=1, max_size=4))
def test_a_matcher_matches_what_any_of_its_patterns_does(some):
    check = matcher(some)
    for key in KEYS:
        assert bool(check(key)) == any(matches(pattern, key) for pattern in some)


@given(patterns, patterns)
def test_patterns_overlap_when_a_key_matches_both(one, other):
    assert overlaps(one, other) == any(matches(one, key) and matches(other, key) for key in KEYS)
    assert overlaps(one, other) == overlaps(other, one)


@given(patterns, patterns)
def test_a_pattern_that_covers_another_matches_all_that_it_does(one, other):
    if covers(one, other):
        assert all(matches(one, key) for key in KEYS if matches(other, key))


@given(st.lists(patterns, min_size=1, max_size=6))
def test_disjoint_patterns_do_not_overlap_and_lose_nothing(some):
    result = disjoint(some)
    for one, other in itertools.combinations(result, 2):
        assert not overlaps(one, other)
    for key in KEYS:
        if any(matches(pattern, key) for pattern in some):
            assert any(matches(pattern, key) for pattern in result)


@pytest.mark.parametrize("some", [["a", "b"], ["a.*", "b.*"], ["a.>", "b", "c.a"], [">"]], ids=str)
def test_what_does_not_overlap_is_left_as_it_is(some):
    assert sorted(disjoint(some)) == sorted(some)


def test_many_keys_are_disjoint_in_no_time():
    keys = [f"user.{number}" for number in range(20_000)]
    began = time.monotonic()
    assert disjoint([*keys, *keys]) == tuple(keys)
    assert disjoint([*keys, "user.>"]) == ("user.>",)
    assert time.monotonic() - began < 1


def test_a_literal_dot_is_no_wildcard_and_a_dash_no_range():
    assert not matcher(["a.b"])("axb")
    assert matcher(["a-c.*"])("a-c.x")
    assert not matcher(["a-c.*"])("b.x")


def test_the_longest_allowed():
    assert check_key("k" * 1024)
    assert check_name("n" * 128)
    assert check_patterns("k" * 1022 + ".>")
    with pytest.raises(InvalidKey, match="1024"):
        check_key("k" * 1025)
    with pytest.raises(InvalidName, match="128"):
        check_name("n" * 129)
    with pytest.raises(InvalidKeys, match="1024"):
        check_patterns(["k" * 1025])


@given(st.text(max_size=2000))
def test_a_message_about_a_key_is_one_line(text):
    with pytest.raises(InvalidKey) as caught:
        check_key(f"{text} ")
    assert "\n" not in str(caught.value)
    assert "\r" not in str(caught.value)
