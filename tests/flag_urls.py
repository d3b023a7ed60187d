"""Views and addresses of a small site with flags, for the tests of what goes around a view."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views import View

from django_natskv.decorators import flag_required
from django_natskv.mixins import FlagRequiredMixin
from django_natskv.views import flags_json
from tests.flag_classes import Features


def old_checkout(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"old {number}")


async def old_checkout_awaited(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"old awaited {number}")


@flag_required(Features.new_checkout)
def checkout(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"new {number}")


@flag_required("new_checkout", otherwise=old_checkout)
def checkout_or(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"new {number}")


@flag_required("new_checkout", otherwise="/elsewhere/")
async def checkout_redirecting(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"new awaited {number}")


@flag_required("new_checkout", otherwise=old_checkout_awaited)
async def checkout_awaited(request: HttpRequest, number: int = 0) -> HttpResponse:
    return HttpResponse(f"new awaited {number}")


class Checkout(FlagRequiredMixin, View):
    flag = Features.new_checkout

    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("class")


class CheckoutOr(FlagRequiredMixin, View):
    flag = "new_checkout"
    otherwise = old_checkout

    async def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("class awaited")


class Unfinished(FlagRequiredMixin, View):
    pass


def many(request: HttpRequest) -> HttpResponse:
    """Ask twenty flags."""
    from tests.flag_classes import Many  # noqa: PLC0415 - declared only where it is asked

    return HttpResponse(",".join(str(flag.value(request)) for flag in Many))


def share(request: HttpRequest) -> HttpResponse:
    """Ask one flag twice, once with something that the request does not tell."""
    first, second = Features.new_checkout.on(request), Features.new_checkout.on(request, plan="pro")
    return HttpResponse(f"{first} {second}")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Features.kill_switch.on(request)))


urlpatterns = [
    path("checkout/<int:number>", checkout),
    path("checkout-or/<int:number>", checkout_or),
    path("checkout-redirecting/<int:number>", checkout_redirecting),
    path("checkout-awaited/<int:number>", checkout_awaited),
    path("class", Checkout.as_view()),
    path("class-or", CheckoutOr.as_view()),
    path("unfinished", Unfinished.as_view()),
    path("many", many),
    path("share", share),
    path("plain", plain),
    path("flags.json", flags_json),
]
