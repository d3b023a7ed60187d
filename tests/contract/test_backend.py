"""Django's tests of every cache backend, on ours: in each mode, plain and awaited."""

from __future__ import annotations

import itertools
from typing import Any

from django.test import TestCase, TransactionTestCase, override_settings

from tests.contract import django_sdist
from tests.contract.faces import BACKENDS, MODES, bucket, sleepers_marked

django_tests = django_sdist.load("cache.tests")


def caches(backend: str, mode: str | None) -> dict[str, Any]:
    """Return the caches that the tests ask for by alias, all of them on one bucket."""
    made = django_tests.caches_setting_for_tests(BACKEND=BACKENDS[backend], LOCATION=bucket(f"{backend}-{mode}"))
    return {alias: {**one, "OPTIONS": {**one.get("OPTIONS", {}), "LOCAL_CACHE": mode}} for alias, one in made.items()}


def backend_case(backend: str, mode: str | None) -> type:
    """Return the tests of one face in one mode."""
    # What is awaited may pickle in another thread, and so read the database on another connection: it has to see
    # what the test has written there.
    database = TestCase if backend == "plain" else TransactionTestCase
    attributes = {"available_apps": None if backend == "plain" else django_sdist.INSTALLED_APPS}
    if (backend, mode) != ("plain", None):
        attributes |= sleepers_marked(django_tests.BaseCacheTests)
    case = type(f"BaseCacheTests_{backend}_{mode or 'none'}", (django_tests.BaseCacheTests, database), attributes)
    return override_settings(CACHES=caches(backend, mode))(case)


globals().update({case.__name__: case for case in itertools.starmap(backend_case, itertools.product(BACKENDS, MODES))})
