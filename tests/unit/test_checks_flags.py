"""What the system check says of ``settings.NATSKV_FLAGS``, by id and hint."""

from __future__ import annotations

import pytest
from django.core import checks

from django_natskv.checks import TAG, check_flags
from django_natskv.conf.flags import context_function

NO_FUNCTION = 3


def add_plan(request):
    return {"plan": request}


def wants_more(request, plan):
    return {"plan": plan}


class Adder:
    def __call__(self, request):
        return {}


adder = Adder()


def told(settings, setting):
    settings.NATSKV_FLAGS = setting
    messages = check_flags()
    assert all(message.level == checks.ERROR and "CONTEXT" in str(message.hint) for message in messages)
    return [(message.id, message.msg) for message in messages]


def test_e223_it_is_a_mapping(settings):
    assert told(settings, []) == [("natskv.E223", "NATSKV_FLAGS is list, not a mapping.")]


def test_e224_it_has_no_unknown_keys(settings):
    assert told(settings, {"CONTEXTS": "a.b", 3: 4}) == [
        ("natskv.E224", 'NATSKV_FLAGS has an unknown key "CONTEXTS".'),
        ("natskv.E224", "NATSKV_FLAGS has an unknown key 3."),
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param(add_plan, "is function, not a string.", id="a function"),
        ("nowhere.at_all", "is 'nowhere.at_all', which cannot be imported: ModuleNotFoundError"),
        ("add_plan", "cannot be imported: ImportError"),
        (f"{__name__}.NO_FUNCTION", "which is no function of a request."),
        (f"{__name__}.wants_more", "which does not take a request alone: missing a required argument: 'plan'."),
    ],
    ids=str,
)
def test_e225_context_is_the_path_of_a_function_of_a_request(settings, path, text):
    [(number, message)] = told(settings, {"CONTEXT": path})
    assert number == "natskv.E225"
    assert message.startswith('NATSKV_FLAGS["CONTEXT"] is ')
    assert text in message


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"CONTEXT": None},
        *({"CONTEXT": f"{__name__}.{name}"} for name in ("add_plan", "adder")),
        {"CONTEXT": "builtins.vars"},
    ],
    ids=str,
)
def test_what_can_be_used_is_no_mistake(settings, setting):
    settings.NATSKV_FLAGS = setting
    assert check_flags() == []
    assert (context_function() is None) == (setting in ({}, {"CONTEXT": None}))


def test_the_check_is_run_with_the_others(settings):
    settings.NATSKV_FLAGS = {"CONTEXT": "nowhere.at_all"}
    assert "natskv.E225" in [message.id for message in checks.run_checks(tags=[TAG])]
    del settings.NATSKV_FLAGS
    assert check_flags() == []
