"""Django's settings of the site. Owns them. Knows nothing of the servers that run it, but where its flags are."""

import os

SECRET_KEY = "of the benchmarks"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["django_natskv", "benchmarks.site"]
MIDDLEWARE = ["django_natskv.middleware.RegistryMiddleware"]
ROOT_URLCONF = "benchmarks.site.urls"
NATSKV = {"default": {"SERVERS": [os.environ["BENCHMARK_NATS"]], "NAME": "benchmark of flags"}}
USE_TZ = True
