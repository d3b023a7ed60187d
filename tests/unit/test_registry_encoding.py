"""Bytes that somebody else wrote, and values that JSON has no word for."""

from __future__ import annotations

import json

import pytest
from django import forms
from django.core.exceptions import ValidationError

from django_natskv.registry._encoding import parse, to_bytes
from django_natskv.registry._names import from_headers, to_headers
from django_natskv.registry._storing import frozen, load, to_document
from tests.registry_classes import Carrier, ShopConfig

KEY = "shop.ShopConfig"
HALF = "\ud800"  # of a character
ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "float"),
        (float("inf"), "float"),
        (HALF, "half of a character"),
        ({HALF: 1}, "half of a character"),
        (10**5000, "limit"),
        (ENDLESS, "Circular"),
        (json.loads(nested(101)), "more than 100 lists"),
        (json.loads(nested(100)), ""),
        ({1, 2}, "valid JSON"),
    ],
    ids=["nan", "infinity", "text", "name", "number", "circle", "deep", "not too deep", "no JSON"],
)
def test_what_json_has_no_word_for_is_not_valid(value, said):
    cfg = ShopConfig(tags=value)
    if said:
        with pytest.raises(ValidationError) as caught:
            cfg.full_clean()
        assert list(caught.value.message_dict) == ["tags"]
        assert said in caught.value.message_dict["tags"][0]
        cfg.full_clean(exclude={"tags"})
    else:
        cfg.full_clean()
        back, errors = load(ShopConfig, KEY, to_bytes(to_document(cfg)), 3)
        assert (back.tags, errors) == (value, [])


def test_it_is_told_beside_what_else_is_not_valid():
    with pytest.raises(ValidationError) as caught:
        ShopConfig(tags=[HALF], banner=HALF, limit=101).full_clean()
    assert set(caught.value.message_dict) == {"tags", "banner", "limit"}


@pytest.mark.parametrize("tags", ["[NaN]", "[1e999]", '["\\ud800"]'])
def test_a_form_shows_it(tags):
    class Form(forms.ModelForm):
        class Meta:
            model = ShopConfig
            fields = ("tags",)

    form = Form({"tags": tags}, instance=ShopConfig())
    assert not form.is_valid()
    assert "cannot be stored" in form.errors["tags"][0]


@pytest.mark.parametrize(
    "data",
    [f'{{"tags": {nested(300)}}}', f'{{"unknown": {nested(100_000)}}}', '{"tags": [NaN]}', '{"unknown": 1e999}'],
    ids=["deep", "deeper", "nan", "too large"],
)
def test_what_no_program_could_hand_on_is_a_document_that_cannot_be_read(data):
    cfg, errors = load(ShopConfig, KEY, data.encode(), 3)
    assert (len(errors), frozen(cfg).undecodable, cfg.tags) == (1, ("$",), [])
    with pytest.raises(ValueError, match=r"100 lists|not JSON|too large"):
        parse(data)


def test_half_of_a_character_is_no_value_and_survives_a_save():
    data = b'{"banner":"\\ud800","tags":["\\ud800"],"unknown":"\\ud800","limit":3}'
    cfg, errors = load(ShopConfig, KEY, data, 3)
    assert ([error.field for error in errors], cfg.limit, cfg.banner) == (["banner", "tags"], 3, "")
    assert json.loads(to_bytes(to_document(cfg))) == json.loads(data)


def test_half_of_a_character_is_no_primary_key_and_no_hindrance_as_a_name():
    with pytest.raises(Carrier.DoesNotExist):
        Carrier.objects.get(pk=HALF)
    assert from_headers(to_headers(HALF, f"why {HALF}")) == ("?", "why ?")
