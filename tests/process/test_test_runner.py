"""`manage.py test` of a project that uses ProcessPoolBackend."""

import ast
import json
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
TASKS = {{alias: {{"BACKEND": "django_tasks_local.ProcessPoolBackend",
                   "OPTIONS": {{"MAX_WORKERS": 2}}}} for alias in ("default", "other")}}
SECRET_KEY = {key!r}
DEBUG = True
"""
TASKS = """
from django.contrib.auth.models import User
from django.db import connection
from django.tasks import task

from django.conf import settings
from django.core import mail
from django.tasks import task_backends
from tests.site.waiting import finished

@task
def where():
    rings = [task_backends[alias].spec().name for alias in ("default", "other")]
    connection.ensure_connection()
    return [str(connection.settings_dict["NAME"]), *rings]

@task
def chain():
    results = [where.using(backend=alias).enqueue() for alias in ("default", "other")]
    return [where.func(), *map(finished, results)]

@task
def environment():
    mail.send_mail("subject", "text", None, ["nobody@example.com"])
    return [len(mail.outbox), "testserver" in settings.ALLOWED_HOSTS, settings.DEBUG]

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
        print("RING", default_task_backend.spec().name, flush=True)
"""


CHAIN_TESTS = """
import json
from django.tasks import task_backends
from django.test import TransactionTestCase
from shop.tasks import chain, where
from tests.site.waiting import finished

class ChainTests(TransactionTestCase):
    def test_chain(self):
        rings = [task_backends[alias].spec().name for alias in ("default", "other")]
        print("FOUND", json.dumps([finished(chain.enqueue()), rings]), flush=True)
"""
ENVIRONMENT_TESTS = """
from django.conf import settings
from django.test import TransactionTestCase, override_settings
from shop.tasks import environment
from tests.site.waiting import finished

class EnvironmentTests(TransactionTestCase):
    @override_settings(DEBUG=True)
    def test_environment(self):
        self.assertEqual(finished(environment.enqueue()), [1, True, {debug}])
"""
LEFT_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
# A site that is there while the tests run, and what it then finds in its rings.
SITE = """
import sys
import django
django.setup()
from django.tasks import task_backends
from django_tasks_local.ring import unlink_objects
from shop.tasks import where
from tests.site.waiting import finished
backends = [task_backends[alias] for alias in ("default", "other")]
places = [finished(where.using(backend=backend.alias).enqueue()) for backend in backends]
print(places[0], flush=True)
sys.stdin.read()
print([backend.site().ring.counts().kept for backend in backends])
for backend in backends:
    backend.close()
    unlink_objects(backend.spec().name)
"""


def manage_test(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs its tests."""
    return subprocess.run(
        [sys.executable, "-m", "django", "test", "shop", *arguments],
        env=os.environ | project.env, cwd=project.folder, text=True, capture_output=True,
        timeout=LONG_TIMEOUT,
    )  # fmt: skip


def left_of(rings: list[str]) -> list[str]:
    """What is in /dev/shm of these rings."""
    return [name for name in shm_objects() if any(ring[1:] in name for ring in rings)]


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
    """No other process can open it: `enqueue` says so and names InlineBackend."""
    configure(project, name=":memory:", test_name="")
    done = manage_test(project)
    assert done.returncode == 1
    assert "ImproperlyConfigured" in done.stderr
    assert "django_tasks_local.test.InlineBackend" in done.stderr
    assert "default is SQLite in memory" in done.stderr


def test_a_parallel_run(project: Project, tmp_path: Path) -> None:
    """Each process of `test --parallel` has a ring and a database of its own."""
    tests = TESTS + TESTS.replace("RenameTests", "MoreTests")
    project.write("shop/tests.py", tests)
    done = manage_test(project, "--parallel", "2")
    assert done.returncode == 0, done.stderr


def test_a_killed_run_is_swept_by_the_next(project: Project) -> None:
    """Its ring is flagged as temporary; the next test run removes it."""
    project.write("shop/tests.py", TESTS + "        import os\n        os.kill(os.getpid(), 9)\n")
    done = manage_test(project)
    assert done.returncode == -9
    ring = done.stdout.partition("RING /")[2].split()[0]
    assert f"{ring}s" in shm_objects()
    project.write("shop/tests.py", TESTS)
    done = manage_test(project, "--noinput")
    assert done.returncode == 0, done.stderr
    assert f"{ring}s" not in shm_objects()


def test_a_task_that_enqueues(project: Project, tmp_path: Path) -> None:
    """It is of the test run for every alias, with a development site beside it."""
    site = subprocess.Popen(
        [sys.executable, "-c", SITE],
        env=os.environ | project.env, cwd=project.folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with site:
        assert site.stdout is not None
        real = ast.literal_eval(site.stdout.readline())
        assert real[0] == str(tmp_path / "real.sqlite3")
        project.write("shop/tests.py", CHAIN_TESTS)
        done = manage_test(project)
        assert done.returncode == 0, done.stderr
        places, rings = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
        assert places == [[str(tmp_path / "test.sqlite3"), *rings]] * 3
        assert not {*rings} & {*real}
        # Both rings are gone, that too which only a task has used.
        assert not left_of(rings)
        left, _ = site.communicate("")
        assert left.split() == ["[1,", "1]"]


@pytest.mark.parametrize("flags", [[], ["--debug-mode"]], ids=["", "debug"])
def test_the_test_environment(project: Project, flags: list[str]) -> None:
    """Mail stays in memory; ALLOWED_HOSTS and DEBUG are the test run's."""
    project.write("shop/tests.py", ENVIRONMENT_TESTS.format(debug=bool(flags)))
    done = manage_test(project, *flags)
    assert done.returncode == 0, done.stderr


def test_no_test_database(project: Project, tmp_path: Path) -> None:
    """Where the runner makes none, since no test asks for it, tasks do not get the real one."""
    tests = CHAIN_TESTS.replace("TransactionTestCase", "SimpleTestCase").replace("chain", "where")
    project.write("shop/tests.py", tests)
    done = manage_test(project)
    assert done.returncode == 0, done.stderr
    assert "unable to open database file" in done.stdout
    assert not (tmp_path / "real.sqlite3").exists()


def test_fresh_workers(project: Project, tmp_path: Path) -> None:
    """Workers that are started fresh, because set-up has left a thread, are no different."""
    with (project.folder / "shop/__init__.py").open("a") as package:
        package.write(LEFT_THREAD)
    for tests in (CHAIN_TESTS, ENVIRONMENT_TESTS.format(debug=False)):
        project.write("shop/tests.py", tests)
        done = manage_test(project)
        assert done.returncode == 0, done.stderr
        if tests is CHAIN_TESTS:
            places, rings = json.loads(done.stdout.partition("FOUND ")[2].splitlines()[0])
            assert places == [[str(tmp_path / "test.sqlite3"), *rings]] * 3


def test_a_parallel_chain(project: Project, tmp_path: Path) -> None:
    """Each process has rings and a database of its own, its tasks' tasks included."""
    tests = CHAIN_TESTS.replace("print(", "print(connection.settings_dict['NAME'], ")
    tests = tests.replace("import json", "import json\nfrom django.db import connection")
    project.write("shop/tests.py", tests + tests.replace("ChainTests", "MoreTests"))
    done = manage_test(project, "--parallel", "2")
    assert done.returncode == 0, done.stderr
    lines = [line.split(" FOUND ") for line in done.stdout.splitlines() if " FOUND " in line]
    assert len({database for database, _ in lines}) == 2
    for database, found in lines:
        places, rings = json.loads(found)
        assert places == [[database, *rings]] * 3
        assert not left_of(rings)
