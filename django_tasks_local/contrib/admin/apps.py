"""The app ``django_tasks_local.contrib.admin``, for ``INSTALLED_APPS``."""

from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Warning, register
from django.utils.translation import gettext_lazy as _


class LocalTasksAdminConfig(AppConfig):
    """The app. It has no table in the database, only permissions."""

    name = "django_tasks_local.contrib.admin"
    label = "django_tasks_local_admin"
    verbose_name = _("Local tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the app's check."""
        register(check_admin)


def check_admin(**kwargs: Any) -> list[CheckMessage]:
    """Return a warning where no admin is there that would show the tasks."""
    if apps.is_installed("django.contrib.admin"):
        return []
    return [
        Warning(
            "'django_tasks_local.contrib.admin' is in INSTALLED_APPS, and 'django.contrib.admin' "
            "is not, so that nothing shows the tasks.",
            hint="Add Django's admin with what it needs, or remove this app.",
            id="django_tasks_local.W004",
        )
    ]
