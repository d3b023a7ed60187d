"""Addresses of the shop."""

from django.urls import path

from example_project.shop import events
from example_project.shop.views import checkout, orders, store

app_name = "shop"
urlpatterns = [
    path("", store.catalogue, name="catalogue"),
    path("product/<slug:code>/", store.product, name="product"),
    path("basket/", store.basket, name="basket"),
    path("checkout/", checkout.checkout, name="checkout"),
    path("async/checkout/", checkout.acheckout, name="acheckout"),
    path("thanks/<str:key>/", checkout.thanks, name="thanks"),
    path("orders/", orders.page, name="orders"),
    path("async/orders/", orders.apage, name="aorders"),
    path("orders/save/", orders.save, name="save"),
    path("orders/events/", events.events, name="events"),
    path("async/orders/events/", events.aevents, name="aevents"),
]
