"""The smallest Django project that can run tasks: the settings of every benchmark.

`TASKS` comes from the environment, because the pool and every process of the run must see the very
same backends. Logging is left as Django ships it: its receivers of the task signals are part of
what a user pays.
"""

import json
import os

SECRET_KEY = "benchmarks-only"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "bench_site"
USE_TZ = True
INSTALLED_APPS: list[str] = json.loads(os.environ.get("BENCH_APPS", "[]"))
TASKS = json.loads(os.environ["BENCH_TASKS"])
DATABASES = json.loads(os.environ.get("BENCH_DATABASES", "{}"))
if level := os.environ.get("BENCH_TASKS_LOG_LEVEL"):
    LOGGING = {"version": 1, "loggers": {"django.tasks": {"level": level}}}
RQ_QUEUES = json.loads(os.environ.get("BENCH_RQ_QUEUES", "{}"))
