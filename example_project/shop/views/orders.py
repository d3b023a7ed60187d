"""The page of orders, once with a view that blocks and once with one that is awaited, and the view that writes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_POST

from django_natskv.exceptions import OperationalError, UsageError, WrongRevision
from django_natskv.kv import Bucket, Entry
from example_project.shop import orders
from example_project.shop.events import is_asgi
from example_project.shop.forms import OrderForm


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    bucket = orders.open_orders()
    entries = bucket.get_many(bucket.keys())
    form = OrderForm.of(entries.get(request.GET.get("key", "")))
    return _render(request, rows=orders.newest_first(entries.values()), form=form)


@require_GET
async def apage(request: HttpRequest) -> HttpResponse:
    bucket = await orders.aopen_orders()
    entries = await bucket.aget_many(await bucket.akeys())
    form = OrderForm.of(entries.get(request.GET.get("key", "")))
    return _render(request, rows=orders.newest_first(entries.values()), form=form, here="shop:aorders")


@require_POST
def save(request: HttpRequest) -> HttpResponse:
    form = OrderForm(request.POST)
    bucket = orders.open_orders()
    if form.is_valid():
        try:
            form.write(bucket)
        except WrongRevision as error:
            return _lost(request, bucket, form, error)
        except (UsageError, OperationalError) as error:
            form.add_error(None, str(error))
        else:
            return redirect("shop:orders")
    entries = bucket.get_many(bucket.keys())
    return _render(request, HTTPStatus.BAD_REQUEST, rows=orders.newest_first(entries.values()), form=form)


def _lost(request: HttpRequest, bucket: Bucket, form: OrderForm, error: WrongRevision) -> HttpResponse:
    """Show who was faster, keep what the user typed, and leave the decision to them."""
    entries = bucket.get_many(bucket.keys())
    theirs: Entry | None = entries.get(form.cleaned_data["key"])
    return _render(
        request,
        HTTPStatus.CONFLICT,
        rows=orders.newest_first(entries.values()),
        form=form.renewed(theirs),
        lost=error,
        seen=form.seen,
        theirs=theirs and orders.shown(theirs),
    )


def _render(request: HttpRequest, status: int = HTTPStatus.OK, **context: Any) -> HttpResponse:
    # A stream without an end can be followed where its face is the server's: that of the page does not matter.
    events = "shop:aevents" if is_asgi(request) else "shop:events"
    context = {"bucket": orders.BUCKET, "here": "shop:orders", "events": events, **context}
    return render(request, "shop/orders.html", context, status=status)
