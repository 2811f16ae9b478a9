"""The ends of tasks whose workers died: a signal and a line for each, with Django's own logging."""

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.process.client import Client, fresh_namespace, serving, worker_at
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, wait_for

SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", *INSTALLED_APPS]
assert not DEBUG
del LOGGING
"""
TASKS = """
import json
import os
import signal
import sys

from django.dispatch import receiver
from django.tasks import task
from django.tasks.signals import task_finished
from django_tasks_local import current_result_id, policy
from tests.site.tasks import hold as hold_here, leak


@task
@policy(timeout=0.2)
def stubborn(gate):
    for _ in range(1000):
        try:
            hold_here.func(gate)
        except Exception:
            pass


@task
def deadly(gate):
    hold_here.func(gate)


@task
@policy(retry_lost=True, max_attempts=2)
def die_twice():
    os.kill(os.getpid(), signal.SIGKILL)


@receiver(task_finished)
def note(sender, task_result, **kwargs):
    error = sys.exc_info()[1]
    line = {
        "id": task_result.id,
        "task": task_result.task.name,
        "pid": os.getpid(),
        "status": task_result.status,
        "error": task_result.errors and task_result.errors[-1].exception_class_path,
        "raised": type(error).__name__,
        "here": current_result_id.get(),
        "sender": sender.__name__,
    }
    with open(os.environ["SHOP_ENDS"], "a") as file:
        print(json.dumps(line), file=file, flush=True)
    if task_result.task.name == "deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
"""
OPTIONS = {"MAX_WORKERS": 3, "TIMEOUT_GRACE": 0.1, "DRAIN_TIMEOUT": 0}


class Shop:
    """A site of one web worker, and what its receiver has heard."""

    def __init__(self, folder: Path) -> None:
        self.ends = folder / "ends"
        self.ends.touch()
        self.project = Project(folder)
        self.project.write("shop_settings.py", SETTINGS)
        self.project.write("shop/tasks.py", TASKS)
        self.env = self.project.env | {"SHOP_ENDS": str(self.ends)}

    def heard(self, result_id: str) -> list[dict[str, Any]]:
        """What was announced of a task."""
        lines = map(json.loads, self.ends.read_text().splitlines())
        return [line for line in lines if line["id"] == result_id]

    def hears(self, result_id: str) -> dict[str, Any]:
        """What is announced of a task, once that has come."""
        return wait_for(
            lambda: self.heard(result_id), LONG_TIMEOUT, message=f"the announcement of {result_id}"
        )[0]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project with a receiver of `task_finished`."""
    return Shop(tmp_path)


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_every_end_is_announced_once_and_logged(shop: Shop, tmp_path: Path) -> None:
    """However a task ends; of those whose worker died another worker tells, and nobody else."""
    with serving(options=OPTIONS, env=shop.env, workers=1) as client:
        failed = client.enqueue("add", 1, "two")
        client.error(failed)
        lost = client.enqueue("kill_myself")
        timed_out = client.enqueue("shop.tasks.stubborn", str(tmp_path / "never"))
        twice = client.enqueue("shop.tasks.die_twice")
        running, worker = client.hold(tmp_path / "gate")
        ids = {
            failed: ("builtins.TypeError", "TypeError"),
            lost: ("django_tasks_local.exceptions.WorkerLost", "WorkerLost"),
            timed_out: ("django_tasks_local.exceptions.TaskTimeout", "TaskTimeout"),
            twice: ("django_tasks_local.exceptions.WorkerLost", "WorkerLost"),
            running: ("django_tasks_local.exceptions.WorkerLost", "WorkerLost"),
        }
        kill(worker)  # which may have announced others before
        others = {os.getpid(), *client.site.worker_pids(), *client.supervisors()}
        for result_id, (path, name) in ids.items():
            heard = shop.hears(result_id)
            assert (heard["status"], heard["error"], heard["raised"]) == ("FAILED", path, name)
            assert (heard["here"], heard["sender"]) == (result_id, "ProcessPoolBackend")
            assert heard["pid"] not in others
            # The pool logs a loss when it has let others in, who may be faster.
            line = wait_for(partial(logged, client, result_id), message="a line in the log")[-1]
            assert f"path={folder_of(heard)}" in line
            assert name in line or "was killed by SIGKILL" in line or "ran for" in line
        assert shop.hears(running)["pid"] != worker

        # The pool dies with a task, and nothing waits: its site sees to it all the same.
        orphan, _ = client.hold(tmp_path / "gate2")
        (pool,) = client.supervisors()
        kill(pool)
        assert shop.hears(orphan)["raised"] == "WorkerLost"
        # Its announcement kills the worker that makes it: it is not made again.
        deadly = client.enqueue("shop.tasks.deadly", str(tmp_path / "gate3"))
        kill(worker_at(tmp_path / "gate3"))
        shop.hears(deadly)
        assert client.run("add", 1, 2) == 3
    heard = Counter(json.loads(line)["id"] for line in shop.ends.read_text().splitlines())
    assert set(heard.values()) == {1}
    assert {*ids, orphan, deadly} <= set(heard)


def test_what_ended_with_the_site_is_announced_at_its_next_start(
    shop: Shop, tmp_path: Path
) -> None:
    """Since no process was left for that."""
    with fresh_namespace() as namespace:
        env = shop.env | {"DTL_NAMESPACE": namespace}
        with serving(options=OPTIONS, env=env, workers=1) as client:
            running, _ = client.hold(tmp_path / "gate")
        wait_for(lambda: client.site.pool_pids() == [], LONG_TIMEOUT, message="the pool's end")
        assert shop.heard(running) == []
        with serving(options=OPTIONS, env=env, workers=1) as client:
            client.status(running)
            assert shop.hears(running)["raised"] == "WorkerLost"


def logged(client: Client, result_id: str) -> list[str]:
    """The lines of the server's log that name a task and say that it has ended."""
    lines = client.site.log().splitlines()
    return [line for line in lines if f"id={result_id}" in line and "alias=" in line]


def folder_of(heard: dict[str, Any]) -> str:
    """The end of the import path of a task, as in the log."""
    return "shop.tasks." if heard["task"] in ("stubborn", "die_twice") else "tests.site.tasks."
