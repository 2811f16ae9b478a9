"""Results made from records."""

import pickle
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import override_settings

from django_tasks_local import Progress
from django_tasks_local.attempts import Past
from django_tasks_local.exceptions import ArgumentsDropped, WorkerLost
from django_tasks_local.naming import encode_task
from django_tasks_local.result import LocalTaskResult
from django_tasks_local.store import PlainSnapshot
from tests import tasks

NS = 1_800_000_000_000_000_000


def snapshot(**changes: Any) -> PlainSnapshot:
    """A record that has finished well, with changes."""
    return replace(
        PlainSnapshot(
            result_id="an id",
            status=TaskResultStatus.SUCCESSFUL,
            meta=encode_task(tasks.add),
            enqueued_at_ns=NS,
            started_at_ns=NS + 1_000_000,
            finished_at_ns=NS + 2_000_000,
            worker_id="default-1-t1",
            arguments=lambda: ((1,), {"b": 2}),
            outcome=lambda: 3,
            progress=Progress(1, 2),
        ),
        **changes,
    )


def test_fields() -> None:
    """A result shows its record in Django's terms."""
    result = LocalTaskResult.from_snapshot(snapshot(), "thread")
    assert isinstance(result, TaskResult)
    assert result.task is tasks.add
    assert (result.id, result.backend) == ("an id", "thread")
    assert result.enqueued_at == datetime.fromtimestamp(NS / 1e9, UTC)
    assert result.started_at == result.last_attempted_at
    assert result.finished_at - result.started_at == timedelta(milliseconds=1)
    assert (result.args, result.kwargs) == ([1], {"b": 2})
    assert (result.return_value, result.errors) == (3, [])
    assert (result.worker_ids, result.attempts) == (["default-1-t1"], 1)
    assert result.progress == Progress(1, 2)


def test_dropped_arguments() -> None:
    """Only reading them raises, with the facts; such a result pickles and copies as any other."""

    def refuse() -> Any:
        raise ArgumentsDropped("tests.tasks.add", "an id", 2_000_000)

    result = LocalTaskResult.from_snapshot(snapshot(arguments=refuse), "thread")
    for each in (result, pickle.loads(pickle.dumps(result))):
        assert (each.return_value, each.errors) == (3, [])
        assert "add" in repr(each)
        for name in ("args", "kwargs"):
            with pytest.raises(ArgumentsDropped, match="2,000,000 bytes") as caught:
                getattr(each, name)
            assert (caught.value.result_id, caught.value.size) == ("an id", 2_000_000)


def test_the_facts_of_a_lost_worker() -> None:
    """They are there as attributes, also after the result was pickled."""
    assert LocalTaskResult.from_snapshot(snapshot(), "thread").loss is None
    lost = snapshot(
        status=TaskResultStatus.FAILED,
        outcome=lambda: ("django_tasks_local.exceptions.WorkerLost", "text"),
        loss=WorkerLost(7, "was killed by SIGKILL", 1.5, signal=9),
    )
    result = LocalTaskResult.from_snapshot(lost, "thread")
    for each in (result, pickle.loads(pickle.dumps(result))):
        assert each.loss is not None
        assert (each.loss.pid, each.loss.signal, each.loss.exit_code) == (7, 9, None)
        assert (each.loss.cause, each.loss.ran_s) == ("was killed by SIGKILL", 1.5)


def test_times_are_naive_without_use_tz() -> None:
    """As timezone.now() has it."""
    with override_settings(USE_TZ=False):
        result = LocalTaskResult.from_snapshot(snapshot(), "thread")
        assert result.enqueued_at == datetime.fromtimestamp(NS / 1e9)


def test_nothing_is_unpickled_unasked() -> None:
    """Status, times, progress and repr need neither the arguments nor the outcome."""

    def refuse() -> Any:
        raise AssertionError("nobody asked")

    result = LocalTaskResult.from_snapshot(snapshot(arguments=refuse, outcome=refuse), "thread")
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished
    assert result.finished_at
    assert result.progress
    assert result.attempts == 1
    assert result.errors == []
    assert "an id" in repr(result)


def test_unpickled_once() -> None:
    """Arguments and outcome are the same objects whenever they are read."""
    calls: list[str] = []

    def arguments() -> Any:
        calls.append("arguments")
        return ([],), {"k": []}

    def outcome() -> Any:
        calls.append("outcome")
        return []

    result = LocalTaskResult.from_snapshot(snapshot(arguments=arguments, outcome=outcome), "thread")
    assert result.args[0] is result.args[0]
    assert result.kwargs["k"] is result.kwargs["k"]
    assert result.return_value is result.return_value
    assert calls == ["arguments", "outcome"]


def test_a_return_value_of_none_is_read_once_too() -> None:
    """None is a value like others."""
    values = iter([None])
    result = LocalTaskResult.from_snapshot(snapshot(outcome=lambda: next(values)), "thread")
    assert (result.return_value, result.return_value) == (None, None)


def test_failed() -> None:
    """A failed record gives Django's TaskError, and no return value."""
    record = snapshot(
        status=TaskResultStatus.FAILED, outcome=lambda: ("builtins.KeyError", "Traceback…")
    )
    result = LocalTaskResult.from_snapshot(record, "thread")
    (error,) = result.errors
    assert error.exception_class is KeyError
    assert error.traceback == "Traceback…"
    assert "_return_value=None" in TaskResult.__repr__(result)
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_refresh_after_the_backend_changed() -> None:
    """Where the alias has become another kind of backend, the result does not exist."""
    result = LocalTaskResult.from_snapshot(snapshot(), "thread")
    with pytest.raises(TaskResultDoesNotExist):
        result._renew(object())


def test_inequality() -> None:
    """Results of different states are not equal, and a TaskResult of Django's is another thing."""
    one = LocalTaskResult.from_snapshot(snapshot(), "thread")
    assert one == LocalTaskResult.from_snapshot(snapshot(), "thread")
    assert one != LocalTaskResult.from_snapshot(snapshot(finished_at_ns=NS * 2), "thread")
    assert one != LocalTaskResult.from_snapshot(snapshot(), "default")


def test_replace() -> None:
    """dataclasses.replace changes fields; as in Django, the return value stays behind."""
    result = LocalTaskResult.from_snapshot(snapshot(), "thread")
    other = replace(result, id="another id", args=[2], enqueued_at=result.started_at)
    assert type(other) is LocalTaskResult
    assert (other.id, other.args, other.kwargs) == ("another id", [2], {"b": 2})
    assert other.enqueued_at == result.started_at == other.started_at
    assert (other.finished_at, other.worker_ids) == (result.finished_at, result.worker_ids)
    assert (other.status, other.return_value) == (TaskResultStatus.SUCCESSFUL, None)
    assert (other.task, other.backend, other.progress) == (result.task, "thread", None)


def test_replace_with_nothing_gives_an_equal_result() -> None:
    """Times, errors and all."""
    record = snapshot(
        status=TaskResultStatus.FAILED, outcome=lambda: ("builtins.KeyError", "Traceback…")
    )
    failed = LocalTaskResult.from_snapshot(record, "thread")
    ready = LocalTaskResult.from_snapshot(
        snapshot(status=TaskResultStatus.READY, started_at_ns=0, finished_at_ns=0, worker_id=""),
        "thread",
    )
    assert replace(failed) == failed
    assert replace(ready) == ready
    assert pickle.loads(pickle.dumps(replace(failed))) == failed
    twice = replace(failed, worker_ids=["a", "b"], errors=failed.errors * 2)
    assert (twice.attempts, len(twice.errors)) == (2, 2)
    assert pickle.loads(pickle.dumps(twice)).worker_ids == ["a", "b"]


def test_replace_of_what_was_retried() -> None:
    """All of its errors are kept, and none of them passes for its return value."""
    past = Past(("a", "b"), (("builtins.KeyError", "one"), ("builtins.OSError", "two")), NS, NS)
    for status, outcome, last in (
        (TaskResultStatus.SUCCESSFUL, 3, []),
        (TaskResultStatus.FAILED, ("builtins.ValueError", "three"), ["three"]),
        (TaskResultStatus.READY, None, []),
    ):
        ended = NS * 2 if outcome else 0
        record = snapshot(
            status=status, finished_at_ns=ended, outcome=lambda value=outcome: value, past=past
        )
        other = replace(LocalTaskResult.from_snapshot(record, "thread"), id="another id")
        for each in (other, pickle.loads(pickle.dumps(other))):
            assert [error.traceback for error in each.errors] == ["one", "two", *last]
            assert each._return_value is None
            assert each.worker_ids == ["a", "b", "default-1-t1"]


def test_a_cancelled_result_stays_so_when_it_is_replaced() -> None:
    """Django's fields say it by the error alone."""
    outcome = ("django_tasks_local.exceptions.TaskCancelled", "Traceback…")
    record = snapshot(status=TaskResultStatus.FAILED, outcome=lambda: outcome, cancelled=True)
    other = replace(LocalTaskResult.from_snapshot(record, "thread"), id="another id")
    assert other.is_cancelled
    failed = snapshot(status=TaskResultStatus.FAILED, outcome=lambda: ("builtins.KeyError", ""))
    assert not replace(LocalTaskResult.from_snapshot(failed, "thread")).is_cancelled


def test_errors_are_one_list() -> None:
    """As a field would be; a refresh gives a new one."""
    record = snapshot(status=TaskResultStatus.FAILED, outcome=lambda: ("builtins.KeyError", ""))
    result = LocalTaskResult.from_snapshot(record, "thread")
    assert result.errors is result.errors
    result.show(snapshot())
    assert result.errors == []
    assert result.return_value == 3


def test_what_cannot_be_unpickled_is_named() -> None:
    """The arguments or the outcome, the task, and the reason."""

    def gone() -> Any:
        raise AttributeError("no class Order in shop.models")

    result = LocalTaskResult.from_snapshot(snapshot(arguments=gone, outcome=gone), "thread")
    for read, what in (("args", "arguments"), ("return_value", "outcome")):
        with pytest.raises(
            ValueError, match=rf"The {what} of task tests\.tasks\.add.*no class Order"
        ):
            getattr(result, read)


def test_the_store_speaks_for_itself() -> None:
    """An eviction or a damaged record is not called a failure to unpickle."""

    def evicted() -> Any:
        raise TaskResultDoesNotExist("evicted")

    result = LocalTaskResult.from_snapshot(snapshot(arguments=evicted), "thread")
    with pytest.raises(TaskResultDoesNotExist):
        _ = result.args
