"""Django's settings for the tests; ``NATSKV`` is filled by the ``natskv`` fixture, from the server of the session."""

SECRET_KEY = "tests-only"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_natskv",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
# Port 1 refuses at once: a test that forgot the fixture fails instead of meeting some server of the machine.
NATSKV = {"default": {"SERVERS": ["nats://127.0.0.1:1"]}}
CONSTANCE_BACKEND = "constance.backends.memory.MemoryBackend"  # its own default asks for Redis
