"""Settings of the tests' site; what differs between tests comes from environment variables.

``DTL_NAMESPACE`` and ``DTL_OPTIONS`` (JSON) go into the OPTIONS of the alias "default", the
namespace into that of "other" as well; ``DTL_TASKS`` (JSON) replaces TASKS as a whole.
"""

import json
import os
import threading
from pathlib import Path

SECRET_KEY = os.environ.get("DTL_SECRET_KEY", "not a secret")
ALLOWED_HOSTS = ["*"]
USE_TZ = True
DATA_UPLOAD_MAX_MEMORY_SIZE = None  # requests that carry large arguments
DEBUG = "DTL_DEBUG" in os.environ
ROOT_URLCONF = "tests.site.urls"
INSTALLED_APPS = ["tests.site", "django_tasks_local"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DTL_DB", os.devnull),
    }
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s pid=%(process)d %(message)s"}},
    "handlers": {"log": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"django_tasks_local": {"handlers": ["log"], "level": "INFO"}},
}

_namespace = {"NAMESPACE": os.environ["DTL_NAMESPACE"]} if "DTL_NAMESPACE" in os.environ else {}
_options = json.loads(os.environ.get("DTL_OPTIONS", '{"MAX_WORKERS": 4}'))
_process = "django_tasks_local.ProcessPoolBackend"
TASKS = {
    "default": {"BACKEND": _process, "QUEUES": [], "OPTIONS": _namespace | _options},
    "other": {"BACKEND": _process, "OPTIONS": _namespace | {"MAX_WORKERS": 1}},
}
if "DTL_TASKS" in os.environ:
    TASKS = json.loads(os.environ["DTL_TASKS"])

if "DTL_THREAD" in os.environ:
    # What some monitoring agents do: a thread that set-up leaves running.
    threading.Thread(target=threading.Event().wait, daemon=True).start()
_in_pool = b"django_tasks_local.pool" in Path("/proc/self/cmdline").read_bytes()
if _in_pool and os.path.exists(os.environ.get("DTL_HANG_IF", "")):
    threading.Event().wait()
if _in_pool and os.path.exists(os.environ.get("DTL_BROKEN_IF", "")):
    raise RuntimeError("these settings are broken in the pool")
