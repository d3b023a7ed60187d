"""Middleware: what a request sees of the registry.

Owns that one request sees one moment and is one context, and the cookie of a visitor's id. Knows nothing of how a
moment is kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers

from django_natskv import registry
from django_natskv.registry._flags import context_of
from django_natskv.registry.flags import anonymous
from django_natskv.registry.flags.context import Context

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RegistryMiddleware:
    """Let each request read the configs, models and flags of one moment: two reads in a view never disagree.

    A visitor who is not signed in gets a signed cookie with an id when, and only when, a percentage asks for one: so
    that they keep the same answer. A response that streams is past it: it reads what is newest, and sets no cookie.
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
        context = context_of(request)
        context.keep_id()
        with registry.snapshot():
            response: HttpResponseBase = self.get_response(request)  # type: ignore[assignment]
            return _with_id(response, request, context)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        context = context_of(request)
        context.keep_id()
        with registry.snapshot():
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]
            return _with_id(response, request, context)


def _with_id(response: HttpResponseBase, request: HttpRequest, context: Context) -> HttpResponseBase:
    """Send the id that was made for this request, if one was, and tell caches what the answer depends on."""
    if context.reads_cookie:
        patch_vary_headers(response, ("Cookie",))
    if context.new_id is not None:
        # The cookie is one visitor's own: a cache that kept it would hand it to others, with other cookies alike.
        patch_cache_control(response, private=True)
        response.set_cookie(
            anonymous.COOKIE,
            anonymous.to_cookie(context.new_id),
            max_age=anonymous.MAX_AGE,
            domain=settings.SESSION_COOKIE_DOMAIN,
            path=settings.SESSION_COOKIE_PATH,
            secure=settings.SESSION_COOKIE_SECURE or request.is_secure(),
            httponly=True,
            samesite="Lax",
        )
    return response
