"""For ``INSTALLED_APPS``: needed for the management commands, not for the backends."""

import inspect
import os
from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class DjangoTasksLocalConfig(AppConfig):
    """The app ``django_tasks_local``. It has no models, and its ``ready`` makes nothing."""

    name = "django_tasks_local"
    verbose_name = "Local tasks"

    def ready(self) -> None:
        """Lets a web process attach at its first request, or at once where work is under way."""
        backends = [str(params.get("BACKEND")) for params in settings.TASKS.values()]
        if "django_tasks_local.ProcessPoolBackend" in backends:
            process = import_module("django_tasks_local.backends.process")
            if _starts_a_server():
                process.attach_where_work_is()


def _starts_a_server() -> bool:
    """Whether this process makes a WSGI or ASGI application, or is what autoreload restarts."""
    if os.environ.get("RUN_MAIN") == "true":
        return True
    # Django says nowhere else who called setup(): a command does, and so does a server.
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in ("get_wsgi_application", "get_asgi_application"):
            return True
        frame = frame.f_back
    return False
