"""The form that writes an order, by compare-and-set."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from django_natskv.kv import Bucket, Entry
from example_project.shop import orders


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
        value = self["revision"].value()
        return int(value) if str(value or "").isdecimal() else None

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
