"""Django's tests of the template tag that caches a fragment; in each mode."""

from __future__ import annotations

from tests.contract import django_sdist
from tests.contract.faces import in_each_mode

django_tests = django_sdist.load("template_tests.syntax_tests.test_cache")

globals().update(in_each_mode(django_tests.CacheTagTests))
globals().update(in_each_mode(django_tests.CacheTests))
