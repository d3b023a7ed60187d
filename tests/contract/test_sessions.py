"""Django's tests of sessions that are kept in a cache, alone or before the database; in each mode."""

from __future__ import annotations

from collections.abc import Iterable

from django.test import override_settings

from tests.contract import django_sdist
from tests.contract.faces import in_each_mode

django_tests = django_sdist.load("sessions_tests.tests")

globals().update(in_each_mode(django_tests.CacheSessionTests))
globals().update(in_each_mode(django_tests.CacheDBSessionTests))
globals().update(in_each_mode(django_tests.CacheDBSessionWithTimeZoneTests))


def middleware_on(engine: str, without: Iterable[str] = ()) -> dict[str, type]:
    """Return the tests of the session middleware with sessions of this engine."""
    made = in_each_mode(django_tests.SessionMiddlewareTests, f"SessionMiddlewareTests_{engine}", without)
    setting = override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}")
    return {name: setting(case) for name, case in made.items()}


globals().update(middleware_on("cache", without=["test_empty_session_saved"]))  # it reads the session from the database
globals().update(middleware_on("cached_db"))
