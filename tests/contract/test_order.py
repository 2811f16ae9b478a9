"""Who runs when: priority, FIFO, run_after, and how many may wait."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import InvalidTask
from django.test import override_settings
from django.utils import timezone

from django_tasks_local.exceptions import QueueFull
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import stays, wait_for


def noted(path: Path, count: int) -> list[str]:
    """The notes of that many tasks."""
    wait_for(lambda: path.exists() and len(path.read_text().splitlines()) >= count)
    return path.read_text().splitlines()


def test_priority_then_fifo(bench: Bench) -> None:
    """Higher priority first; within one priority in the order of enqueue."""
    bench.set_workers(1)
    release = bench.occupy()
    path = bench.gates / "notes"
    for priority in (0, -100, 5, 0, 100, 5, 0, -100):
        task = bench.on(tasks.note, priority=priority)
        task.enqueue(str(path), f"{priority} {time.monotonic_ns()}")
    release()
    lines = noted(path, 8)
    assert [int(line.split()[0]) for line in lines] == [100, 5, 5, 0, 0, 0, -100, -100]
    moments = [int(line.split()[1]) for line in lines]
    assert moments[1:3] == sorted(moments[1:3])
    assert moments[3:6] == sorted(moments[3:6])
    assert moments[6:] == sorted(moments[6:])


@INLINE_TOO
@pytest.mark.parametrize("priority", [-101, 101, 1.5])
def test_priority_out_of_range(bench: Bench, priority: float) -> None:
    """Priorities are whole numbers from -100 to 100, as in Django."""
    with pytest.raises(InvalidTask, match="priority"):
        bench.on(tasks.nothing, priority=priority)


@pytest.mark.parametrize("as_datetime", [False, True], ids=["timedelta", "datetime"])
def test_run_after(bench: Bench, as_datetime: bool) -> None:
    """A task with run_after waits until then; a timedelta counts from enqueue."""
    delay = timedelta(seconds=0.3)
    before = timezone.now()
    result = bench.on(tasks.nothing, run_after=before + delay if as_datetime else delay).enqueue()
    assert isinstance(result.task.run_after, datetime)
    assert result.task.run_after.tzinfo is not None
    assert before + delay <= result.task.run_after <= timezone.now() + delay
    assert finished(result).started_at >= result.task.run_after
    assert bench.backend.get_result(result.id).task.run_after == result.task.run_after


@INLINE_TOO
def test_timedelta_counts_from_each_enqueue(bench: Bench) -> None:
    """One task object with a timedelta, enqueued twice, is due at two moments."""
    task = bench.on(tasks.nothing, run_after=timedelta(minutes=5))
    first, second = task.enqueue(), task.enqueue()
    assert first.task.run_after < second.task.run_after
    assert task.run_after == timedelta(minutes=5)


@INLINE_TOO
def test_run_after_in_the_past_is_now(bench: Bench) -> None:
    """A moment that has passed, or a delay of less than nothing, means now."""
    for past in (timedelta(-1), timedelta(0), datetime(1, 1, 1, tzinfo=UTC)):
        assert finished(bench.on(tasks.add, run_after=past).enqueue(1)).return_value == 1


@INLINE_TOO
@pytest.mark.parametrize("moment", [datetime.max.replace(tzinfo=UTC), timedelta(days=2_000_000)])
def test_run_after_very_late(bench: Bench, moment: datetime | timedelta) -> None:
    """The last moment of the calendar is a moment like others."""
    result = bench.on(tasks.nothing, run_after=moment).enqueue()
    assert bench.backend.get_result(result.id).status == TaskResultStatus.READY


@INLINE_TOO
@pytest.mark.parametrize(
    "run_after",
    [timedelta.max, timedelta.min, "tomorrow", 5, datetime(2030, 1, 1)],
    ids=repr,
)
def test_run_after_that_is_none(bench: Bench, run_after: object) -> None:
    """What is no moment, or a naive one while USE_TZ is on, is an InvalidTask."""
    with pytest.raises(InvalidTask, match="run_after"):
        bench.on(tasks.nothing, run_after=run_after)


@override_settings(USE_TZ=False)
def test_run_after_naive(bench: Bench) -> None:
    """Without USE_TZ moments are naive local ones, in run_after and in results."""
    delayed = bench.on(tasks.nothing, run_after=timedelta(seconds=0.2)).enqueue()
    assert delayed.task.run_after.tzinfo is None
    moment = datetime.now() + timedelta(seconds=0.2)
    result = finished(bench.on(tasks.nothing, run_after=moment).enqueue())
    assert result.started_at.tzinfo is None
    assert result.started_at >= moment
    assert finished(delayed).started_at >= delayed.task.run_after
    bench.on(tasks.nothing, run_after=datetime.max).enqueue()
    assert finished(bench.on(tasks.nothing, run_after=datetime.min).enqueue())


def test_a_deferred_task_takes_its_place_by_priority(bench: Bench) -> None:
    """Once it is due it goes before what waits with a lower priority."""
    bench.set_workers(1)
    release = bench.occupy()
    path = bench.gates / "notes"
    late = bench.on(tasks.note, priority=9, run_after=timedelta(seconds=0.1))
    due = late.enqueue(str(path), "deferred").task.run_after
    for n in range(3):
        bench.enqueue(tasks.note, str(path), str(n))
    wait_for(lambda: timezone.now() > due)
    release()
    assert noted(path, 4) == ["deferred", "0", "1", "2"]


def test_many_fall_due_together(bench: Bench) -> None:
    """All run that are due at one moment, while another task keeps a worker busy."""
    bench.configure(MAX_WORKERS=3)
    release = bench.occupy()
    moment = timezone.now() + timedelta(seconds=0.2)
    results = [bench.on(tasks.nothing, run_after=moment).enqueue() for _ in range(20)]
    for result in results:
        assert finished(result).started_at >= moment
    release()


def test_a_later_task_does_not_hide_an_earlier_one(bench: Bench) -> None:
    """A worker that waits for a distant moment notices a nearer one."""
    bench.set_workers(1)
    bench.on(tasks.nothing, run_after=timedelta(hours=1)).enqueue()
    result = bench.on(tasks.nothing, run_after=timedelta(seconds=0.1)).enqueue()
    assert finished(result).status == TaskResultStatus.SUCCESSFUL
    assert bench.value(tasks.add, 1, 1) == 2


def test_queue_full(bench: Bench) -> None:
    """Beyond MAX_PENDING waiting tasks enqueue raises QueueFull with the facts; then it goes on."""
    bench.configure(MAX_WORKERS=1, MAX_PENDING=3)
    release = bench.occupy()
    results = [bench.enqueue(tasks.nothing) for _ in range(2)]
    results.append(bench.on(tasks.nothing, run_after=timedelta(seconds=0.1)).enqueue())
    with pytest.raises(QueueFull, match="MAX_PENDING") as caught:
        bench.enqueue(tasks.nothing)
    error = caught.value
    assert (error.alias, error.waiting, error.limit) == (bench.alias, 3, 3)
    assert error.option == "MAX_PENDING"
    release()
    for result in results:
        finished(result)
    assert bench.value(tasks.add, 1) == 1


def test_max_workers(bench: Bench) -> None:
    """Not more than MAX_WORKERS tasks run at once, and as many as that do."""
    bench.configure(MAX_WORKERS=3)
    release = bench.occupy(3)
    fourth = bench.enqueue(tasks.nothing)

    def waits() -> bool:
        fourth.refresh()
        return bool(fourth.status == TaskResultStatus.READY)

    stays(waits, 0.2)
    release()
    finished(fourth)


@INLINE_TOO
def test_queue_names(bench: Bench) -> None:
    """A queue that QUEUES does not name is an InvalidTask; one that it names works."""
    assert bench.run(tasks.urgent_report).task.queue_name == "reports"
    with pytest.raises(InvalidTask, match="nobody"):
        bench.on(tasks.nothing, queue_name="nobody")
