"""Decorators: views that are there for those who have a flag.

Owns what the others get. Knows nothing of how a flag is asked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http import Http404, HttpRequest
from django.shortcuts import redirect

from django_natskv.registry import AnyFlag, find_flag

V = TypeVar("V", bound=Callable[..., Any])


def flag_required(flag: AnyFlag[Any] | str, otherwise: Callable[..., Any] | str | None = None) -> Callable[[V], V]:
    """Let a view answer only those for whom ``flag`` (or the flag of that name) is on; a variant: is not empty.

    The others get ``otherwise``: another view, which is called with the same arguments and is awaited where the
    decorated one is, or what ``redirect()`` takes; a 404 without it. Of plain and coroutine functions.
    """

    def decorate(view: V) -> V:
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def awaited(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
                if await _flag(flag).avalue(request):
                    return await view(request, *arguments, **named)
                answer = refuse(flag, otherwise, request, *arguments, **named)
                return await answer if iscoroutinefunction(otherwise) else answer

            return awaited  # type: ignore[return-value]

        @functools.wraps(view)
        def plain(request: HttpRequest, *arguments: Any, **named: Any) -> Any:
            chosen = view if _flag(flag).value(request) else functools.partial(refuse, flag, otherwise)
            return chosen(request, *arguments, **named)

        return plain  # type: ignore[return-value]

    return decorate


def refuse(
    flag: AnyFlag[Any] | str, otherwise: Callable[..., Any] | str | None, /, *arguments: Any, **named: Any
) -> Any:
    """Return the answer for those who do not have ``flag``: see flag_required(). Raises ``Http404`` without any."""
    if otherwise is None:
        raise Http404(f'The flag "{_flag(flag).name}" is off.')
    if callable(otherwise):
        return otherwise(*arguments, **named)
    return redirect(otherwise)


def _flag(flag: AnyFlag[Any] | str) -> AnyFlag[Any]:
    # By name at each call: a view may be imported before the flags are.
    return find_flag(flag) if isinstance(flag, str) else flag
