"""Sessions in the cache that an outage does not end: who has a basket still has it afterwards.

Owns what Django takes otherwise: a session that cannot be read is none to it. Knows nothing of baskets.
"""

from __future__ import annotations

from typing import Any

from django.contrib.sessions import middleware
from django.contrib.sessions.backends import cache
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest, HttpResponse

from django_natskv.exceptions import OperationalError
from example_project.shop.outages import unavailable


class SessionStore(cache.SessionStore):
    """Raises where a session cannot be read. Django would go on with an empty one, and have the browser forget it."""

    _cache: BaseCache

    def load(self) -> dict[str, Any]:
        return self._found(self._cache.get(self.cache_key))

    async def aload(self) -> dict[str, Any]:
        return self._found(await self._cache.aget(await self.acache_key()))

    def _found(self, content: dict[str, Any] | None) -> dict[str, Any]:
        if content is None:
            self._session_key = None  # it has expired: nobody is to choose the key of the next one
        return content or {}


class SessionMiddleware(middleware.SessionMiddleware):
    """Answers with the page of an outage where a session cannot be saved, too: that is after any view has answered."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except OperationalError as error:
            return unavailable(request, error)
