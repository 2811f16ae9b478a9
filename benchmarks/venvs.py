"""The virtual environments of the competitors, made once under `.venvs/`.

Upstream's package has the import name of this one, so it needs an environment of its own; the
others share one, to keep their dependencies out of yours.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from harness import HERE, progress

VENVS = HERE / ".venvs"
UPSTREAM = ["django-tasks-local==2.0"]
OTHERS = [
    "django-tasks-db",
    "django-tasks-rq",
    "huey",
    "celery",
    "redis",
    "packaging",
    "diskcache",
    "lmdb",
]


class Venv:
    """One environment; `missing` says why a requirement is not in it."""

    def __init__(self, name: str, requirements: list[str]) -> None:
        folder = VENVS / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
        self.python = str(folder / "bin" / "python")
        self.missing: dict[str, str] = {}
        if not Path(self.python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        installed = self.installed()
        # The Django that this package is measured with.
        for requirement in [f"Django=={version('Django')}", *requirements]:
            if requirement.partition("==")[0].lower() not in installed:
                progress(f"installing {requirement} in {folder.name}")
                self.install(requirement)

    def install(self, requirement: str) -> None:
        """Install one by one, so that one failure takes nothing else with it."""
        command = [self.python, "-m", "pip", "install", "--quiet", requirement]
        done = subprocess.run(command, capture_output=True, text=True, env=clean())
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
            self.missing[requirement.partition("==")[0]] = (lines or ["pip failed"])[0]

    def installed(self) -> dict[str, str]:
        """Return versions by lower-case name."""
        command = [self.python, "-m", "pip", "freeze"]
        lines = subprocess.run(command, capture_output=True, text=True, env=clean()).stdout.split()
        return {name.lower(): v for name, _, v in (line.partition("==") for line in lines) if v}


def clean() -> dict[str, str]:
    """Return this process's environment without what would let one environment see another."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
