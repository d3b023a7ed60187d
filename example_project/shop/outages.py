"""What a visitor sees when the bucket is missing or the server is away. Knows nothing of any view."""

from __future__ import annotations

from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.deprecation import MiddlewareMixin

from django_natskv.exceptions import (
    BucketNotFound,
    ConnectFailed,
    NotConnected,
    OperationalError,
    OperationTimedOut,
)

_SILENT = (ConnectFailed, NotConnected, OperationTimedOut)


class OutageMiddleware(MiddlewareMixin):
    """Answers with a page that says what is wrong, and what to do, wherever a view meets an ``OperationalError``."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return unavailable(request, error) if isinstance(error, OperationalError) else None


def unavailable(request: HttpRequest, error: OperationalError) -> HttpResponse:
    """Return that page."""
    bucket = error.bucket if isinstance(error, BucketNotFound) else None
    context = {"problem": error, "missing": bucket, "silent": isinstance(error, _SILENT)}
    return render(request, "shop/unavailable.html", context, status=HTTPStatus.SERVICE_UNAVAILABLE)
