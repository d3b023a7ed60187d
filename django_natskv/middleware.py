"""Middleware: what a request sees of the registry.

Owns that one request sees one moment. Knows nothing of how a moment is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponseBase

from django_natskv import registry

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RegistryMiddleware:
    """Let each request read the configs and models of one moment: two reads in a view never disagree.

    A response that streams is past it: it reads what is newest.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._awaits = iscoroutinefunction(get_response)
        if self._awaits:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer ``request``."""
        if self._awaits:
            return self._acall(request)
        with registry.snapshot():
            return self.get_response(request)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with registry.snapshot():
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
            return response
