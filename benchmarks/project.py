"""The Django project of one benchmark run: its backends, its processes, and its end.

Every run has a namespace of its own, so it meets neither a real site's ring nor another run's,
and destroys its rings when it ends.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from actor import Actor

HERE = Path(__file__).resolve().parent
IMMEDIATE = "django.tasks.backends.immediate.ImmediateBackend"
THREAD = "django_tasks_local.ThreadPoolBackend"
PROCESS = "django_tasks_local.ProcessPoolBackend"
NAMESPACE = f"benchmark-{Path(sys.argv[0]).stem}-{os.getpid()}"


def thread_pool(**options: Any) -> dict[str, Any]:
    """Return the TASKS entry of a ThreadPoolBackend; options in lower case."""
    return {"BACKEND": THREAD, "OPTIONS": upper(options)}


def process_pool(**options: Any) -> dict[str, Any]:
    """Return the TASKS entry of a ProcessPoolBackend in the namespace of this run."""
    return {"BACKEND": PROCESS, "OPTIONS": {"NAMESPACE": NAMESPACE} | upper(options)}


def upper(options: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments as Django spells its options."""
    return {name.upper(): value for name, value in options.items()}


def environment(
    aliases: dict[str, dict[str, Any]], apps: list[str] | None = None
) -> dict[str, str]:
    """Return what a process needs in its environment to be part of the project."""
    tasks = {"default": {"BACKEND": IMMEDIATE}} | aliases
    return {
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "BENCH_TASKS": json.dumps(tasks),
        "BENCH_APPS": json.dumps(apps if apps is not None else ["django_tasks_local"]),
        # The package of this checkout, installed or not.
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }


class Project:
    """A set of aliases, and the processes of a site that uses them."""

    def __init__(self, aliases: dict[str, dict[str, Any]]) -> None:
        self.aliases = aliases
        self.env = environment(aliases)
        self.actors: list[Actor] = []

    def actor(self) -> Actor:
        """Start another process of the site, attached like a web worker after its first request."""
        self.actors.append(Actor(self.env))
        self.actors[-1].call("workloads.serve_request")
        return self.actors[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for actor in self.actors:
            actor.close()
        if any(entry["BACKEND"] == PROCESS for entry in self.aliases.values()):
            destroy(self.env)


def destroy(env: dict[str, str], limit_s: float = 15) -> None:
    """Remove the rings, as soon as their idle pools have noticed that nobody is attached."""
    command = [sys.executable, "-m", "django", "local_tasks", "destroy", "--no-input"]
    give_up = time.monotonic() + limit_s
    while True:
        done = subprocess.run(
            command, env=os.environ | env, cwd=HERE, capture_output=True, text=True
        )
        if not done.returncode:
            return
        if time.monotonic() > give_up:
            print(
                f"The rings of {NAMESPACE} are still there: {done.stderr.strip()}", file=sys.stderr
            )
            return
        time.sleep(0.5)
