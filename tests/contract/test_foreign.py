"""The same tasks on backends of others: Django's two, and django-tasks-db over SQLite.

Policies mean nothing there, and what works on results of any backend does what it can.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import LONG_TIMEOUT, ROOT

SETTINGS = """
import json
import os
from pathlib import Path
SECRET_KEY = "foreign"
USE_TZ = True
INSTALLED_APPS = ["django_tasks_db", "django_tasks_local"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"
    }
}
TASKS = {"default": {"BACKEND": os.environ["BACKEND"]}}
"""

# Enqueues each task, has the backend run it where it can, and prints what came of it.
SCRIPT = """
import json
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING", verbosity=0)
call_command("migrate", verbosity=0)
from django.db import transaction
from django.tasks import task_backends
from django_tasks_local import (
    cancel, enqueue_on_commit, metadata_of, progress_of, results, wait_finished, with_metadata,
)
from django_tasks_local.test import captured_tasks
from tests import foreign_tasks as tasks

with captured_tasks() as captured:
    done = tasks.count.enqueue(3)
    with transaction.atomic():
        enqueue_on_commit(tasks.count, 4)
        captured.assert_enqueued_once(tasks.count)
    done_too = with_metadata(tasks.note, {"trace": 1}).enqueue(5)
    late, failed = tasks.take_too_long.enqueue(), tasks.fail.enqueue()
captured.assert_enqueued_with(tasks.count, 4)
assert len(captured) == 5

facts = {}
def refused(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__

facts["cancel"] = refused(lambda: cancel(failed))
facts["results"] = refused(results)
if type(task_backends["default"]).__name__ == "DatabaseBackend":
    call_command(
        "db_worker", interval=0, batch=True, startup_delay=False, reload=False, verbosity=0
    )
facts["outcomes"] = []
for result in (done, captured.of(tasks.count)[1], done_too, late, failed):
    if refused(lambda: wait_finished(result, 5)) in ("TimeoutError", "NotImplementedError"):
        facts["outcomes"].append(result.status)
    elif result.errors:
        facts["outcomes"].append(result.errors[0].exception_class.__name__)
    else:
        facts["outcomes"].append(result.return_value)
facts["progress"] = progress_of(done)
facts["metadata"] = metadata_of(done_too)
print(json.dumps(facts))
"""

RAN = [[3, False, False], [4, False, False], 5, "to its end", "ValueError"]


@pytest.mark.parametrize(
    ("backend", "outcomes", "cancelled"),
    [
        ("django.tasks.backends.immediate.ImmediateBackend", RAN, False),
        ("django.tasks.backends.dummy.DummyBackend", ["READY"] * 5, "NotImplementedError"),
        ("django_tasks_db.DatabaseBackend", RAN, "NotImplementedError"),
    ],
    ids=["immediate", "dummy", "database"],
)
def test_the_same_tasks(
    tmp_path: Path, backend: str, outcomes: list[object], cancelled: object
) -> None:
    """They import, run without limits, and are captured; verbs say what they cannot do."""
    (tmp_path / "foreign_settings.py").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env=os.environ | {
            "BACKEND": backend,
            "DJANGO_SETTINGS_MODULE": "foreign_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
        cwd=tmp_path, text=True, capture_output=True, timeout=LONG_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["outcomes"] == outcomes
    assert facts["cancel"] == cancelled
    assert facts["results"] == "ImproperlyConfigured"
    assert facts["progress"] is None
