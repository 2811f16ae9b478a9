"""Which ring is a site's, where no NAMESPACE says it."""

import os
import subprocess
import sys
from pathlib import Path

SETTINGS = """
SECRET_KEY = {key!r}
TASKS = {{"default": {{"BACKEND": "django_tasks_local.ProcessPoolBackend"}}}}
"""
SCRIPT = """
import django

django.setup()
from django.tasks import task_backends

print(task_backends["default"].spec().name)
"""


def name(folder: Path, module: str, script: str = "one.py") -> str:
    """The ring of a process with these settings, as if under a server of that name."""
    (folder / script).write_text(SCRIPT)
    environ = os.environ | {"DJANGO_SETTINGS_MODULE": module}
    done = subprocess.run(
        [sys.executable, script], cwd=folder, env=environ, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_sites_without_a_key_under_one_server(tmp_path: Path) -> None:
    """Two of them share its main script, and no ring; one of them has one ring in all scripts."""
    for module in ("first", "second"):
        (tmp_path / f"{module}.py").write_text(SETTINGS.format(key=""))
    assert name(tmp_path, "first") != name(tmp_path, "second")
    assert name(tmp_path, "first") == name(tmp_path, "first", "two.py")


def test_a_key_and_the_name_of_the_settings(tmp_path: Path) -> None:
    """A deploy to another directory is the same site, another module or key another one."""
    names = []
    for folder, module, key in (
        ("a", "first", "k"), ("b", "first", "k"), ("c", "second", "k"), ("d", "first", "other"),
    ):  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{module}.py").write_text(SETTINGS.format(key=key))
        names.append(name(tmp_path / folder, module))
    assert names[0] == names[1]
    assert len(set(names)) == 3
