"""Every view of the tests' site."""

from django.urls import path

from django_tasks_local.views import health

from . import views

urlpatterns = [
    path("", views.who_am_i),
    path("enqueue", views.enqueue),
    path("aenqueue", views.async_enqueue),
    path("result/<str:result_id>", views.result),
    path("aresult/<str:result_id>", views.async_result),
    path("handles", views.handles),
    path("metrics", views.metrics),
    path("health", health),
]
