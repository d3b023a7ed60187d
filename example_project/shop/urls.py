"""Addresses of the shop."""

from django.urls import path

from example_project.shop import events, views

app_name = "shop"
urlpatterns = [
    path("", views.page, name="page"),
    path("async/", views.apage, name="apage"),
    path("save/", views.save, name="save"),
    path("events/", events.events, name="events"),
    path("async/events/", events.aevents, name="aevents"),
]
