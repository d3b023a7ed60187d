"""Views: what a browser may know of flags.

Owns which are shown, and that nobody else's copy of the answer is. Knows nothing of how a flag is asked.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from django_natskv.registry import all_flags


def public_flags(request: HttpRequest | None) -> dict[str, Any]:
    """Return the values of the flags that are declared ``public``, by name, for whoever sends ``request``."""
    return {flag.name: flag.value(request) for flag in all_flags() if flag.declaration.public}


@never_cache
@require_safe
def flags_json(request: HttpRequest) -> JsonResponse:
    """Answer with the public flags as JSON: ``{"new_checkout": true, "theme": "old"}``. Never cached.

    To be put into ``urlpatterns``. A plain view, so that it may load the user wherever it runs.
    """
    return JsonResponse(public_flags(request))
