"""The addresses of the shop."""

from __future__ import annotations

from django.urls import path

from . import views

urlpatterns = [
    path("", views.shop, name="shop"),
    path("buy/<int:pk>/", views.buy, name="buy"),
    path("search/", views.search, name="search"),
    path("stock/<int:pk>/", views.stock, name="stock"),
]
