"""The usage page of django-q's documentation, with the import line changed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import partial
from math import copysign
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from django_tasks_local import cancel, enqueue_again, wait_group
from django_tasks_local.contrib.q import (
    Chain,
    async_iter,
    async_task,
    count_group,
    failures,
    fetch,
    fetch_group,
    queue_size,
    result,
    result_group,
    successes,
)
from tests import q_functions, tasks
from tests.contract.conftest import INLINE_TOO, Bench
from tests.support import wait_for

WAIT_MS = 15_000


def runs_on(bench: Bench) -> override_settings:
    """Lets everything here run on the backend of the test."""
    return override_settings(DJANGO_TASKS_LOCAL_Q_BACKEND=bench.alias)


@pytest.fixture
def q(bench: Bench) -> Iterator[Bench]:
    with runs_on(bench):
        yield bench


@INLINE_TOO
def test_tasks(q: Bench) -> None:
    """Any function by its path or itself, its result, and what is known of it."""
    before = timezone.now()
    task_id = async_task("math.copysign", 2, -2)
    assert result(task_id, WAIT_MS) == -2.0
    assert result(async_task(copysign, 2, -2, task_name="sign"), WAIT_MS) == -2.0
    task = fetch(task_id)
    assert task is not None
    assert (task.id, task.func, task.name) == (task_id, "math.copysign", "copysign")
    assert (task.args, task.kwargs, task.result) == ((2, -2), {}, -2.0)
    assert (task.success, task.attempt_count, task.group, task.hook) == (True, 1, None, None)
    assert before <= task.started <= task.stopped <= timezone.now()
    assert task.time_taken() == (task.stopped - task.started).total_seconds()
    assert str(fetch("sign")) == "sign"

    failed = fetch(async_task("my.buggy.code", sync=True))
    assert failed is not None
    assert not failed.success
    assert failed.result.endswith("ModuleNotFoundError: No module named 'my'\n")
    words: dict[str, Any] = {"group": "mine", "size": 2}
    options = {"group": "theirs"}
    assert result(async_task(q_functions.takes_words, q_options=options, **words), -1) == words
    assert failures()[0].id == failed.id
    assert [each.name for each in successes()[:3]] == ["takes_words", "sign", "copysign"]
    assert fetch("no such task", -1) is None
    async_iter("math.sqrt", [4], task_name="sign", sync=True)
    assert result("sign") == -2.0

    ordinary = fetch(q.enqueue(tasks.add, 1, b=2).id, WAIT_MS)
    assert ordinary is not None
    assert (ordinary.func, ordinary.args, ordinary.kwargs) == ("tests.tasks.add", (1,), {"b": 2})
    assert ordinary.id not in [each.id for each in successes()]


@INLINE_TOO
def test_groups_and_iterables(q: Bench) -> None:
    """Results of a group, so many or those that are there; and one result of many calls."""
    for number in range(4):
        async_task("math.modf", number, group="modf")
    assert sorted(result_group("modf", count=4)) == [(0.0, float(n)) for n in range(4)]
    async_task("math.sqrt", -1, group="modf", sync=True)
    assert (count_group("modf"), count_group("modf", failures=True)) == (5, 1)
    assert len(result_group("modf")) == 4
    assert len(fetch_group("modf")) == len(result_group("modf", failures=True)) == 5
    assert {each.group for each in fetch_group("modf", failures=False)} == {"modf"}
    assert result_group("none", wait=1) == result_group(None) == []

    iter_id = async_iter("math.floor", [n / 2 for n in range(20)], task_name="halves", timeout=60)
    assert result(iter_id, WAIT_MS) == [n // 2 for n in range(20)]
    whole = fetch(iter_id)
    assert whole is not None
    assert (whole.id, whole.name, whole.func) == (iter_id, "halves", "math.floor")
    assert (whole.success, whole.args[:2], whole.attempt_count) == (True, ((0.0,), (0.5,)), 1)
    assert 0 <= whole.time_taken() <= WAIT_MS / 1000
    mixed = fetch(async_iter(math.pow, [(2, 3), (0, -1)], sync=True))
    assert mixed is not None
    assert not mixed.success
    assert mixed.result[0] == 8.0
    assert "ValueError" in mixed.result[1]
    assert result(async_iter("math.floor", []), -1) is None

    chain = Chain([("math.sqrt", (16,))], group="steps")
    assert (chain.append(math.pow, 2, 3), chain.result(), chain.current()) == (2, [], None)
    assert chain.run() == "steps"
    assert chain.result(WAIT_MS) == [4.0, 8.0]
    assert [each.func for each in chain.fetch()] == ["math.sqrt", "math.pow"]
    assert chain.current() == chain.length() == 2


@INLINE_TOO
def test_hooks(q: Bench, tmp_path: Path) -> None:
    """A hook gets the task after each end, in a task of its own, which belongs to no list here."""
    done, failed = str(tmp_path / "done"), str(tmp_path / "failed")
    hook = q_functions.write_result
    first = async_task(q_functions.size, done, hook=hook, group="sizes", times=2)
    second = async_task(
        "tests.q_functions.size", failed, hook="tests.q_functions.write_result", group="sizes",
        task_name="fails", timeout=60, fails=True,
    )  # fmt: skip
    texts = [wait_for(partial(written, place)) for place in (done, failed)]
    path = "tests.q_functions.write_result"
    assert texts[0] == repr([first, "size", True, 2 * len(done), path])
    assert texts[1].startswith(repr([second, "fails", False])[:-1])
    assert f"ValueError: {failed} is none" in texts[1]
    wait_group("sizes", q.alias, timeout=15)
    assert (successes()[0].id, failures()[0].id) == (first, second)
    assert {each.id for each in fetch_group("sizes")} == {first, second}


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_a_hook_after_a_death(q: Bench, tmp_path: Path) -> None:
    """It runs although the worker was killed, and again where the task is run again by hand."""
    place = str(tmp_path / "lost")
    task_id = async_task(q_functions.dies, place, hook=q_functions.write_result, task_name="lost")
    assert wait_for(lambda: written(place)).startswith(repr([task_id, "lost", False])[:-1])
    assert "WorkerLost" in written(place)
    Path(place).unlink()
    again = enqueue_again(q.backend.get_result(task_id))
    assert wait_for(lambda: written(place)).startswith(repr([again.id, "lost", False])[:-1])


def written(place: str) -> str:
    """What a hook has written into a file."""
    path = Path(place)
    return path.read_text() if path.exists() else ""


@INLINE_TOO
def test_a_time_limit_of_one_call(bench: Bench) -> None:
    """It counts for this call, beside the retries that the options say."""
    bench.configure(MAX_WORKERS=2, MAX_ATTEMPTS=2, BACKOFF="tests.retried_tasks.at_once")
    with runs_on(bench):
        stopped = fetch(async_task(q_functions.runs_too_long, timeout=0.05), WAIT_MS)
    assert stopped is not None
    assert (stopped.success, stopped.attempt_count) == (False, 2)
    assert "TaskTimeout" in stopped.result


@pytest.mark.parametrize("bench", ["thread"], indirect=True)
def test_waiting(q: Bench, tmp_path: Path) -> None:
    """There is no result before the end, and the wait for it is as long as it is said to be."""
    release = q.occupy(2)
    place = str(tmp_path / "never")
    never = async_task(q_functions.size, place, hook=q_functions.write_result)
    assert cancel(never, backend=q.alias)
    stopped = fetch(never)
    assert stopped is not None
    assert (stopped.success, stopped.time_taken()) == (False, 0)
    task_id = async_task("math.sqrt", 4, group="roots")
    iter_id = async_iter("math.sqrt", [4, 9])
    assert queue_size() == 4
    assert result(task_id) is fetch(task_id, 1) is fetch(iter_id, 1) is None
    assert fetch_group("roots", wait=1, count=1) == []
    release()
    assert result(iter_id, -1) == [2.0, 3.0]
    assert result_group("roots", wait=-1) == [2.0]
    assert "TaskCancelled" in wait_for(lambda: written(place))


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_another_process(q: Bench) -> None:
    """It runs in a worker process, also where the caller waits for it."""
    pid = result(async_task(q_functions.process_id, sync=True))
    assert pid not in (None, os.getpid())
