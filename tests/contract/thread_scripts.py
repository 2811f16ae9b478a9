"""Programs that use ThreadPoolBackend, for tests of what happens when a process ends or forks."""

import os
import subprocess
import sys
import time

from tests.support import ROOT

BEGINNING = """
import os, sys, time
import django
django.setup()
from datetime import timedelta
from pathlib import Path
from django.conf import settings
from tests import tasks
def on(task, **changes):
    return task.using(backend="thread", **changes)
"""


def script(
    code: str, *args: object, drain: object = 8, status: int = 0, **env: str
) -> tuple[float, str]:
    """Runs a program with Django set up; returns its wall time in s, and its output."""
    options = (
        f'settings.TASKS["thread"]["OPTIONS"] = {{"MAX_WORKERS": 2, "DRAIN_TIMEOUT": {drain}}}\n'
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + options + code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return time.monotonic() - started, done.stdout + done.stderr
