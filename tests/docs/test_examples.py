"""Every example on every page runs."""

import doctest
import http.cookiejar
import json
import re
import sys
import types
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.utils.module_loading import import_string

from django_tasks_local.options import check
from django_tasks_local.ring import ring_name, unlink_objects
from tests.docs.pages import DOCS, PAGES, README, blocks, name_of
from tests.docs.project import Project
from tests.support import LONG_TIMEOUT, Site, wait_for

TUTORIAL = DOCS / "tutorial" / "first-task.md"
SCRIPTS = DOCS / "howto" / "use-in-scripts.md"

IMPORT_ALL = """
import importlib, sys
import django
from django.core.management import call_command
django.setup()
call_command("check", fail_level="WARNING")
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
RUN_DOCTEST = """
import doctest, sys
import django
django.setup()
failed, tried = doctest.testfile(sys.argv[1], module_relative=False)
sys.exit(failed or not tried)
"""


def _with(language: str) -> list[Path]:
    return [page for page in PAGES if any(block.language == language for block in blocks(page))]


@pytest.fixture
def project(tmp_path: Path, namespace: str) -> Project:
    """An empty project whose ring is removed at the end."""
    return Project(tmp_path, namespace)


@pytest.mark.parametrize("page", _with("python"), ids=name_of)
def test_python_blocks_name_their_files(page: Path) -> None:
    """Each block says which file it is, so that a reader and these tests know; each compiles."""
    for block in blocks(page):
        if block.language == "python":
            assert block.path, block.text
            compile(block.text, block.path, "exec")


@pytest.mark.parametrize("page", _with("python"), ids=name_of)
def test_settings_pass_the_checks(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each TASKS that a page shows is free of errors."""
    project = types.ModuleType("settings")  # for settings that begin with a project's
    monkeypatch.setattr(project, "TASKS", settings.TASKS, raising=False)
    monkeypatch.setitem(sys.modules, "settings", project)
    for block in blocks(page):
        if not block.path.endswith("settings.py"):
            continue
        values: dict[str, Any] = {"INSTALLED_APPS": []}
        exec(block.text, values)
        for alias, params in values.get("TASKS", {}).items():
            kind = import_string(params["BACKEND"]).kind
            assert not check(params, alias, kind)


@pytest.mark.parametrize("page", [p for p in _with("python") if p != TUTORIAL], ids=name_of)
def test_modules_import_and_tests_pass(page: Path, project: Project) -> None:
    """A project made of the page's files passes the checks, imports, and passes its own tests."""
    project.write(page)
    project.run("-W", "error", "-c", IMPORT_ALL, *project.modules())
    for path in sorted(project.directory.rglob("test_*.py")):
        if path.parent != project.directory:
            project.run("-m", "django", "test", f"{path.parent.name}.{path.stem}")


@pytest.mark.parametrize("page", _with("pycon"), ids=name_of)
def test_sessions_answer_as_shown(page: Path, project: Project) -> None:
    """What a page shows of an interactive session is what the interpreter answers."""
    project.write(page)
    session = project.directory / "session.txt"
    session.write_text("\n".join(b.text for b in blocks(page) if b.language == "pycon"))
    assert doctest.DocTestParser().get_examples(session.read_text())
    project.run("-c", RUN_DOCTEST, str(session))


def test_the_script_runs(project: Project) -> None:
    """A script with its own settings and tasks enqueues, waits and prints."""
    project.write(SCRIPTS)
    script = project.directory / "script.py"
    try:
        printed = project.run(str(script), settings=None)
    finally:
        # Without a settings module, the script's path is the namespace.
        unlink_objects(ring_name("default", str(script.resolve())))
    assert sorted(map(int, printed.split())) == [number * number for number in range(10)]


README_URLS = """
from django.core.wsgi import get_wsgi_application
from django.urls import path
from reports import views
urlpatterns = [
    path("start/", views.start), path("status/<uuid:result_id>/", views.status),
]
application = get_wsgi_application()
"""


def test_the_readme_works(project: Project) -> None:
    """One request starts the README's task, and others see its progress and its result."""
    project.write(README)
    (project.directory / "urls.py").write_text(README_URLS)
    with Site(
        "urls:application", workers=4, settings="settings", cwd=project.directory, ready_path=None
    ) as site:
        status, answer = site.get("/start/")
        assert status == 200
        seen = []

        def finished() -> bool:
            seen.append(site.get(f"/status/{answer['id']}/")[1])
            return bool(seen[-1]["status"] == "SUCCESSFUL")

        wait_for(finished, LONG_TIMEOUT)
        assert seen[-1]["fraction"] == 1.0
        assert seen[-1]["sum"] == sum(number**2 for number in range(5_000_000))
        assert site.get("/status/00000000-0000-0000-0000-000000000000/")[0] == 404


README_TEST = """
from django.test import TestCase, override_settings
from django_tasks_local.test import captured_tasks
from reports.orders import place_order
from reports.tasks import sum_of_squares

inline = {"cpu_intensive": {"BACKEND": "django_tasks_local.test.InlineBackend"}}

@override_settings(TASKS=inline)
class ReadmeTests(TestCase):
    def test_views(self):
        with captured_tasks() as tasks:
            answer = self.client.get("/start/").json()
        self.assertEqual(tasks.assert_enqueued_with(sum_of_squares, 5_000_000).id, answer["id"])
        status = self.client.get(f"/status/{answer['id']}/").json()
        total = sum(number**2 for number in range(5_000_000))
        self.assertEqual(status, {"status": "SUCCESSFUL", "fraction": 1.0, "sum": total})
        unknown = self.client.get("/status/00000000-0000-0000-0000-000000000000/")
        self.assertEqual(unknown.status_code, 404)

    def test_after_the_commit(self):
        with captured_tasks() as tasks:
            place_order(7)
            tasks.assert_not_enqueued()
            with self.captureOnCommitCallbacks(execute=True):
                place_order(8)
        self.assertEqual(tasks.assert_enqueued_once(sum_of_squares).args, [8])
"""


def test_the_readme_can_be_tested(project: Project) -> None:
    """Its views pass tests with InlineBackend, as a user would write them."""
    project.write(README)
    (project.directory / "urls.py").write_text(README_URLS)
    (project.directory / "reports" / "test_readme.py").write_text(README_TEST)
    project.run("-m", "django", "test", "reports.test_readme")


class Browser:
    """As much of one as the tutorial's page needs: cookies, and its form's token."""

    def __init__(self, site: Site) -> None:
        self._address = f"http://127.0.0.1:{site.port}"
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(cookies)

    def press_the_button(self) -> str:
        """Loads the page and posts its form; returns the task's id."""
        page = self.get("/")
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert token is not None
        data = f"csrfmiddlewaretoken={token[1]}".encode()
        with self._opener.open(f"{self._address}/start/", data) as response:
            started: str = json.load(response)["id"]
            return started

    def get(self, path: str) -> str:
        """What stands at an address."""
        with self._opener.open(self._address + path) as response:
            content: str = response.read().decode()
            return content


def test_the_tutorial_works(tmp_path: Path, namespace: str) -> None:
    """From `startproject` to the number of primes, asked of four web workers, to the clean-up."""
    project = Project(tmp_path, namespace)
    project.run("-m", "django", "startproject", "mysite", ".", settings=None)
    project.run("manage.py", "startapp", "primes", settings=None)
    project.write_files(TUTORIAL)
    views = tmp_path / "primes" / "views.py"
    views.write_text(views.read_text().replace("2_000_000", "200_000"))  # a second, not twenty
    shown = "System check identified no issues (0 silenced)."
    assert shown in project.run("manage.py", "check", settings=None)
    assert any(shown in block.text for block in blocks(TUTORIAL))
    with Site("mysite.wsgi", workers=4, settings="mysite.settings", cwd=tmp_path) as site:
        browser = Browser(site)
        result_id = browser.press_the_button()
        answers = []

        def finished() -> bool:
            answers.append(json.loads(browser.get(f"/status/{result_id}/")))
            return bool(answers[-1]["status"] == "SUCCESSFUL")

        wait_for(finished, LONG_TIMEOUT)
        assert answers[-1]["primes"] == _primes_below(200_000)
        status = json.loads(
            project.run("manage.py", "local_tasks", "status", "--json", settings="mysite.settings")
        )
        roles = {entry["role"] for entry in status["default"]["attached"]}
        # A web worker that was slow to start is a visitor until its first request.
        assert roles - {"visitor"} == {"site", "pool", "worker"}
    project.run("manage.py", "local_tasks", "destroy", "--no-input", settings="mysite.settings")


def test_the_tutorial_counts_right() -> None:
    """The number that the tutorial promises is the number of primes below two million."""
    assert f'"primes": {_primes_below(2_000_000)}' in TUTORIAL.read_text(encoding="utf-8")


def _primes_below(limit: int) -> int:
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return sum(sieve)
