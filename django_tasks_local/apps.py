"""For ``INSTALLED_APPS``: needed for the management commands, not for the backends."""

from importlib import import_module

from django.apps import AppConfig
from django.conf import settings

from django_tasks_local.pool.serving import is_server, makes_an_application


class DjangoTasksLocalConfig(AppConfig):
    """The app ``django_tasks_local``. It has no models, and its ``ready`` creates nothing."""

    name = "django_tasks_local"
    verbose_name = "Local tasks"

    def ready(self) -> None:
        """Let a web process attach at its first request, or at once where that cannot wait."""
        backends = [str(params.get("BACKEND")) for params in settings.TASKS.values()]
        if "django_tasks_local.ProcessPoolBackend" in backends:
            attaching = import_module("django_tasks_local.pool.attaching")
            if is_server() or makes_an_application():
                attaching.attach_at_start()
