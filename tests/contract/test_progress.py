"""Progress as a reader sees it."""

from django.tasks import TaskResultStatus

from django_tasks_local import Progress
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import wait_for


def test_seen_while_running(bench: Bench) -> None:
    """What a running task reports is on its result: done, total, message, fraction."""
    gate = bench.gates / "gate"
    result = bench.enqueue(tasks.report, str(gate), 3, 12, "a third, nearly")
    wait_for((bench.gates / "gate.running").exists)
    before = result.progress
    assert before is None
    result.refresh()
    assert result.status == TaskResultStatus.RUNNING
    assert result.progress == Progress(3, 12, "a third, nearly")
    assert result.progress.fraction == 0.25
    gate.touch()
    finished(result)


def test_without_total(bench: Bench) -> None:
    """A task that does not know its total has a progress without a fraction."""
    gate = bench.gates / "gate"
    result = bench.enqueue(tasks.report, str(gate), 7.5, None, "")
    wait_for((bench.gates / "gate.running").exists)
    result.refresh()
    assert result.progress == Progress(7.5)
    assert result.progress.fraction is None
    gate.touch()
    finished(result)


def test_message_is_cut_at_a_character(bench: Bench) -> None:
    """64 bytes of UTF-8 are kept, and no half character."""
    gate = bench.gates / "gate"
    result = bench.enqueue(tasks.report, str(gate), 1, 2, "x" + "€" * 40)
    wait_for((bench.gates / "gate.running").exists)
    result.refresh()
    assert result.progress.message == "x" + "€" * 21
    gate.touch()
    finished(result)


@INLINE_TOO
def test_track(bench: Bench) -> None:
    """`track` counts the rows; the last report stays with the finished result."""
    result = bench.run(tasks.tracked, 1000)
    assert result.return_value == sum(range(1000))
    assert result.progress == Progress(1000, 1000, "counting")
    assert bench.backend.get_result(result.id).progress == result.progress


@INLINE_TOO
def test_none_reported(bench: Bench) -> None:
    """A task that reports nothing has no progress."""
    assert bench.run(tasks.nothing).progress is None


def test_a_thread_that_outlives_its_task(bench: Bench) -> None:
    """After the end of the task nothing is reported, whichever thread still tries."""
    bench.set_workers(1)
    gate = bench.gates / "gate"
    result = bench.run(tasks.outlived, str(gate))
    next_gate = bench.gates / "next"
    other = bench.enqueue(tasks.report, str(next_gate), 2, 3, "other")
    wait_for((bench.gates / "next.running").exists)
    gate.touch()
    wait_for((bench.gates / "gate.done").exists)
    result.refresh()
    other.refresh()
    assert result.progress == Progress(1, 100, "in time")
    assert other.progress == Progress(2, 3, "other")
    next_gate.touch()
    finished(other)
