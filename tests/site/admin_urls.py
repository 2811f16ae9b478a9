"""Two admin sites: Django's own, and one more with the tasks on it."""

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.urls import include, path

from django_tasks_local.contrib.admin.admin import TaskAdmin
from django_tasks_local.contrib.admin.models import Task

other_site = AdminSite(name="other")
other_site.register(Task, TaskAdmin)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("other/", other_site.urls),
    path("", include("tests.site.urls")),
]
