"""Settings of the test run: one alias per backend, and per limit that a test needs to reach."""

import json
import os

if os.environ.get("DTL_TESTS_ADDED_FIELD"):
    import tests.later_django  # noqa: F401

SECRET_KEY = "not a secret"
USE_TZ = True
TIME_ZONE = "Europe/Zurich"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
FORCE_SCRIPT_NAME = os.environ.get("DTL_TESTS_PREFIX")
INSTALLED_APPS = ["django_tasks_local"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.devnull}}

QUEUES = ["default", "reports"]

TASKS = {
    "default": {"BACKEND": "django_tasks_local.ThreadPoolBackend", "QUEUES": QUEUES},
    "thread": {
        "BACKEND": "django_tasks_local.ThreadPoolBackend",
        "QUEUES": QUEUES,
        "OPTIONS": {"MAX_WORKERS": 2},
    },
    "process": {
        "BACKEND": "django_tasks_local.ProcessPoolBackend",
        "QUEUES": QUEUES,
        # A pool has settings of its own. What a test overrides reaches it through the environment.
        "OPTIONS": json.loads(os.environ.get("DTL_TESTS_OPTIONS", '{"MAX_WORKERS": 2}')),
    },
    "inline": {"BACKEND": "django_tasks_local.test.InlineBackend", "QUEUES": QUEUES},
    "immediate": {
        "BACKEND": "django.tasks.backends.immediate.ImmediateBackend",
        "QUEUES": QUEUES,
    },
}
