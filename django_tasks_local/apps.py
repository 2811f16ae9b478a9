"""For ``INSTALLED_APPS``: needed for the management commands, not for the backends."""

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class DjangoTasksLocalConfig(AppConfig):
    """The app ``django_tasks_local``. It has no models and its ``ready`` starts nothing."""

    name = "django_tasks_local"
    verbose_name = "Local tasks"

    def ready(self) -> None:
        """Lets a web process attach at its first request, before its URLs import any task."""
        backends = [str(params.get("BACKEND")) for params in settings.TASKS.values()]
        if "django_tasks_local.ProcessPoolBackend" in backends:
            import_module("django_tasks_local.backends.process")
