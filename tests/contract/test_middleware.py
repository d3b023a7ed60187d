"""Django's tests of all that stands on a cache: the middleware, the decorators, the handler; in each mode."""

from __future__ import annotations

from django.test import SimpleTestCase

from tests.contract import django_sdist
from tests.contract.faces import in_each_mode

django_tests = django_sdist.load("cache.tests")

# The tests of a backend itself: of every backend (test_backend.py), and of each of Django's own.
BACKENDS = {"DummyCacheTests", "CreateCacheTableForDBCacheTests"}
# What looks into LocMemCache.
INSIDE = (
    "test_caches_with_unset_timeout_set_expiring_key",
    "test_caches_set_with_timeout_as_none_set_non_expiring_key",
)

for _name, _case in vars(django_tests).items():
    if (
        isinstance(_case, type)
        and issubclass(_case, SimpleTestCase)
        and _case.__module__ == django_tests.__name__
        and not issubclass(_case, django_tests.BaseCacheTests)
        and _name not in BACKENDS
    ):
        globals().update(in_each_mode(_case, without=[test for test in INSIDE if hasattr(_case, test)]))
del _name, _case
