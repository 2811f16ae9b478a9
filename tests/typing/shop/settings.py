"""What django-stubs' plugin for mypy reads."""

SECRET_KEY = "shop"
INSTALLED_APPS = ["django_tasks_local"]
TASKS = {
    "default": {"BACKEND": "django_tasks_local.ThreadPoolBackend"},
    "cpu_intensive": {
        "BACKEND": "django_tasks_local.ProcessPoolBackend",
        "OPTIONS": {"MAX_WORKERS": 4},
    },
}
