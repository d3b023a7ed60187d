"""Addresses of the example project."""

from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    path("", include("example_project.shop.urls")),
    *staticfiles_urlpatterns(),  # runserver would do without, ASGI servers would not
]
