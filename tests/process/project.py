"""A throw-away project on the disk whose code a test changes while its site runs."""

import os
from pathlib import Path
from textwrap import dedent

from tests.support import ROOT

SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", *INSTALLED_APPS]
"""
TASKS = """
from django.tasks import task
from tests.site.tasks import hold as hold_here

VERSION = {version!r}


@task
def version():
    return VERSION


@task
def late_version():
    from shop import late

    return late.VERSION


@task
def hold(gate):
    hold_here.func(gate)
    return VERSION
"""
LATE = "VERSION = {version!r}\n"


class Project:
    """An app ``shop`` with the tasks ``version``, ``late_version`` and ``hold``."""

    def __init__(self, folder: Path, version: str = "one") -> None:
        self.folder = folder
        self.write("shop_settings.py", SETTINGS)
        self.write("shop/__init__.py", "")
        self.change(version)

    def change(self, version: str) -> None:
        """Edits its code."""
        self.write("shop/tasks.py", TASKS.format(version=version))
        self.change_late(version)

    def change_late(self, version: str) -> None:
        """Edits only the module that a task imports when it runs."""
        self.write("shop/late.py", LATE.format(version=version))

    def write(self, name: str, text: str) -> Path:
        """Writes one file, as an editor does: at once, under a later time."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        last_ns = path.stat().st_mtime_ns if path.exists() else 0
        new = path.with_suffix(".new")
        new.write_text(dedent(text))
        stamp_ns = max(new.stat().st_mtime_ns, last_ns + 1)
        os.utime(new, ns=(stamp_ns, stamp_ns))
        new.rename(path)
        return path

    @property
    def env(self) -> dict[str, str]:
        """What leads an interpreter to it."""
        return {
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)]),
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            # Two versions within one second would otherwise share a .pyc.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
