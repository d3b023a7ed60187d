"""The forms of the shop. That of the orders carries the revision that it was filled from, for a compare-and-set."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from django_natskv.kv import Bucket, Entry
from example_project.shop import orders
from example_project.shop.basket import MOST, Basket, carriers
from example_project.shop.catalog import PRODUCTS
from example_project.shop.config import Carrier


class BasketForm(forms.Form):
    code = forms.ChoiceField(
        choices=[(code, product.name) for code, product in PRODUCTS.items()], widget=forms.HiddenInput
    )
    count = forms.IntegerField(label="How many", min_value=0, max_value=MOST)


class CheckoutForm(forms.Form):
    name = forms.CharField(label="Your name", max_length=80, widget=forms.TextInput(attrs={"autocomplete": "name"}))

    def __init__(self, data: Any = None, *, new: bool) -> None:
        super().__init__(data)
        self.carriers: dict[str, Carrier] = {carrier.pk: carrier for carrier in carriers()}
        choices = [(code, f"{carrier.name}, {carrier.price} €") for code, carrier in self.carriers.items()]
        choices.append(("", "I fetch it myself"))
        self.fields["carrier"] = forms.ChoiceField(
            label="Sent by",
            required=False,
            choices=choices,
            initial=choices[0][0],
            widget=forms.RadioSelect if new else forms.Select,
        )

    def order(self, basket: Basket) -> dict[str, Any]:
        """Return the order that the form, which is valid, makes of a basket."""
        return orders.order_of(basket, self.cleaned_data["name"], self.carriers.get(self.cleaned_data["carrier"]))


class OrderForm(forms.Form):
    key = forms.CharField(max_length=1024, widget=forms.TextInput(attrs={"placeholder": "order.17"}))
    value = forms.CharField(
        label="Value, in JSON",
        required=False,  # not to delete
        widget=forms.Textarea(attrs={"rows": 4, "spellcheck": "false", "placeholder": '{"item": "tea"}'}),
    )
    # What the user has seen, and so what the write may replace. Empty: a new key.
    revision = forms.IntegerField(required=False, min_value=1, widget=forms.HiddenInput)

    @classmethod
    def of(cls, entry: Entry | None) -> OrderForm:
        """Return the form to change ``entry``, or an empty one."""
        if entry is None:
            return cls()
        return cls(initial={"key": entry.key, "value": orders.as_text(entry.value), "revision": entry.revision})

    @property
    def deletes(self) -> bool:
        return "delete" in self.data

    @property
    def seen(self) -> int | None:
        """The revision that the form was filled from."""
        try:
            found: int | None = self.fields["revision"].to_python(self["revision"].value())
        except ValidationError:
            return None
        return found

    def clean_value(self) -> Any:
        if self.deletes:
            return None
        try:
            return json.loads(self.cleaned_data["value"])
        except (ValueError, RecursionError) as error:
            raise ValidationError(f"This is not JSON: {error}.") from error

    def clean(self) -> dict[str, Any]:
        if self.deletes and self.cleaned_data.get("revision") is None:
            raise ValidationError("Choose the entry to delete first.")
        return self.cleaned_data

    def write(self, bucket: Bucket) -> None:
        """Do what was asked, if nobody was faster; ``WrongRevision`` otherwise."""
        key, value, revision = (self.cleaned_data[name] for name in ("key", "value", "revision"))
        if self.deletes:
            bucket.delete(key, revision=revision)
        elif revision is None:
            bucket.create(key, value)
        else:
            bucket.update(key, value, revision)

    def renewed(self, entry: Entry | None) -> OrderForm:
        """Return the form as typed, but based on what is there now: saving it again overwrites that."""
        revision = "" if entry is None else str(entry.revision)
        return type(self)({"key": self.data["key"], "value": self.data.get("value", ""), "revision": revision})
