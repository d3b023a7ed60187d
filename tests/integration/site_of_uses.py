"""A small site that uses its cache as sites do: sessions, whole pages, rate limits, and others' switches and settings.

Owns its settings and views; knows nothing of what is tested with it. ``python -m tests.integration.site_of_uses
migrate`` makes its tables, ``... serve`` prints its port and serves.
"""

from __future__ import annotations

import os
import secrets
import socketserver
import sys
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

CACHE = {
    "BACKEND": "django_natskv.cache.NatsKVCache",
    "LOCATION": f"{os.environ['TEST_SERVER']}/{os.environ['TEST_BUCKET']}",
    "OPTIONS": {"LOCAL_CACHE": os.environ.get("TEST_LOCAL_CACHE")},
}

settings.configure(
    SECRET_KEY="tests-only",
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["TEST_DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django_natskv",
        "constance",
        "waffle",
    ],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    CACHES={"default": CACHE, "sessions": {**CACHE, "KEY_PREFIX": "sessions"}},
    SESSION_ENGINE=f"django.contrib.sessions.backends.{os.environ['TEST_SESSIONS']}",
    SESSION_CACHE_ALIAS="sessions",
    CONSTANCE_BACKEND="constance.backends.database.DatabaseBackend",
    CONSTANCE_DATABASE_CACHE_BACKEND="default",
    CONSTANCE_CONFIG={"BANNER": ("hello", "shown on top")},
    USE_TZ=True,
)
django.setup()

from constance import config  # noqa: E402 - these need settings
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.cache import cache_page  # noqa: E402
from django_ratelimit.decorators import ratelimit  # noqa: E402
from waffle import switch_is_active  # noqa: E402
from waffle.models import Switch  # noqa: E402


def log_in(request: HttpRequest, user: str) -> HttpResponse:
    request.session["user"] = user
    request.session.cycle_key()
    return who(request)


def log_out(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return who(request)


def who(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"user": request.session.get("user")})


def count(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"]})


@cache_page(60)
def page(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"made": secrets.token_hex(8), "process": os.getpid()})


@ratelimit(key="ip", rate="10/d", block=True)
def limited(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"allowed": True})


def switch(request: HttpRequest, to: str = "") -> HttpResponse:
    if to:
        Switch.objects.update_or_create(name="new", defaults={"active": to == "on"})
    with CaptureQueriesContext(connection) as queries:
        active = switch_is_active("new")
    return JsonResponse({"active": active, "queries": len(queries)})


def banner(request: HttpRequest, to: str = "") -> HttpResponse:
    if to:
        config.BANNER = to
    with CaptureQueriesContext(connection) as queries:
        text = config.BANNER
    return JsonResponse({"banner": text, "queries": len(queries)})


urlpatterns = [
    path("in/<user>/", log_in),
    path("out/", log_out),
    path("who/", who),
    path("count/", count),
    path("page/", page),
    path("limited/", limited),
    path("switch/", switch),
    path("switch/<to>/", switch),
    path("banner/", banner),
    path("banner/<to>/", banner),
]


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quietly(WSGIRequestHandler):
    def log_message(self, *_args: Any) -> None:
        return


def main() -> None:
    if sys.argv[1] == "migrate":
        call_command("migrate", verbosity=0)
        return
    with make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quietly) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    sys.modules["tests.integration.site_of_uses"] = sys.modules["__main__"]
    main()
