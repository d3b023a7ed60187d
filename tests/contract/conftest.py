"""What Django's own tests expect around them: its applications, their tables, its templates; and our server.

Owns the settings that they run under; knows nothing of the single tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.test import override_settings

from tests.contract import django_sdist
from tests.fix_servers import NatsServer

LOCMEM = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]


@pytest.fixture(scope="module", autouse=True)
def around_djangos_tests(nats_server: NatsServer, django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Set what Django's tests are run with by Django; of a module, so that one connection serves all its tests."""
    django_sdist.make_importable()
    with (
        override_settings(
            NATSKV={"default": {"SERVERS": [nats_server.url]}},
            INSTALLED_APPS=django_sdist.INSTALLED_APPS,
            CACHES=LOCMEM,  # as if not set: that anything is set at all makes Django forget the caches it has made
            TEMPLATES=TEMPLATES,
            LANGUAGE_CODE="en",
            USE_TZ=False,
        ),
        django_db_blocker.unblock(),  # Django's tests have Django's own guard
    ):
        _make_tables()
        yield


def _make_tables() -> None:
    # The database of the session may have been made while these applications were not installed.
    there = connection.introspection.table_names()
    with connection.schema_editor() as editor:
        for label in ("sessions", "cache", "sessions_tests"):
            for model in apps.get_app_config(label).get_models():
                if model._meta.db_table not in there:
                    editor.create_model(model)
