"""Settings of the example project: for this machine alone, with the development server that the package brings."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent

DEBUG = True
SECRET_KEY = "protects nothing"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

INSTALLED_APPS = [
    "django.contrib.staticfiles",
    "django_natskv",
    "example_project.shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "example_project.shop.sessions.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_natskv.middleware.RegistryMiddleware",
    "example_project.shop.outages.OutageMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
STATIC_URL = "static/"
USE_TZ = True
TIME_ZONE = "UTC"

NATSKV = {
    "default": {
        "SERVERS": "embedded",  # data in .natskv/, beside this file
        "NAME": "example shop",
        # Made by `natskv_bucket sync`, as are those that the caches below and shop/config.py declare.
        "BUCKETS": {"orders": {"history": 8}},
    },
}
CACHES = {
    "default": {
        "BACKEND": "django_natskv.cache.NatsKVCache",
        "LOCATION": "pages",
        "OPTIONS": {"ON_ERROR": "miss"},  # without the server, pages are made anew
    },
    "sessions": {
        "BACKEND": "django_natskv.cache.NatsKVCache",
        "LOCATION": "sessions",
        "OPTIONS": {"BUCKET": {"storage": "file"}},  # baskets outlive the server
    },
}
SESSION_ENGINE = "example_project.shop.sessions"  # Django's own, less what it does to baskets in an outage
SESSION_CACHE_ALIAS = "sessions"
