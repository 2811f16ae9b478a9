"""Addresses of the page and of the few JSON documents behind it."""

from django.urls import path, re_path

from board import views

urlpatterns = [
    path("", views.index, name="index"),
    path("jobs/", views.enqueue, name="jobs"),
    # Any string at all may come in as an id; the view answers 404 for what is not one. `path:`
    # would not do here: it stops at a line break.
    re_path(r"^jobs/(?P<result_id>[\s\S]+?)/cancel/\Z", views.cancel_task, name="cancel"),
    re_path(r"^jobs/(?P<result_id>[\s\S]+?)/again/\Z", views.run_again, name="again"),
    re_path(r"^jobs/(?P<result_id>[\s\S]+?)/?\Z", views.detail, name="job"),
    re_path(r"^pictures/(?P<result_id>[\s\S]+?)/?\Z", views.picture, name="picture"),
    path("events/", views.events, name="events"),
    path("whoami/", views.whoami, name="whoami"),
]
