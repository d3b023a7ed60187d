"""The frozen values: what they are made of, and what a configuration normalizes to."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from django_natskv.exceptions import InvalidDeliver, UsageError
from django_natskv.kv import BucketConfig, Deliver, Entry, Operation


def test_entries_pickle_compare_and_hash_by_what_they_say():
    entry = Entry("b", "k", 1, 2, datetime.now(UTC), Operation.PUT)
    assert pickle.loads(pickle.dumps(entry)) == entry
    assert hash(entry) == hash(pickle.loads(pickle.dumps(entry)))
    assert entry.delta is None


@pytest.mark.parametrize("word", ["put", "delete", "purge"])
def test_an_operation_is_its_word(word):
    assert Operation(word) == word
    assert str(Operation(word)) == word
    assert {word: 1}[Operation(word)] == 1


@pytest.mark.parametrize("word", ["latest", "history", "updates"])
def test_deliver_is_closed(word):
    assert Deliver.check(word) == word
    assert Deliver.check(Deliver(word)) == word


@pytest.mark.parametrize("other", ["all", "LATEST", "", None, 7, [], b"latest"], ids=repr)
def test_another_deliver_is_refused(other):
    with pytest.raises(InvalidDeliver) as caught:
        Deliver.check(other)
    assert caught.value.deliver == other


def test_a_parsed_configuration_says_what_was_given_and_nothing_else():
    config = BucketConfig.parse({"bucket": "b", "history": 3, "ttl_ms": None, "mirror": "origin"})
    assert config.given() == {"bucket": "b", "history": 3, "mirror": {"bucket": "origin"}}
    assert BucketConfig.parse(config) == config


def test_a_parsed_configuration_keeps_no_hold_of_what_it_was_given():
    metadata = {"a": "1"}
    config = BucketConfig.parse({"bucket": "b", "metadata": metadata})
    metadata["a"] = "2"
    assert config.metadata == {"a": "1"}


def test_no_description_is_an_empty_one():
    assert BucketConfig.parse({"bucket": "b", "description": None}).description == ""


@pytest.mark.parametrize("discard", ["oldest", "", "New", 1])
def test_a_full_bucket_discards_what_is_new_or_what_is_old(discard):
    assert BucketConfig.parse({"bucket": "b", "discard": "old"}).discard == "old"
    with pytest.raises(UsageError, match="discard"):
        BucketConfig.parse({"bucket": "b", "discard": discard})
