"""A Django project made of the files that a page shows."""

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks
from tests.support import LONG_TIMEOUT, ROOT

# What a page takes for granted: a project. NAMESPACE keeps its ring apart and lets the test
# remove it.
_BEFORE = """\
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "docs"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = []
ROOT_URLCONF = "urls"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"},
}
PROCESS = "django_tasks_local.ProcessPoolBackend"
TASKS = {"default": {"BACKEND": PROCESS}, "cpu_intensive": {"BACKEND": PROCESS}}
"""
# What startproject writes, for pages on the admin.
_ADMIN = "from tests.site.admin_settings import MIDDLEWARE, TEMPLATES\n"
_AFTER = """
INSTALLED_APPS = list({{*INSTALLED_APPS, "django_tasks_local"}})
for params in TASKS.values():
    if params["BACKEND"] == PROCESS:
        params.setdefault("OPTIONS", {{}})["NAMESPACE"] = {namespace!r}
"""


class Project:
    """A project in a directory of its own."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace

    def write(self, page: Path) -> None:
        """Write the page's files, and what a project needs besides."""
        settings = [block.text for block in blocks(page) if block.path == "settings.py"]
        last = _AFTER.format(namespace=self.namespace)
        admin = _ADMIN if any("django.contrib.admin" in text for text in settings) else ""
        self._add("settings.py", "\n".join([_BEFORE, admin, *settings, last]))
        self._add("urls.py", "urlpatterns = []\n")
        for block in blocks(page):
            if block.path and block.path != "settings.py":
                self._add(block.path, block.text, appended=block.is_appended)

    def write_files(self, page: Path) -> None:
        """Write the page's files into a project that is there."""
        for block in blocks(page):
            if block.path:
                self._add(block.path, block.text, appended=block.is_appended)

    def run(self, *arguments: str, settings: str | None = "settings") -> str:
        """Run Python there until it ends with status 0; return what it printed."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.directory), str(ROOT)]),
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        if settings is not None:
            environment["DJANGO_SETTINGS_MODULE"] = settings
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG_TIMEOUT,
        )
        assert done.returncode == 0, f"{arguments}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def modules(self) -> list[str]:
        """All modules of the project, dotted; neither tests nor scripts."""
        paths = (path.relative_to(self.directory) for path in self.directory.rglob("*.py"))
        names = (".".join(path.with_suffix("").parts) for path in paths)
        return sorted(
            name for name in names if "test_" not in name and not name.endswith(("__", "script"))
        )

    def _add(self, name: str, text: str, *, appended: bool = False) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != self.directory:
            (path.parent / "__init__.py").touch()
        with path.open("a" if appended else "w", encoding="utf-8") as file:
            file.write(text)
