"""`manage.py test` of a project that uses ProcessPoolBackend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.project import Project
from tests.support import LONG_TIMEOUT, shm_objects, wait_for

SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", "django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r},
                           "TEST": {{"NAME": {test_name!r}}}}}}}
TASKS = {{"default": {{"BACKEND": "django_tasks_local.ProcessPoolBackend",
                       "OPTIONS": {{"MAX_WORKERS": 2}}}}}}
SECRET_KEY = {key!r}
"""
TASKS = """
from django.contrib.auth.models import User
from django.db import connection
from django.tasks import task

@task
def rename(pk):
    User.objects.filter(pk=pk).update(username="renamed")
    return str(connection.settings_dict["NAME"])
"""
TESTS = """
from django.contrib.auth.models import User
from django.tasks import default_task_backend
from django.test import TransactionTestCase
from shop.tasks import rename
from tests.site.waiting import finished

class RenameTests(TransactionTestCase):
    def test_rename(self):
        user = User.objects.create(username="before")
        result = rename.enqueue(user.pk)
        finished(result)
        self.assertEqual(result.status, "SUCCESSFUL", result.errors)
        user.refresh_from_db()
        self.assertEqual(user.username, "renamed")
        print("DATABASE", result.return_value)
        print("RING", default_task_backend.terms().name, flush=True)
"""


def manage_test(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs its tests."""
    return subprocess.run(
        [sys.executable, "-m", "django", "test", "shop", *arguments],
        env=os.environ | project.env, cwd=project.folder, text=True, capture_output=True,
        timeout=LONG_TIMEOUT,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a database in a file."""
    made = Project(tmp_path / "shop")
    made.write("shop/tasks.py", TASKS)
    made.write("shop/tests.py", TESTS)
    test_name = str(tmp_path / "test.sqlite3")
    configure(made, name=str(tmp_path / "real.sqlite3"), test_name=test_name)
    return made


def configure(project: Project, **values: str) -> None:
    """Writes its settings."""
    values["key"] = str(project.folder)
    project.write("shop_settings.py", SETTINGS.format(**values))


def test_a_database_in_a_file(project: Project, tmp_path: Path) -> None:
    """Tasks see the test's data in the test's database; the ring goes with the run."""
    done = manage_test(project)
    assert done.returncode == 0, done.stderr
    told = dict(line.split() for line in done.stdout.splitlines() if line[:4] in ("DATA", "RING"))
    assert told["DATABASE"] == str(tmp_path / "test.sqlite3")
    ring = told["RING"].removeprefix("/")
    wait_for(lambda: not [name for name in shm_objects() if ring in name])


def test_a_database_in_memory(project: Project) -> None:
    """No other process can open it: `enqueue` says so and names ImmediateBackend."""
    configure(project, name=":memory:", test_name="")
    done = manage_test(project)
    assert done.returncode == 1
    assert "ImproperlyConfigured" in done.stderr
    assert "django.tasks.backends.immediate.ImmediateBackend" in done.stderr
    assert "default is SQLite in memory" in done.stderr


def test_a_parallel_run(project: Project, tmp_path: Path) -> None:
    """Each process of `test --parallel` has a ring and a database of its own."""
    tests = TESTS + TESTS.replace("RenameTests", "MoreTests")
    project.write("shop/tests.py", tests)
    done = manage_test(project, "--parallel", "2")
    assert done.returncode == 0, done.stderr


def test_a_killed_run_is_swept_by_the_next(project: Project) -> None:
    """Its ring is flagged as passing; the next test run removes it."""
    project.write("shop/tests.py", TESTS + "        import os\n        os.kill(os.getpid(), 9)\n")
    done = manage_test(project)
    assert done.returncode == -9
    ring = done.stdout.partition("RING /")[2].split()[0]
    assert f"{ring}s" in shm_objects()
    project.write("shop/tests.py", TESTS)
    done = manage_test(project, "--noinput")
    assert done.returncode == 0, done.stderr
    assert f"{ring}s" not in shm_objects()
