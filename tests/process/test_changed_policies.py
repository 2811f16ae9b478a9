"""A reload brings other policies: what runs, waits and is tried again then."""

import signal
from pathlib import Path

from django_tasks_local.ring import Look, PoolState, ring_name
from tests.process.client import Client, serving, workers_at
from tests.process.project import Project
from tests.process.test_code import reload
from tests.support import LONG_TIMEOUT, kill, wait_for

TASKS = """
from django.tasks import task
from django_tasks_local import policy, fixed
from tests.site.tasks import hold as hold_here

VERSION = {version!r}


@task(takes_context=True)
@policy(max_attempts={fewer}, backoff=fixed(0))
def fewer(context, gate):
    hold_here.func(gate)
    raise LookupError(f"{{VERSION}} {{context.attempt}}")


@task(takes_context=True)
@policy(max_attempts={more}, backoff=fixed(0))
def more(context, gate):
    fewer.func(context, gate)


@task
@policy(unique={unique})
def once(gate):
    hold_here.func(gate)
    return VERSION


@task
@policy(max_attempts={lost}, retry_lost={lost} > 1)
def lost(gate):
    hold_here.func(gate)
    return VERSION


@task(takes_context=True)
@policy(max_attempts={batch}, backoff=fixed(0))
def batch(context):
    if context.attempt == 1:
        raise LookupError(f"{{VERSION}} {{context.attempt}}")
    return VERSION
"""
OLD = {"version": "old", "fewer": 5, "more": 2, "unique": True, "lost": 2, "batch": 1}
NEW = {"version": "new", "fewer": 2, "more": 4, "unique": None, "lost": 1, "batch": 2}


def state_of(client: Client, pool: int) -> int:
    """What a pool is doing."""
    look = Look.into(ring_name("default", client.namespace), "default")
    assert look is not None
    return next(entry.state for entry in look.attached() if entry.pid == pool)


def attempts(client: Client, result_id: str) -> list[str]:
    """The last lines of the errors of a failed task: which code ran which attempt."""
    errors = client.finished(result_id)["errors"]
    return [text.strip().rpartition(": ")[2] for _, text in errors]


def test_other_policies_after_a_reload(tmp_path: Path) -> None:
    """An attempt ends by the policy of the code that runs it, and goes on by that of the new code.

    What is stored when a task is enqueued stays: its key, and how often it may be lost.
    """
    project = Project(tmp_path / "shop")
    project.write("shop/tasks.py", TASKS.format(**OLD))
    with serving(workers=2, env=project.env) as client:
        running = {
            name: client.enqueue(f"shop.tasks.{name}", str(tmp_path / name))
            for name in ("fewer", "more", "once", "lost")
        }
        wait_for(lambda: all(workers_at(tmp_path / name) for name in running), LONG_TIMEOUT)
        once = "shop.tasks.once", str(tmp_path / "once")
        assert client.enqueue(*once) == running["once"]
        waiting = client.enqueue_many(6, "shop.tasks.batch", at_once=True)
        (old,) = client.supervisors()

        project.write("shop/tasks.py", TASKS.format(**NEW))
        reload(client)
        others = {client.enqueue(*once), client.enqueue(*once)}
        assert len(others | {running["once"]}) == 3
        wait_for(lambda: state_of(client, old) == PoolState.LEAVING, LONG_TIMEOUT)
        kill(workers_at(tmp_path / "lost")[0], signal.SIGKILL)
        for name in running:
            (tmp_path / name).touch()

        assert attempts(client, running["fewer"]) == ["old 1", "new 2"]
        assert attempts(client, running["more"]) == ["old 1", "new 2", "new 3", "new 4"]
        assert client.value(running["once"]) == "old"
        assert {client.value(each) for each in others} == {"new"}
        assert client.value(running["lost"]) == "new"
        for each in waiting:
            assert client.value(each) == "new"
            assert len(client.result(each)["workers"]) == 2
