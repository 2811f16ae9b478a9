"""A failed task is tried again, as its policy says: each attempt counted once, no error lost."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_finished, task_started
from django.test import override_settings

from django_tasks_local import (
    aenqueue_again,
    cancel,
    enqueue_again,
    fixed,
    results,
    wait_finished,
    with_metadata,
)
from django_tasks_local.backends.task_class import HAS_KEYWORDS
from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from django_tasks_local.memory import MemoryStore
from django_tasks_local.policies import policy_of
from django_tasks_local.test import captured_tasks
from django_tasks_local.test import wait_for as inline_wait_for
from tests import retried_tasks, tasks
from tests.contract.conftest import Bench, finished
from tests.support import wait_for

DUMMY = "django.tasks.backends.dummy.DummyBackend"
IMMEDIATE = "django.tasks.backends.immediate.ImmediateBackend"
READY, SUCCESSFUL, FAILED = (
    TaskResultStatus.READY, TaskResultStatus.SUCCESSFUL, TaskResultStatus.FAILED,
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a task notes its attempts."""
    return str(tmp_path / "attempts")


def lines(path: str) -> list[str]:
    """What was noted there."""
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("name", ["third_time", "async_third_time"])
def test_until_it_succeeds(bench: Bench, path: str, name: str) -> None:
    """The errors of failed attempts stay, and its times tell the first and the last start."""
    result = bench.run(getattr(retried_tasks, name), path)
    assert (result.status, result.return_value) == (SUCCESSFUL, "done")
    assert result.attempts == len(result.worker_ids) == len(lines(path)) == 3
    assert all(result.worker_ids)
    assert [error.exception_class for error in result.errors] == [retried_tasks.Busy] * 2
    for number, error in enumerate(result.errors, 1):
        assert f"not yet: {number}" in error.traceback
        assert "tests/retried_tasks.py" in error.traceback
        assert "execution.py" not in error.traceback
    assert result.enqueued_at <= result.started_at < result.last_attempted_at < result.finished_at
    again = bench.backend.get_result(result.id)
    assert again == result
    assert again.errors == result.errors


def test_until_there_are_no_more_attempts(bench: Bench, path: str) -> None:
    """FAILED, with one error for each attempt."""
    result = bench.run(retried_tasks.never_succeeds, path)
    assert result.status == FAILED
    assert result.attempts == len(lines(path)) == len(result.errors) == 3
    assert ["not yet: 3" in error.traceback for error in result.errors] == [False, False, True]


def test_a_retry_waits(bench: Bench, path: str) -> None:
    """READY meanwhile, with what is known of the attempts; no worker is kept."""
    bench.set_workers(1)
    result = bench.enqueue(retried_tasks.waits_long, path)

    def waits() -> bool:
        result.refresh()
        return bool(result.status == READY and result.attempts)

    wait_for(waits)
    assert bench.value(tasks.add, 1, 2) == 3
    assert (result.attempts, len(result.errors), result.finished_at) == (1, 1, None)
    assert result.started_at == result.last_attempted_at
    assert not result.is_finished
    (listed,) = results(bench.alias, status=READY)
    assert (listed.id, listed.attempts) == (result.id, 1)
    with pytest.raises(TimeoutError, match="is still READY"):
        result.wait_finished(timeout=0)
    assert cancel(result)
    result.refresh()
    assert (result.status, result.is_cancelled, result.attempts) == (FAILED, True, 1)
    busy, cancelled = result.errors
    assert (busy.exception_class, cancelled.exception_class) == (retried_tasks.Busy, TaskCancelled)
    assert "while it waited for its next attempt" in cancelled.traceback
    assert result.started_at == result.last_attempted_at
    assert len(lines(path)) == 1


def test_the_pause(bench: Bench, path: str) -> None:
    """It is not tried earlier than its backoff says."""
    result = bench.run(retried_tasks.pauses, path)
    assert result.return_value == "done"
    first, second = map(int, lines(path))
    assert second - first >= 200_000_000


def test_in_order_and_by_priority(bench: Bench, path: str) -> None:
    """A retry goes behind what waits with its priority, and before what has a lower one."""
    bench.set_workers(1)
    release = bench.occupy()
    retried = bench.enqueue(retried_tasks.third_time, path)
    equal = bench.enqueue(tasks.nothing)
    lower = bench.on(tasks.nothing, priority=-1).enqueue()
    release()
    for each in (retried, equal, lower):
        finished(each)
    assert retried.started_at < equal.started_at < retried.last_attempted_at < lower.started_at


@pytest.mark.parametrize(
    ("which", "attempts"), [("busy", 5), ("gone", 1), ("other", 1), ("exit", 1)]
)
def test_only_some_exceptions(bench: Bench, path: str, which: str, attempts: int) -> None:
    """`retry_on` says which, `never` which of these not; what is no Exception, only if named."""
    result = bench.run(retried_tasks.picky, path, which)
    assert (result.status, result.attempts, len(lines(path))) == (FAILED, attempts, attempts)


def test_a_backoff_gives_up(bench: Bench, path: str) -> None:
    """None ends it; it is told how many attempts there were."""
    result = bench.run(retried_tasks.gives_up, path)
    assert (result.status, result.attempts, len(result.errors)) == (FAILED, 2, 2)
    assert "not yet: 2" in result.errors[1].traceback


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("raise", "ZeroDivisionError: in the backoff"),
        ("exit", "SystemExit: in the backoff"),
        ("text", "its return value='soon': it must be a number of seconds"),
        ("minus", "its return value=-1: it must be a number of seconds from 0 to"),
        ("nan", "its return value=nan"),
        ("inf", "its return value=inf"),
        ("bool", "not of type bool"),
    ],
)
def test_nonsense_from_a_backoff(bench: Bench, path: str, what: str, told: str) -> None:
    """The task is FAILED, and both errors are told."""
    result = bench.run(retried_tasks.with_nonsense, path, what)
    assert (result.status, result.attempts, len(lines(path))) == (FAILED, 1, 1)
    (error,) = result.errors
    assert told in error.traceback
    assert f"Busy: {what}" in error.traceback
    assert "This comes from the backoff of task tests.retried_tasks.with_nonsense" in (
        error.traceback
    )
    assert bench.value(tasks.add, 1, 2) == 3


def test_what_was_done_is_not_done_again(bench: Bench, path: str) -> None:
    """A task whose return value cannot be stored has done its work."""
    result = bench.run(retried_tasks.returns_nonsense, path)
    assert result.attempts == len(lines(path)) == 1
    assert result.status == (FAILED if bench.alias == "process" else SUCCESSFUL)


def test_metadata_that_cannot_be_saved(bench: Bench, path: str) -> None:
    """Nor is such a task done again, once it has returned."""
    result = bench.run(retried_tasks.keeps_nonsense, path)
    assert (result.status, result.attempts, len(lines(path))) == (FAILED, 1, 1)
    assert "TypeError" in result.errors[0].traceback


def test_a_time_limit_is_an_exception_like_others(bench: Bench, path: str) -> None:
    """It is that of one attempt."""
    result = bench.run(retried_tasks.too_slow, path)
    assert (result.return_value, result.attempts) == ("done", 2)
    assert result.errors[0].exception_class is TaskTimeout


def test_metadata_stay_and_progress_begins_again(bench: Bench, path: str) -> None:
    """What an attempt has saved, the next one finds; what it has reported, it does not."""
    result = bench.run(retried_tasks.keeps_metadata, path)
    assert result.return_value == ([1, 2], True)
    assert result.metadata == {"seen": [1, 2]}
    assert result.progress is None


def test_many_attempts(bench: Bench, path: str) -> None:
    """All are counted; the first error and the last nine are kept, cut where they are long."""
    result = bench.run(retried_tasks.many_times, path, 40)
    assert (result.return_value, result.attempts) == ("done", 41)
    texts = [error.traceback for error in result.errors]
    assert len(texts) == 10
    assert all(len(text) < 4200 for text in texts)
    assert "[...]" in texts[0]
    assert ["Busy: 0 long" in texts[0], "many_times" in texts[9]] == [True, True]


def test_the_words_of_an_alias(bench: Bench, path: str) -> None:
    """MAX_ATTEMPTS and the others count for functions that say nothing."""
    at_once = "tests.retried_tasks.at_once"
    bench.configure(MAX_ATTEMPTS=2, BACKOFF=at_once, RETRY_ON="tests.retried_tasks.Busy")
    assert bench.run(retried_tasks.says_nothing, path).attempts == 2
    bench.configure(MAX_ATTEMPTS=2, BACKOFF=at_once, NEVER="tests.retried_tasks.Busy")
    assert bench.run(retried_tasks.says_nothing, f"{path}.2").attempts == 1
    bench.configure()
    assert bench.run(retried_tasks.says_nothing, f"{path}.3").attempts == 1


def test_django_s_keywords(bench: Bench) -> None:
    """From Django 6.1 on `@task(max_attempts=…)` says the same."""
    decorate: Any = task
    function = retried_tasks.third_time.func
    if HAS_KEYWORDS:
        made = decorate(backend=bench.alias, max_attempts=4, backoff=fixed(0))(function)
        assert policy_of(made.func).max_attempts == 4
    else:
        with pytest.raises(TypeError, match="max_attempts"):
            decorate(backend=bench.alias, max_attempts=4)(function)


def test_not_in_using(bench: Bench) -> None:
    """A policy belongs to the function."""
    with pytest.raises(TypeError, match="max_attempts"):
        bench.on(retried_tasks.third_time, max_attempts=5)


@pytest.mark.parametrize("backend", [DUMMY, IMMEDIATE])
def test_other_backends_do_not_see_policies(backend: str, path: str) -> None:
    """The same tasks can be enqueued to Django's own backends, and again."""
    with override_settings(TASKS={"default": {"BACKEND": backend}}):
        assert type(task_backends["default"]) is not None
        result = retried_tasks.third_time.enqueue(path)
        assert len(lines(path)) == result.attempts <= 1
        again = enqueue_again(result)
        assert (again.id != result.id, again.args) == (True, [path])
        assert len(lines(path)) == again.attempts * 2


def test_inline(path: str) -> None:
    """In tests of projects what is tried again at once is, and the rest when it is waited for."""
    inline = {"default": {"BACKEND": "django_tasks_local.test.InlineBackend"}}
    with override_settings(TASKS=inline), captured_tasks():
        result = retried_tasks.third_time.enqueue(path)
        assert (result.status, result.attempts, len(result.errors)) == (SUCCESSFUL, 3, 2)
        result = retried_tasks.waits_long.enqueue(f"{path}.2")
        assert (result.status, result.attempts) == (READY, 1)
        assert inline_wait_for(result).return_value == "done"
        assert result.attempts == 2
        again = enqueue_again(result)
        assert (again.return_value, again.attempts) == ("done", 1)


def test_inline_does_not_sleep(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a deferred attempt runs it; there is nobody else to wait for."""
    slept: list[float] = []
    monkeypatch.setattr(MemoryStore, "wait_for_change", lambda *args: slept.append(args[2]))
    inline = {"default": {"BACKEND": "django_tasks_local.test.InlineBackend"}}
    with override_settings(TASKS=inline), captured_tasks():
        assert inline_wait_for(retried_tasks.waits_long.enqueue(path)).attempts == 2
        result = retried_tasks.never_in_time.enqueue(f"{path}.2")
        assert inline_wait_for(result).attempts == 4
    assert slept == []


class Heard:
    """How often a signal was sent for each result, in this process."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, task_result: Any, **_: Any) -> None:
        self.ids.append(task_result.id)


def test_signals_in_threads(path: str) -> None:
    """task_started for each attempt, task_finished once, at the end."""
    started, ended = Heard(), Heard()
    task_started.connect(started)
    task_finished.connect(ended)
    try:
        result = wait_finished(retried_tasks.third_time.using(backend="thread").enqueue(path))
        wait_for(lambda: ended.ids)
    finally:
        task_started.disconnect(started)
        task_finished.disconnect(ended)
    assert (started.ids, ended.ids) == ([result.id] * 3, [result.id])


def test_enqueue_again(bench: Bench) -> None:
    """Task, arguments, priority, queue and metadata, under a new id; nothing else changes."""
    task = with_metadata(bench.on(tasks.echo, priority=7, queue_name="reports"), {"mine": 1})
    old = finished(task.enqueue(1, (2,), key="value"))
    new = enqueue_again(old)
    assert new.id != old.id
    assert (new.task.priority, new.task.queue_name) == (7, "reports")
    assert (new.metadata, new.raw_metadata["_again_of"]) == ({"mine": 1}, old.id)
    assert finished(new).return_value == old.return_value
    assert bench.backend.get_result(old.id) == old
    third = enqueue_again(new)
    assert third.raw_metadata == {"mine": 1, "_again_of": new.id}


def test_enqueue_again_forgets_when_it_was_to_run(bench: Bench) -> None:
    """It runs now, also where ``run_after`` is still to come, and shows its failure anew."""
    result = bench.on(tasks.nothing, run_after=timedelta(hours=1)).enqueue()
    with pytest.raises(ValueError, match="is READY: only a task that has ended can be"):
        enqueue_again(result)
    cancel(result)
    assert finished(enqueue_again(result)).status == SUCCESSFUL


def test_enqueue_again_async(bench: Bench) -> None:
    """The same from async code."""

    async def twice() -> None:
        old = await bench.on(tasks.nothing).aenqueue()
        await old.await_finished()
        new = await aenqueue_again(old)
        assert new.id != old.id
        await new.await_finished()

    asyncio.run(twice())


def test_enqueue_again_of_what_has_gone(bench: Bench) -> None:
    """A result that shows its end needs no store; one that does not has to be looked up."""
    bench.configure(MAX_RESULTS=1)
    early = bench.enqueue(tasks.nothing)
    old = finished(bench.backend.get_result(early.id))
    bench.run(tasks.nothing)
    with pytest.raises(TaskResultDoesNotExist):
        enqueue_again(early)
    assert finished(enqueue_again(old)).raw_metadata["_again_of"] == early.id
