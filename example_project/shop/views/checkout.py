"""The checkout, once with a view that blocks and once with one that is awaited. A flag decides which one people see."""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import Any

from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from django_natskv.exceptions import InvalidKey
from django_natskv.registry import Details
from example_project.shop import orders
from example_project.shop.basket import SESSION_KEY, Basket
from example_project.shop.config import Features
from example_project.shop.forms import CheckoutForm
from example_project.shop.views.store import cache_key


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def checkout(request: HttpRequest) -> HttpResponse:
    details = Features.new_checkout.details(request)
    basket = Basket(request.session.get(SESSION_KEY, {}))
    form = CheckoutForm(request.POST or None, new=details.value)
    if basket.counts and form.is_valid():
        key = orders.new_key()
        orders.open_orders().create(key, form.order(basket))
        cache.delete_many([cache_key(code) for code in basket.counts])  # how many were sold is on them
        request.session[SESSION_KEY] = {}
        return redirect("shop:thanks", key)
    return _render(request, details, basket, form, here="shop:checkout")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
async def acheckout(request: HttpRequest) -> HttpResponse:
    details = await Features.new_checkout.adetails(request)
    basket = Basket(await request.session.aget(SESSION_KEY, {}))
    form = CheckoutForm(request.POST or None, new=details.value)
    if basket.counts and form.is_valid():
        key = orders.new_key()
        await (await orders.aopen_orders()).acreate(key, form.order(basket))
        await cache.adelete_many([cache_key(code) for code in basket.counts])
        await request.session.aset(SESSION_KEY, {})
        return redirect("shop:thanks", key)
    return _render(request, details, basket, form, here="shop:acheckout")


@require_safe
def thanks(request: HttpRequest, key: str) -> HttpResponse:
    try:
        entry = orders.open_orders().get(key) if key.startswith("order.") else None
    except InvalidKey:
        entry = None  # nothing can be under it
    if entry is None:
        raise Http404(f"There is no order {key!r}.")
    context = {field: orders.text_in(entry.value, field) for field in ("name", "total")}
    return render(request, "shop/thanks.html", {"key": key, **context})


def _render(request: HttpRequest, details: Details, basket: Basket, form: CheckoutForm, **context: Any) -> HttpResponse:
    status = HTTPStatus.BAD_REQUEST if form.is_bound else HTTPStatus.OK
    context |= {"flag": details, "basket": basket, "form": form, "process": os.getpid()}
    return render(request, "shop/checkout.html", context, status=status)
