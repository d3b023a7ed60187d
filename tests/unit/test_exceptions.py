"""The taxonomy of errors is the contract: its tree, slugs, data, messages and pickles."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest

from django_natskv import exceptions as e

OPERATIONAL = {
    "ConnectFailed",
    "NotConnected",
    "AuthInvalid",
    "PermissionsViolation",
    "OperationTimedOut",
    "JetStreamNotEnabled",
    "JetStreamApiError",
    "BucketNotFound",
    "BucketExists",
    "BucketFull",
    "ValueTooLarge",
    "WrongRevision",
    "CodecError",
}
USAGE = {
    "InvalidName",
    "InvalidKey",
    "InvalidKeys",
    "InvalidDeliver",
    "InvalidTTL",
    "UnknownConfigKey",
    "MissingRequiredKey",
}
DATA: dict[type[e.NatsKVError], dict[str, Any]] = {
    e.AuthInvalid: {"reason": "Authorization Violation"},
    e.PermissionsViolation: {"action": "publish", "subject": "$KV.flags.>"},
    e.OperationTimedOut: {"may_have_been_applied": True},
    e.JetStreamApiError: {"code": 10052, "description": "stream configuration update can not change storage type"},
    e.BucketNotFound: {"bucket": "flags"},
    e.BucketExists: {"bucket": "flags"},
    e.BucketFull: {"bucket": "flags"},
    e.ValueTooLarge: {"bucket": "flags", "key": "a", "size": 2_000_000, "limit": 1_048_576},
    e.WrongRevision: {"bucket": "flags", "key": "a"},
    e.CodecError: {"bucket": "flags", "key": "a"},
    e.InvalidName: {"name": "no spaces"},
    e.InvalidKey: {"key": "a..b"},
    e.InvalidKeys: {"keys": ["a", 7]},
    e.InvalidDeliver: {"deliver": "all"},
    e.InvalidTTL: {"ttl_ms": 999},
    e.UnknownConfigKey: {"key": "histroy"},
    e.MissingRequiredKey: {"key": "bucket"},
}


def classes() -> list[type[e.NatsKVError]]:
    found = [one for _, one in inspect.getmembers(e, inspect.isclass) if issubclass(one, e.NatsKVError)]
    return [one for one in found if not one.__name__.startswith("_")]


def concrete() -> list[type[e.NatsKVError]]:
    return [one for one in classes() if one.__name__ in OPERATIONAL | USAGE]


def make(cls: type[e.NatsKVError]) -> e.NatsKVError:
    return cls("what was tried, and what to do", **DATA.get(cls, {}))


def test_the_two_families_are_complete_and_disjoint():
    operational = {one.__name__ for one in classes() if issubclass(one, e.OperationalError)}
    usage = {one.__name__ for one in classes() if issubclass(one, e.UsageError)}
    assert operational == {*OPERATIONAL, "OperationalError"}
    assert usage == {*USAGE, "UsageError"}
    assert {one.__name__ for one in classes()} == {*operational, *usage, "NatsKVError"}
    assert not issubclass(e.OperationalError, e.UsageError)
    assert not issubclass(e.UsageError, e.OperationalError)


def test_what_is_exported_is_the_taxonomy():
    assert sorted(e.__all__) == sorted(one.__name__ for one in classes())


def test_the_docstring_of_the_module_draws_every_class():
    drawn = set(re.findall(r"[├└]── (\w+)", e.__doc__ or "")) | {"NatsKVError"}
    assert drawn == {one.__name__ for one in classes()}


@pytest.mark.parametrize("cls", concrete())
def test_no_error_is_a_kind_of_another(cls):
    for other in concrete():
        assert other is cls or not issubclass(cls, other)


def test_the_builtin_that_a_caller_may_catch_instead():
    assert issubclass(e.OperationTimedOut, TimeoutError)
    assert issubclass(e.UsageError, ValueError)
    for cls in concrete():
        assert issubclass(cls, ValueError) == (cls.__name__ in USAGE)
        assert issubclass(cls, OSError) == (cls is e.OperationTimedOut)


@pytest.mark.parametrize("cls", classes())
def test_the_slug_is_the_name_in_small_letters(cls):
    # "TTL" and "KV" and "API" are one word each, and "JetStream" is one too.
    words = re.findall(r"JetStream|NatsKV|TTL|Api|[A-Z][a-z]+", cls.__name__)
    assert "".join(words) == cls.__name__
    assert cls.type == "-".join(word.lower() for word in words)
    assert cls("x").type == cls.type


def test_the_slugs_of_the_contract():
    assert e.WrongRevision.type == "wrong-revision"
    assert e.BucketNotFound.type == "bucket-not-found"


def test_slugs_differ():
    slugs = [one.type for one in classes()]
    assert len(slugs) == len(set(slugs))


@pytest.mark.parametrize("cls", classes())
def test_every_class_is_documented(cls):
    assert cls.__dict__.get("__doc__")


@pytest.mark.parametrize("cls", concrete())
def test_the_message_is_the_text_and_the_data_are_attributes(cls):
    error = make(cls)
    assert str(error) == "what was tried, and what to do"
    assert error.args == ("what was tried, and what to do",)
    for name, value in DATA.get(cls, {}).items():
        assert getattr(error, name) == value


@pytest.mark.parametrize("cls", concrete())
def test_the_data_do_not_leak_into_the_message(cls):
    assert repr(make(cls)) == f"{cls.__name__}('what was tried, and what to do')"


@pytest.mark.parametrize("cls", concrete())
def test_it_can_be_made_bare(cls):
    error = cls()
    assert str(error) == ""
    for name in DATA.get(cls, {}):
        assert hasattr(error, name)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", concrete())
def test_a_pickle_keeps_class_message_data_and_notes(cls, protocol):
    error = make(cls)
    error.add_note("seen in worker 3")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert again.__notes__ == ["seen in worker 3"]


@pytest.mark.parametrize("cls", concrete())
def test_a_copy_is_equal_and_apart(cls):
    error = make(cls)
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert type(again) is cls
        assert again is not error
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_pickle_of_the_timeout_is_still_a_timeout():
    # TimeoutError is an OSError, whose own pickling would look at errno and lose the rest.
    again = pickle.loads(pickle.dumps(e.OperationTimedOut("no answer", may_have_been_applied=True)))
    assert isinstance(again, TimeoutError)
    assert isinstance(again, e.OperationTimedOut)
    assert str(again) == "no answer"
    assert again.may_have_been_applied is True


def test_unknown_data_are_refused_where_the_data_are_named():
    with pytest.raises(TypeError):
        e.WrongRevision("x", revision=3)  # type: ignore[call-arg]


def test_the_module_needs_neither_django_nor_the_rest_of_the_package():
    script = (
        "import sys, django_natskv.exceptions; "
        "print(sorted(m for m in sys.modules if m.startswith(('django.', 'nats.', 'django_natskv.'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.strip() == "['django_natskv.exceptions']"
