"""The example project for WSGI servers."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")

application = get_wsgi_application()

from django_natskv import registry  # noqa: E402 - needs Django to be set up

registry.start()  # copies config and flags now, so that the first request need not wait for them
