"""Results: ids, snapshots, refresh, recency, and what is no id."""

import copy
import pickle
import sys
import uuid
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist, TaskResultMismatch
from django.utils.safestring import mark_safe

from django_tasks_local.exceptions import LocalTasksError
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for


@INLINE_TOO
def test_ids_are_uuids(bench: Bench) -> None:
    """An id is a UUID in its usual form, and no two are the same."""
    ids = {bench.enqueue(tasks.nothing).id for _ in range(50)}
    assert len(ids) == 50
    for result_id in ids:
        assert str(uuid.UUID(result_id)) == result_id


def test_is_django_s_result(any_bench: Bench) -> None:
    """A result is a frozen TaskResult of Django's."""
    result = any_bench.run(tasks.add, 1)
    assert isinstance(result, TaskResult)
    with pytest.raises(FrozenInstanceError):
        result.status = TaskResultStatus.READY


@INLINE_TOO
def test_read_from_anywhere(bench: Bench) -> None:
    """The backend, the task, and their async twins' sync forms find a result by its id."""
    result = bench.run(tasks.add, 1, b=2)
    for read in (
        bench.backend.get_result(result.id),
        bench.on(tasks.add).get_result(result.id),
        bench.backend.get_result(uuid.UUID(result.id)),
        bench.backend.get_result(mark_safe(result.id)),
    ):
        assert read == result
        assert read.return_value == 3
        assert (read.args, read.kwargs) == ([1], {"b": 2})


@INLINE_TOO
def test_a_result_of_another_task(bench: Bench) -> None:
    """A task refuses the id of another task's result, as Django does."""
    result = bench.run(tasks.nothing)
    with pytest.raises(TaskResultMismatch):
        bench.on(tasks.add).get_result(result.id)


class Hostile(str):
    """A string that does not want to be looked up."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError


@INLINE_TOO
@pytest.mark.parametrize(
    "result_id",
    [
        "",
        "x",
        "0" * 36,
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "{00000000-0000-4000-8000-000000000000}",
        "urn:uuid:00000000-0000-4000-8000-000000000000",
        "../../etc/passwd",
        "\0" * 36,
        "\ud800" * 36,
        "é" * 36,
        "٣" * 36,
        "1_0-0",
        "9" * 100_000,
        uuid.UUID(int=0),
        Hostile("00000000-0000-0000-0000-000000000000"),
        None,
        7,
        1.5,
        b"00000000-0000-0000-0000-000000000000",
        [],
        {},
        object(),
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{ascii(str.__str__(value))[:12]}"
        if isinstance(value, str)
        else type(value).__name__
    ),
)
def test_what_is_no_id(bench: Bench, result_id: Any) -> None:
    """Whatever comes in from a URL or a mistake, it is TaskResultDoesNotExist and nothing else."""
    with pytest.raises(TaskResultDoesNotExist):
        bench.backend.get_result(result_id)


@INLINE_TOO
def test_only_the_exact_id(bench: Bench) -> None:
    """An id that was altered names nothing, whichever character it is."""
    result_id = bench.run(tasks.nothing).id
    altered = {
        result_id[:n] + ("0" if result_id[n] != "0" else "1") + result_id[n + 1 :]
        for n in range(len(result_id))
    }
    altered |= {result_id.upper(), f" {result_id}", f"{result_id}\n", result_id.replace("-", "")}
    for other in altered - {result_id}:
        with pytest.raises(TaskResultDoesNotExist):
            bench.backend.get_result(other)


@INLINE_TOO
def test_least_recently_used_is_evicted(bench: Bench) -> None:
    """Beyond MAX_RESULTS the finished result goes that was not read for longest."""
    bench.configure(MAX_WORKERS=1, MAX_RESULTS=3)
    kept = [bench.run(tasks.add, n) for n in range(3)]
    kept[0].refresh()  # Now 1 has not been read for longest.
    newest = bench.run(tasks.add, 3)
    with pytest.raises(TaskResultDoesNotExist):
        bench.backend.get_result(kept[1].id)
    with pytest.raises(TaskResultDoesNotExist):
        kept[1].refresh()
    assert kept[1].return_value == 1, "the snapshot at hand stays what it is"
    for result in (kept[0], kept[2], newest):
        assert bench.backend.get_result(result.id).is_finished


def test_unfinished_is_never_evicted(bench: Bench) -> None:
    """Waiting and running tasks outlast any number of finished ones."""
    bench.configure(MAX_WORKERS=2, MAX_RESULTS=1)
    gate = bench.gates / "gate"
    running = bench.enqueue(tasks.hold, str(gate))
    wait_for((bench.gates / "gate.running").exists)
    for _ in range(5):
        bench.run(tasks.nothing)
    running.refresh()
    assert running.status == TaskResultStatus.RUNNING
    gate.touch()
    assert finished(running).return_value == str(gate)


def test_a_result_is_a_snapshot(bench: Bench) -> None:
    """A result does not change by itself, only by refresh, and keeps its arguments then."""
    gate = bench.gates / "gate"
    result = bench.enqueue(tasks.hold, str(gate))
    args = result.args
    wait_for((bench.gates / "gate.running").exists)
    running = bench.backend.get_result(result.id)
    gate.touch()
    finished(bench.backend.get_result(result.id))
    assert result.status == TaskResultStatus.READY
    assert running.status == TaskResultStatus.RUNNING
    running.refresh()
    assert running.is_finished
    result.refresh()
    assert result == running
    assert result.args is args


@INLINE_TOO
def test_results_can_be_pickled_and_copied(bench: Bench) -> None:
    """A result goes through pickle and deepcopy whole, though tasks of Django 6.0 do not."""
    for result in (
        bench.run(tasks.echo, (1, 2), key={3}),
        bench.run(tasks.fail),
        bench.run(tasks.tracked, 5),
        bench.on(tasks.urgent_report, priority=-1).enqueue(),
    ):
        for twin in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert type(twin) is type(result)
            assert twin == result
            assert twin.progress == result.progress
            assert twin.task == result.task


@INLINE_TOO
def test_repr_says_which_and_no_more(bench: Bench) -> None:
    """The repr has id, task and status; it unpickles nothing."""
    result = bench.run(tasks.text, 100_000)
    assert result.id in repr(result)
    assert "tests.tasks.text" in repr(result)
    assert "SUCCESSFUL" in repr(result)
    assert len(repr(result)) < 200


@INLINE_TOO
def test_task_that_no_longer_imports(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the task's path is gone the result is too, from the cause."""
    from django_tasks_local.naming import load_task

    result = bench.run(tasks.nothing)
    monkeypatch.delattr(tasks, "nothing")
    load_task.cache_clear()
    with pytest.raises(TaskResultDoesNotExist, match=r"tests\.tasks\.nothing") as caught:
        bench.backend.get_result(result.id)
    assert isinstance(caught.value.__cause__, AttributeError)
    monkeypatch.undo()
    assert bench.backend.get_result(result.id) == result


@INLINE_TOO
def test_aliases_do_not_share(bench: Bench) -> None:
    """Another alias does not know this one's results."""
    from django.tasks import task_backends

    result = bench.run(tasks.nothing)
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(result.id)


@INLINE_TOO
def test_given_straight_to_another_backend(bench: Bench) -> None:
    """A task of alias "default", enqueued on this backend itself, is refreshed from this one."""
    result = bench.backend.enqueue(tasks.add, [20], {"b": 1})
    assert result.task.backend == "default"
    assert result.backend == bench.alias
    assert finished(result).return_value == 21


def test_errors_of_ours_have_one_base() -> None:
    """All our exceptions can be caught as one, and none is more than that."""
    from django_tasks_local import exceptions

    for name in ("QueueFull", "PayloadTooLarge", "WorkerLost", "StoreUnavailable"):
        assert issubclass(getattr(exceptions, name), LocalTasksError)
    assert issubclass(exceptions.PayloadTooLarge, ValueError)
    assert "django_tasks_local.exceptions" in sys.modules
