"""The views of the site. Owns what they answer: who says what of the flag. Knows nothing of time."""

from __future__ import annotations

import os

from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks.site.config import Site


def view(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"worker": os.getpid(), "on": Site.flipped.on(request)})


async def aview(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"worker": os.getpid(), "on": await Site.flipped.aon(request)})


urlpatterns = [path("", view), path("awaited", aview)]
