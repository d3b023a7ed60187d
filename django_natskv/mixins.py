"""Mixins: class-based views that are there for those who have a flag.

Owns when the flag is asked. Knows nothing of what the others get: the decorator's.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from django_natskv.decorators import flag_required


class FlagRequiredMixin:
    """Let a view answer only those for whom ``flag`` is on; the others get ``otherwise``, a 404 by default.

    ``flag`` is a declared flag or its name; ``otherwise`` another view, or what ``redirect()`` takes. To stand before
    the view's own class, as ``LoginRequiredMixin`` does.
    """

    flag: Any = None
    otherwise: Any = None

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Answer, or refuse."""
        flag = type(self).flag
        if flag is None:
            message = f'{type(self).__name__} needs a flag: flag = "new_checkout".'
            raise ImproperlyConfigured(message)
        answer = super().dispatch  # type: ignore[misc]  # that of the view it is mixed into
        # Looked up on the class: a plain function there would be made a method.
        otherwise = vars(next(cls for cls in type(self).__mro__ if "otherwise" in vars(cls)))["otherwise"]
        otherwise = otherwise.__func__ if isinstance(otherwise, staticmethod) else otherwise
        if not self.view_is_async:  # type: ignore[attr-defined]
            return flag_required(flag, otherwise)(answer)(request, *args, **kwargs)

        async def awaited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return await answer(request, *args, **kwargs)

        return flag_required(flag, otherwise)(awaited)(request, *args, **kwargs)
