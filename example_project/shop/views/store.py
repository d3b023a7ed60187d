"""The shop itself: what there is, each product on a page that is cached, and the basket in the session."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus

from django.core.cache import cache
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.safestring import SafeString
from django.views.decorators.http import require_http_methods, require_safe

from example_project.shop import orders
from example_project.shop.basket import MOST, SESSION_KEY, Basket
from example_project.shop.catalog import PRODUCTS, Product
from example_project.shop.forms import BasketForm

CACHED_FOR = 300.0  # seconds


def cache_key(code: str) -> str:
    return f"product.{code}"


@require_safe
def catalogue(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/catalogue.html", {"products": PRODUCTS.values(), "here": "shop:catalogue"})


@require_safe
def product(request: HttpRequest, code: str) -> HttpResponse:
    """Show a product. What costs to make is cached, what is the visitor's own, or may change any moment, is not."""
    found = PRODUCTS.get(code)
    if found is None:
        raise Http404(f"There is no product {code!r}.")
    body = cache.get_or_set(cache_key(code), partial(_body, found), CACHED_FOR)
    form = BasketForm(initial={"code": code, "count": 1})
    return render(request, "shop/product.html", {"product": found, "body": body, "form": form})


def _body(found: Product) -> SafeString:
    context = {"product": found, "sold": orders.sold(found.code), "made": timezone.now(), "process": os.getpid()}
    return render_to_string("shop/product_body.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def basket(request: HttpRequest) -> HttpResponse:
    content = Basket(request.session.get(SESSION_KEY, {}))
    form = BasketForm(request.POST or None)
    if form.is_valid():
        content.put(form.cleaned_data["code"], form.cleaned_data["count"])
        request.session[SESSION_KEY] = content.counts
        return redirect("shop:basket")
    status = HTTPStatus.BAD_REQUEST if form.is_bound else HTTPStatus.OK
    context = {"basket": content, "form": form, "most": MOST, "here": "shop:basket"}
    return render(request, "shop/basket.html", context, status=status)
