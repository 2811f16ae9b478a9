"""`local_tasks retry`, and what the other actions tell of tasks that were tried again."""

import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.tasks import task, task_backends

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring, Role
from tests.rings import retry

ERROR = ("builtins.ValueError", "Traceback\nValueError: no 13\n")


@task(backend="process")
def job(*args: object, **kwargs: object) -> None:
    """Any task."""


META = f"{__name__}:job".encode()


@pytest.fixture
def ring(site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A ring with one site attached; another one in this process starts no pool."""
    made = site_ring()
    backend: Any = task_backends["process"]
    monkeypatch.setattr(backend.site(), "_start_pool", lambda: None)
    return made


def run(*arguments: str) -> tuple[str, str]:
    """What the command prints, and what it says of errors."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("local_tasks", *arguments, stdout=out, stderr=err)
    except (CommandError, SystemExit) as error:
        err.write(str(error))
    return out.getvalue(), err.getvalue()


def put(ring: Ring, meta: bytes = META, **more: Any) -> str:
    """One task that waits; its id."""
    arguments = ring.encode(((1,), {"two": 2}))
    return ring.enqueue(meta, arguments, **{"priority": 0, "due_ns": 0} | more)[0]


def failed(ring: Ring, meta: bytes = META) -> str:
    """A task that has failed; its id."""
    result_id = put(ring, meta, metadata=b'{"trace": "t"}')
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=False, outcome=ring.encode(ERROR))
    return result_id


def test_a_task_is_enqueued_again(ring: Ring) -> None:
    """Under a new id that says whose it is, with the same arguments; the old one stays."""
    old = failed(ring)
    out, err = run("retry", old)
    new = out.split()[-1].rstrip(".")
    assert (out, err) == (f"{old}: enqueued again as {new}.\n", "")
    result = task_backends["process"].get_result(new)
    assert (result.status, result.args, result.kwargs) == ("READY", [1], {"two": 2})
    shown = json.loads(run("show", new, "--json")[0])
    assert shown["raw_metadata"] == {"trace": "t", "_again_of": old}
    assert f"metadata    _again_of = '{old}'" in run("show", new)[0]
    assert ring.get(old).status == "FAILED"


def test_what_is_not_enqueued_again(ring: Ring) -> None:
    """Each is named with the reason, the others are enqueued, and the exit status tells."""
    gone = failed(ring, b"gone.tasks:job")
    ended = failed(ring)
    waiting = put(ring)
    out, err = run("retry", gone, "x\x1b", waiting, ended)
    assert out.startswith(f"{ended}: enqueued again as ")
    lines = err.splitlines()
    assert lines[0].startswith(f"{gone}: Task ")
    assert "gone" in lines[0]
    assert lines[1].startswith(r"x\x1b: process has no such task")
    assert lines[2].startswith(f"{waiting}: Task {__name__}.job, id={waiting}, is READY: only ")
    assert lines[3] == "3 tasks of 4 not enqueued again."


def test_where_the_ring_is_stuck(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for half a minute for each of them."""
    calls: list[object] = []

    def stuck(*args: object, **kwargs: object) -> None:
        calls.append(args)
        raise StoreUnavailable("process 7 has the lock and does not let go")

    backend: Any = task_backends["process"]
    monkeypatch.setattr(backend.site(), "enqueue", stuck)
    first, *others = (failed(ring) for _ in range(3))
    out, err = run("retry", "gone", first, *others)
    assert (out, len(calls)) == ("", 1)
    assert err.splitlines()[1:] == [
        f"{first}: Process 7 has the lock and does not let go.",
        "2 other tasks: not looked at.",
        "4 tasks of 4 not enqueued again.",
    ]


def test_a_task_that_is_to_be_tried_again(ring: Ring) -> None:
    """It is listed by its latest attempt with the error of that, and shown with both starts."""
    put(ring)
    result_id = retry(ring, ERROR)
    put(ring, priority=-1)
    (_, waits) = [json.loads(line) for line in run("list", "--json")[0].splitlines()]
    assert (waits["id"], waits["status"], waits["attempts"]) == (result_id, "READY", 1)
    assert waits["error"] == "ValueError: no 13"
    assert waits["started_at"] == waits["last_attempted_at"] > waits["enqueued_at"]
    assert waits["duration_s"] is None
    assert f"{__name__}.job"[-20:] + "  ValueError: no 13\n" in run("list")[0]
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(None))
    ended = json.loads(run("show", result_id, "--json")[0])
    assert (ended["attempts"], len(ended["worker_ids"]), len(ended["errors"])) == (2, 2, 1)
    assert ended["started_at"] < ended["last_attempted_at"] <= ended["finished_at"]
    text = run("show", result_id)[0]
    assert "\n  attempts    2\n" in text
    assert "\n  last start  " in text
    assert "\n  error 1: builtins.ValueError\n" in text
    assert [json.loads(line)["error"] for line in run("list", "--json")[0].splitlines()] == [
        None, None,
    ]  # fmt: skip


def test_health_of_what_is_to_be_tried_again(ring: Ring) -> None:
    """Its pause is no wait. When it is over, a pool has not kept since when; without one it has."""
    put(ring)
    retry(ring, ERROR, due_ns=time.time_ns() + 3_600_000_000_000)
    assert longest_wait() is None
    put(ring)
    retry(ring, ERROR)
    assert longest_wait() is not None
    pool = Ring(ring.name, "process", ring.attachment.limits, Role.POOL)
    try:
        assert longest_wait() is None
    finally:
        pool.attachment.detach()


def longest_wait() -> float | None:
    """What `health` measures."""
    facts = json.loads(run("health", "--json", "--alias", "process")[0])
    wait: float | None = facts["aliases"]["process"]["longest_wait_s"]
    return wait
