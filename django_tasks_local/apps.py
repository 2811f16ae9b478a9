"""For ``INSTALLED_APPS``: needed for the management commands, not for the backends."""

from django.apps import AppConfig


class DjangoTasksLocalConfig(AppConfig):
    """The app ``django_tasks_local``. It has no models and its ``ready`` starts nothing."""

    name = "django_tasks_local"
    verbose_name = "Local tasks"
