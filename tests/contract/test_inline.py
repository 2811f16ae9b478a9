"""InlineBackend, for the tests of projects: where it differs from the backends it stands for."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.tasks import TaskResult, TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.test import override_settings
from django.utils import timezone

from django_tasks_local import options
from django_tasks_local.option_table import OPTIONS
from django_tasks_local.test import captured_tasks, run_waiting, wait_for
from tests import inline_tasks, tasks
from tests.tasks import Elsewhere

HOUR = timedelta(hours=1)
READY, SUCCESSFUL = TaskResultStatus.READY, TaskResultStatus.SUCCESSFUL


@pytest.fixture(autouse=True)
def _empty() -> Any:
    with captured_tasks():
        yield
    backend().close()


def backend() -> Any:
    return task_backends["inline"]


def on(task: Any, **changes: Any) -> Any:
    return task.using(backend="inline", **changes)


def test_runs_inside_enqueue() -> None:
    """In this thread; what is returned, and what any other handle reads, has ended."""
    result = on(tasks.add).enqueue(1, 2)
    assert (result.status, result.return_value, result.attempts) == (SUCCESSFUL, 3, 1)
    assert on(tasks.pid).enqueue().worker_ids[0].endswith(f"-t{threading.get_ident()}")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(on(tasks.add).get_result(result.id)))
    thread.start()
    thread.join()
    assert found == [result]


def test_enqueued_is_announced_before_it_runs() -> None:
    """Receivers of task_enqueued see a task that is READY, as with a pool."""
    seen: list[TaskResultStatus] = []

    def receive(task_result: TaskResult[..., Any], **_: Any) -> None:
        seen.append(task_result.status)

    task_enqueued.connect(receive)
    try:
        on(tasks.nothing).enqueue()
    finally:
        task_enqueued.disconnect(receive)
    assert seen == [READY]


def test_a_task_gets_equal_arguments_and_not_the_same() -> None:
    """They are pickled on their way, and so are return values; each read makes new ones."""
    given = [(1, 2)]
    result = on(tasks.echo).enqueue(given, at=HOUR)
    given.append((3, 4))
    assert result.args == [[(1, 2)]]
    assert result.return_value == (([(1, 2)],), {"at": HOUR}, ["list"])
    found = on(tasks.echo).get_result(result.id)
    assert found.return_value[0][0] is not result.return_value[0][0]


def test_what_cannot_be_pickled_fails_as_in_production() -> None:
    """At `enqueue` for arguments, in the task for its return value."""
    with captured_tasks() as captured, pytest.raises(ValueError, match=r"tasks\.echo .* pickled"):
        on(tasks.echo).enqueue(threading.Lock())
    captured.assert_not_enqueued()
    result = on(tasks.return_lock).enqueue()
    assert result.status == TaskResultStatus.FAILED
    assert "cannot be pickled" in result.errors[0].traceback


def test_arguments_that_cannot_be_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task fails, and the store is not harmed by values that cannot be weighed."""
    argument = Elsewhere()
    monkeypatch.setattr(argument, "pid", -1)
    result = on(tasks.echo).enqueue(argument)
    assert result.status == TaskResultStatus.FAILED
    assert "there is no such thing in this process" in result.errors[0].traceback
    waiting = on(tasks.echo, run_after=HOUR).enqueue(argument)
    assert waiting.cancel()
    with pytest.raises(ValueError, match="cannot be unpickled"):
        _ = on(tasks.echo).get_result(waiting.id).args


def test_deferred_tasks_stay_ready() -> None:
    """Until `run_waiting` runs them: by their moments, each once, up to the one that is given."""
    late, early = (on(tasks.add, run_after=hours * HOUR).enqueue(hours) for hours in (3, 1))
    assert (late.status, early.status) == (READY, READY)
    assert run_waiting(until=timedelta(minutes=59)) == []
    assert [result.id for result in run_waiting(until=timezone.now() + 2 * HOUR)] == [early.id]
    middle = on(tasks.add, run_after=2 * HOUR).enqueue(2)
    ran = run_waiting()
    assert [result.id for result in ran] == [middle.id, late.id]
    assert [result.return_value for result in ran] == [2, 3]
    assert late.status == READY
    late.refresh()
    assert late.return_value == 3
    assert run_waiting() == []


def test_waiting_for_a_deferred_task_runs_it() -> None:
    """Whoever waits for its end need not wait, and one who only looks changes nothing."""
    first, second, third = (on(tasks.add, run_after=HOUR).enqueue(number) for number in range(3))
    with pytest.raises(TimeoutError):
        first.wait_finished(0)
    assert wait_for(first).return_value == 0
    assert second.wait_finished().return_value == 1
    assert asyncio.run(third.await_finished()).return_value == 2
    assert run_waiting() == []


def test_a_task_waits_for_another() -> None:
    """One that it has enqueued, deferred or not; but not for one that waits for it."""
    assert on(tasks.wait_for_another).enqueue("inline").return_value == 3
    failed = on(tasks.wait_for_itself).enqueue()
    assert failed.errors[0].exception_class is RuntimeError
    first, second = (on(inline_tasks.wait_for_other, run_after=HOUR).enqueue() for _ in range(2))
    for one, other in ((first, second), (second, first)):
        backend().save_metadata(one, {"other": other.id})
    wait_for(first)
    second.refresh()
    assert "waits for what waits for it" in second.errors[0].traceback


def test_from_an_event_loop() -> None:
    """`aenqueue` runs sync and async tasks to their end."""

    async def enqueue() -> list[Any]:
        results = [await on(task).aenqueue(1, 2) for task in (tasks.add, tasks.async_add)]
        return [result.return_value for result in results]

    assert asyncio.run(enqueue()) == [3, 3]


def test_ctrl_c_ends_the_tests() -> None:
    """A KeyboardInterrupt in a task is a developer's; other ends of the world fail the task."""
    with pytest.raises(KeyboardInterrupt):
        on(tasks.fail).enqueue("KeyboardInterrupt")
    assert on(tasks.fail).enqueue("SystemExit").errors[0].exception_class is SystemExit


@pytest.mark.parametrize("outcome", ["SUCCESSFUL", "FAILED"])
def test_connections_are_those_of_the_test(outcome: str) -> None:
    """An open transaction of the test stays open, and the task works inside it."""
    task: Any = inline_tasks.use_a_transaction
    if outcome == "FAILED":
        task = inline_tasks.fail_in_a_transaction
    with transaction.atomic():
        before = connection.connection
        result = on(task).enqueue()
        assert connection.connection is before
        assert connection.in_atomic_block
    assert result.status == outcome
    assert outcome == "FAILED" or result.return_value is True


def test_no_thread_is_started() -> None:
    """Nothing is left to be ended, or to be waited for."""
    before = threading.active_count()
    on(tasks.add).enqueue(1)
    wait_for(on(tasks.add, run_after=HOUR).enqueue(1))
    assert threading.active_count() == before


def test_takes_the_options_of_both_backends() -> None:
    """So that the project's own TASKS serve with another BACKEND; what is wrong is told as ever."""
    every = {name: option.default for name, option in OPTIONS.items() if option.default}
    assert not options.check({"OPTIONS": every}, "a", "inline")
    (error,) = options.check({"OPTIONS": {"MAX_WORKER": 1}}, "a", "inline")
    assert error.hint is not None
    assert "MAX_WORKERS" in error.hint
    assert not options.check_app("inline")


def test_unknown_ids() -> None:
    """The error says what is kept, and since when."""
    with pytest.raises(TaskResultDoesNotExist, match=r"InlineBackend.*captured_tasks"):
        backend().get_result("unknown")


def test_other_options_are_another_store() -> None:
    """As for the other backends, where settings change in tests."""
    result = on(tasks.add).enqueue(1)
    params = settings.TASKS["inline"] | {"OPTIONS": {"MAX_RESULTS": 5}}
    with override_settings(TASKS={"inline": params}), pytest.raises(TaskResultDoesNotExist):
        backend().get_result(result.id)
