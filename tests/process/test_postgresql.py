"""Test runs with PostgreSQL, which does not destroy a database that somebody has open."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.postgresql import PostgreSQL
from tests.process.project import Project
from tests.support import LONG_TIMEOUT

SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", "django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": {folder!r},
    "USER": "postgres", "CONN_MAX_AGE": None, "OPTIONS": {options!r}}}}}
TASKS = {{
    "default": {{"BACKEND": "django_tasks_local.ProcessPoolBackend",
                 "OPTIONS": {{"MAX_WORKERS": 2}}}},
    "threads": {{"BACKEND": "django_tasks_local.ThreadPoolBackend",
                 "OPTIONS": {{"DRAIN_TIMEOUT": 0.5}}}}}}
SECRET_KEY = {key!r}
"""
TASKS = """
import threading
from django.contrib.auth.models import User
from django.db import connection
from django.tasks import task

@task
def count():
    return User.objects.count(), connection.settings_dict["NAME"]

@task
def stay():
    User.objects.create(username="here")
    while True:
        threading.Event().wait(0.01)
"""
TESTS = """
from django.contrib.auth.models import User
from django.db import connection
from django.test import TransactionTestCase
from shop.tasks import count, stay
from tests.site.waiting import finished

class CountTests(TransactionTestCase):
    def test_count(self):
        User.objects.create(username="one")
        name = connection.settings_dict["NAME"]
        assert name.startswith("test_shop")
        for alias in ("default", "threads"):
            task = count.using(backend=alias)
            # More than one at a time, so that more than one worker connects.
            results = [task.enqueue() for _ in range(8)]
            self.assertEqual({tuple(finished(result)) for result in results}, {(1, name)})
"""
STAYING = """
class StayTests(TransactionTestCase):
    def test_stay(self):
        for alias in ("default", "threads"):
            stay.using(backend=alias).enqueue()
            while not User.objects.exists():
                pass
            User.objects.all().delete()
"""
EARLY = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def early(django_test_environment):
    from shop.tasks import count
    from tests.site.waiting import finished

    assert "no test database existed/when the pool" in finished(count.enqueue())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server with the project's real database."""
    with PostgreSQL() as server:
        server.query("CREATE DATABASE shop")
        yield server


@pytest.fixture
def project(tmp_path: Path, server: PostgreSQL) -> Iterator[Project]:
    """A project whose connections are kept for ever; its test databases must be gone at the end."""
    made = Project(tmp_path / "shop")
    made.write("shop/tasks.py", TASKS)
    made.write("shop/tests.py", TESTS)
    configure(made, server)
    yield made
    names = server.query("SELECT datname FROM pg_database WHERE datname LIKE 'test%'")
    for name in names:
        server.query(f'DROP DATABASE "{name}" WITH (FORCE)')
    assert not names


def configure(project: Project, server: PostgreSQL, **options: object) -> None:
    """Writes its settings."""
    text = SETTINGS.format(folder=server.folder, options=options, key=str(project.folder))
    project.write("shop_settings.py", text)


def run(project: Project, *arguments: str) -> None:
    """Runs its tests, which must pass, and their databases be destroyed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        env=os.environ | project.env, cwd=project.folder, text=True, capture_output=True,
        timeout=LONG_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "being accessed" not in done.stdout + done.stderr


def test_idle_threads_and_workers(project: Project) -> None:
    """CONN_MAX_AGE does not keep connections between the tasks of a test run."""
    run(project, "django", "test", "shop")
    run(project, "django", "test", "shop", "--noinput")


def test_what_still_runs(project: Project) -> None:
    """Tasks that no test waited for end before the databases are destroyed."""
    project.write("shop/tests.py", TESTS + STAYING)
    run(project, "django", "test", "shop")


def test_parallel(project: Project) -> None:
    """So do those of the processes of `test --parallel`."""
    project.write("shop/tests.py", TESTS + TESTS.replace("CountT", "MoreT") + STAYING)
    run(project, "django", "test", "shop", "--parallel", "2")


def test_a_pool_of_connections(project: Project, server: PostgreSQL) -> None:
    """Connections of a pool in a worker close as well."""
    configure(project, server, pool=True)
    text = (project.folder / "shop_settings.py").read_text()
    project.write("shop_settings.py", text.replace('"CONN_MAX_AGE": None', '"CONN_MAX_AGE": 0'))
    run(project, "django", "test", "shop")


def test_pytest_django(project: Project) -> None:
    """The same with pytest-django, which makes the databases only for the first test with one."""
    project.write("shop/tests.py", TESTS + STAYING)
    project.write("conftest.py", EARLY)
    run(project, "pytest", "-p", "no:cacheprovider", "shop/tests.py")
