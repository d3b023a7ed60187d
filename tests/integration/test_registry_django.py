"""What Django does with models of its own accord, done with those of the registry: forms, shortcuts, generic views."""

from __future__ import annotations

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db import models
from django.http import Http404
from django.shortcuts import aget_object_or_404, get_list_or_404, get_object_or_404
from django.test import RequestFactory
from django.views.generic import CreateView, DeleteView, DetailView, ListView, UpdateView

from django_natskv import registry
from tests.registry_classes import BUCKET, Carrier, ShopConfig, Zone


class Filled(registry.Model):
    code = models.SlugField(primary_key=True)
    name = models.CharField(max_length=20, blank=True)
    made = models.DateTimeField(auto_now_add=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        bucket = BUCKET
        app_label = "shop"


class Form(forms.ModelForm):
    class Meta:
        model = Carrier
        fields = ("code", "name", "options")


@pytest.fixture
def dhl(shelf):
    return Carrier.objects.create(code="dhl", name="D")


def answer(view, pk="", data=None, **said):
    factory = RequestFactory()
    request = factory.get("/") if data is None else factory.post("/", data)
    return view.as_view(model=Carrier, template_name="none.html", **said)(request, pk=pk)


def test_a_form_shows_that_a_primary_key_is_taken(dhl, shelf):
    form = Form({"code": "dhl", "name": "mine", "options": "{}"})
    assert form.errors == {"code": ["Carrier with this Code already exists."]}
    form = Form({"code": "ups", "name": "U", "options": "{}"})
    form.save()
    renamed = Form({"code": "ups", "name": "mine", "options": "{}"}, instance=Carrier.objects.get(pk="dhl"))
    assert list(renamed.errors) == ["code"]
    changed = Form({"code": "dhl", "name": "mine", "options": "{}"}, instance=Carrier.objects.get(pk="dhl"))
    changed.save()
    assert (shelf.read("shop.Carrier.dhl"), shelf.read("shop.Carrier.ups")) == ({"name": "mine"}, {"name": "U"})


def test_only_an_object_that_is_new_has_to_have_a_primary_key_of_its_own(dhl):
    with pytest.raises(ValidationError):
        Carrier(code="dhl").full_clean()
    Carrier(code="dhl").full_clean(exclude=["code"])
    with pytest.raises(registry.Conflict):  # and no ValidationError: others may be ahead of what a form can know
        Carrier(code="dhl").save()
    dhl.full_clean()
    dhl.delete()
    dhl.full_clean()
    ShopConfig().full_clean()


def test_a_save_asks_a_validate_unique_of_the_class_s_own(shelf, monkeypatch, do):
    def refuse(self, exclude=None):
        raise ValidationError({"name": "There is one."})

    monkeypatch.setattr(Carrier, "validate_unique", refuse)
    with pytest.raises(ValidationError):
        do(Carrier.objects.create, code="dhl")


async def test_a_form_is_asked_in_a_coroutine_too(shelf):
    await Carrier.objects.acreate(code="dhl")
    assert list(Form({"code": "dhl", "options": "{}"}).errors) == ["code"]


def test_fields_that_fill_themselves_are_filled(shelf, do):
    one = do(Filled.objects.create, code="a")
    first = shelf.read("shop.Filled.a")
    assert first == {"made": one.made.isoformat(), "changed": one.changed.isoformat()}
    do(one.save, update_fields=["name"])
    assert shelf.read("shop.Filled.a") == first
    do(one.save)
    assert shelf.read("shop.Filled.a") == {**first, "changed": one.changed.isoformat()}
    assert one.changed > one.made


def test_shortcuts_take_the_class(dhl, shelf):
    assert get_object_or_404(Carrier, pk="dhl").name == "D"
    assert [one.pk for one in get_list_or_404(Carrier, active=True)] == ["dhl"]
    assert get_object_or_404(ShopConfig).limit == 10
    for ask in (lambda: get_object_or_404(Zone, pk="seven"), lambda: get_list_or_404(Carrier, active=False)):
        with pytest.raises(Http404):
            ask()


async def test_awaited_shortcuts_take_the_class(shelf):
    await Carrier.objects.acreate(code="dhl", name="D")
    assert (await aget_object_or_404(Carrier, pk="dhl")).name == "D"
    with pytest.raises(Http404):
        await aget_object_or_404(Carrier, pk="ups")


def test_generic_views_take_the_class(dhl, shelf):
    assert answer(DetailView, "dhl").context_data["carrier"].name == "D"
    with pytest.raises(Http404):
        answer(DetailView, "ups")
    assert [one.pk for one in answer(ListView).context_data["carrier_list"]] == ["dhl"]
    made = {"fields": ("code", "name", "options"), "success_url": "/done/", "data": {"code": "ups", "options": "{}"}}
    assert answer(CreateView, **made).url == "/done/"
    assert answer(CreateView, **made).context_data["form"].errors
    changed = {"fields": ("name",), "success_url": "/done/", "data": {"name": "E"}}
    assert answer(UpdateView, "dhl", **changed).url == "/done/"
    assert answer(DeleteView, "ups", success_url="/done/", data={}).url == "/done/"
    assert (shelf.read("shop.Carrier.ups"), shelf.read("shop.Carrier.dhl")) == (None, {"name": "E"})
