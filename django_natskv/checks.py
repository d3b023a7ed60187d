"""System checks: what ``manage.py check`` says about the settings of this package and what the registry declares.

Owns the translation of problems into Django's check messages. Must not hold a rule of its own: those are in
``django_natskv.conf``, which applies the same ones at first use, and in ``django_natskv.registry.checks``.
"""

from __future__ import annotations

from typing import Any

from django.core.checks import ERROR, CheckMessage, Error, Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured

from django_natskv.cache.options import setting_problems as cache_problems
from django_natskv.conf import Problem, aliases, setting_problems
from django_natskv.conf.flags import flag_problems
from django_natskv.declarations import declared_buckets
from django_natskv.registry.checks import check_registry

TAG = "natskv"

__all__ = ["TAG", "check_caches", "check_declarations", "check_flags", "check_registry", "check_settings"]


def check_settings(**_kwargs: Any) -> list[CheckMessage]:
    """Return a message for each mistake in ``settings.NATSKV``; no message holds a credential.

    Settings belong to no application, so the applications that Django passes do not narrow the check. The network is
    not touched.
    """
    return [_to_message(problem) for problem in setting_problems()]


def check_declarations(**_kwargs: Any) -> list[CheckMessage]:
    """Return a message for each connection on which two places want different things of one bucket.

    Settings that cannot be used are told by the other checks. See check_settings().
    """
    others = [*check_settings(), *check_caches(), *check_registry()]
    if any(message.level >= ERROR for message in others):
        return []
    found: list[CheckMessage] = []
    for alias in aliases():
        try:
            declared_buckets(alias)
        except ImproperlyConfigured as error:
            hint = "Let both say the same, or give one of them another bucket."
            found.append(Error(str(error), hint=hint, id="natskv.E120"))
    return found


def _to_message(problem: Problem) -> CheckMessage:
    kind = CheckWarning if problem.is_warning else Error
    return kind(problem.message, hint=problem.hint, id=problem.id)


def check_caches(**_kwargs: Any) -> list[CheckMessage]:
    """Return a message for each mistake in those of ``settings.CACHES`` that are ours. See check_settings()."""
    return [_to_message(problem) for problem in cache_problems()]


def check_flags(**_kwargs: Any) -> list[CheckMessage]:
    """Return a message for each mistake in ``settings.NATSKV_FLAGS``. See check_settings()."""
    return [_to_message(problem) for problem in flag_problems()]
