"""Waiting for the end of a task: woken, in time, and never for what cannot come."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local import await_finished, results, wait_finished, waiting
from django_tasks_local.exceptions import TaskCancelled, TaskTimeout
from tests import stopped_tasks, tasks
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import LONG_TIMEOUT, SHORT_TIMEOUT, wait_for


def test_a_task_that_waits_is_stopped(bench: Bench) -> None:
    """By its limit or when it is cancelled, while what it waits for goes on."""
    gate, note = bench.gates / "gate", bench.gates / "note"
    for task in (
        stopped_tasks.wait_beyond_its_limit, stopped_tasks.wait_for_a_group_beyond_its_limit,
    ):  # fmt: skip
        late = bench.run(task, str(note), str(gate), bench.alias)
        assert late.errors[0].exception_class is TaskTimeout
        assert note.read_text() == "TaskTimeout"
        note.unlink()
        gate.touch()
        wait_for(lambda: not results(bench.alias, status=TaskResultStatus.RUNNING))
        gate.unlink()
    slow: list[Any] = [stopped_tasks.wait_until_cancelled, stopped_tasks.async_wait_until_cancelled]
    for number, each in enumerate(slow):
        gate, note = bench.gates / f"gate {number}", bench.gates / f"note {number}"
        result = bench.enqueue(each, str(note), str(gate), bench.alias)
        wait_for(note.with_suffix(".running").exists)
        assert result.cancel()
        assert finished(result).errors[0].exception_class is TaskCancelled
        gate.touch()


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by himself as long as the test lasts."""
    monkeypatch.setattr(waiting, "CHUNK_S", 2 * LONG_TIMEOUT)


@INLINE_TOO
@pytest.mark.usefixtures("only_woken")
def test_the_end_wakes(bench: Bench) -> None:
    """It returns the very result, refreshed, woken by the end whether that is a success or not."""
    for result in (bench.enqueue(tasks.add, 1, 2), bench.enqueue(tasks.fail)):
        assert result.wait_finished(SHORT_TIMEOUT) is result
        assert result.is_finished
    assert result.errors[0].exception_class is ValueError


@pytest.mark.usefixtures("only_woken")
def test_all_who_wait_are_woken(bench: Bench) -> None:
    """Several threads wait for one task, and one for another; each end wakes its own waiters."""
    gates = [bench.gates / "first", bench.gates / "second"]
    first, second = (bench.enqueue(tasks.hold, str(gate)) for gate in gates)
    woken: list[Any] = []

    def wait(result_id: str) -> None:
        woken.append(bench.backend.get_result(result_id).wait_finished(LONG_TIMEOUT))

    threads = [
        threading.Thread(target=wait, args=(each.id,)) for each in (first, first, first, second)
    ]
    for thread in threads:
        thread.start()
    for gate in gates:
        wait_for(gate.with_suffix(".running").exists)
    gates[0].touch()
    for thread in threads[:3]:
        thread.join(SHORT_TIMEOUT)
    assert [result.return_value for result in woken] == [str(gates[0])] * 3
    gates[1].touch()
    threads[3].join(SHORT_TIMEOUT)
    assert woken[3].return_value == str(gates[1])


def test_timeout(bench: Bench) -> None:
    """A TimeoutError names the id, the state and the limit; the task goes on."""
    release = bench.occupy(2)
    result = bench.enqueue(tasks.add, 1)
    for timeout in (0, 0.02, -1, timedelta(milliseconds=20)):
        with pytest.raises(TimeoutError, match=rf"{result.id}, is still READY after [-\d.]+ s"):
            result.wait_finished(timeout)
    with pytest.raises(TimeoutError, match=r"tests\.tasks\.add.* after 0\.02 s"):
        asyncio.run(result.await_finished(0.02))
    release()
    assert result.wait_finished(timedelta(seconds=SHORT_TIMEOUT)).return_value == 1


@pytest.mark.parametrize(
    ("timeout", "error"),
    [("5", TypeError), (True, TypeError), (b"", TypeError), (float("nan"), ValueError)],
)
def test_timeouts_that_are_none(any_bench: Bench, timeout: Any, error: type[Exception]) -> None:
    """What is no number of seconds is refused, even where nothing is left to wait for."""
    with pytest.raises(error, match="timeout="):
        wait_finished(any_bench.run(tasks.add, 1), timeout)


def test_a_finished_result_is_enough(any_bench: Bench) -> None:
    """A result that shows the end is returned as it is, on any backend."""
    result = any_bench.run(tasks.add, 1)
    assert wait_finished(result) is result
    assert asyncio.run(await_finished(result)) is result


@INLINE_TOO
def test_as_an_attribute_or_as_a_function(bench: Bench) -> None:
    """Both ways to spell it do the same."""
    assert wait_finished(bench.enqueue(tasks.add, 1), SHORT_TIMEOUT).return_value == 1
    result = bench.enqueue(tasks.add, 2)
    assert asyncio.run(await_finished(result, SHORT_TIMEOUT)) is result
    assert result.return_value == 2


def test_the_event_loop_goes_on(bench: Bench) -> None:
    """Many wait in one event loop while that does other work, and a wait can be cancelled."""

    async def scenario() -> None:
        gate = bench.gates / "gate"
        result = await bench.on(tasks.hold).aenqueue(str(gate))
        waits = [asyncio.create_task(result.await_finished(LONG_TIMEOUT)) for _ in range(50)]
        for _ in range(3):
            await asyncio.to_thread(lambda: None)
        waits[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits[0]
        gate.touch()
        async with asyncio.timeout(SHORT_TIMEOUT):
            ended = await asyncio.gather(*waits[1:])
        assert {each.return_value for each in ended} == {str(gate)}

    asyncio.run(scenario())


def test_evicted_before_it_was_seen(bench: Bench) -> None:
    """A result that is gone raises what every read of it raises."""
    bench.configure(MAX_WORKERS=2, MAX_RESULTS=1)
    release = bench.occupy(1)
    result = bench.enqueue(tasks.add, 1)
    others = [bench.enqueue(tasks.add, n) for n in range(3)]
    finished(others[-1])
    with pytest.raises(TaskResultDoesNotExist):
        result.wait_finished(SHORT_TIMEOUT)
    release()


# --- inside tasks --------------------------------------------------------------------------------


def test_the_only_worker_may_not_wait(bench: Bench) -> None:
    """A task may not wait for another where there is no second worker that could run that."""
    bench.set_workers(1)
    error = bench.run(tasks.wait_for_another, bench.alias).errors[0]
    assert error.exception_class is RuntimeError
    assert "tests.tasks.wait_for_another" in error.traceback
    assert "a deadlock" in error.traceback


def test_the_only_worker_may_look(bench: Bench) -> None:
    """Without time to wait, that is no deadlock."""
    bench.set_workers(1)
    error = bench.run(tasks.wait_for_another, bench.alias, 0).errors[0]
    assert error.exception_class is TimeoutError


@INLINE_TOO
def test_inside_a_task_with_another_worker(bench: Bench) -> None:
    """Where another worker does not wait, a task may wait for another of its backend."""
    assert bench.value(tasks.wait_for_another, bench.alias) == 3


@INLINE_TOO
def test_not_all_workers_wait(bench: Bench) -> None:
    """However many tasks want to wait at once, all end, and those refused say why."""
    results = [bench.enqueue(tasks.wait_for_another, bench.alias) for _ in range(20)]
    for result in results:
        finished(result, LONG_TIMEOUT)
        if result.errors:
            assert "a deadlock" in result.errors[0].traceback
    assert any(result.status == TaskResultStatus.SUCCESSFUL for result in results)
    assert bench.value(tasks.wait_for_another, bench.alias) == 3


@INLINE_TOO
def test_inside_a_task_of_another_backend(bench: Bench) -> None:
    """Workers of another backend are no concern: they are free, or become so."""
    bench.set_workers(1)
    assert bench.value(tasks.wait_for_another, "default") == 3


@INLINE_TOO
def test_a_task_waits_for_itself(bench: Bench) -> None:
    """That is refused, however many workers are free."""
    error = bench.run(tasks.wait_for_itself).errors[0]
    assert error.exception_class is RuntimeError
    assert "its own end" in error.traceback


@pytest.mark.usefixtures("only_woken")
@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_a_lost_worker_wakes(bench: Bench) -> None:
    """Who waits for a task learns at once that its worker was killed."""
    result = bench.enqueue(tasks.die).wait_finished(SHORT_TIMEOUT)
    assert result.status == TaskResultStatus.FAILED
    assert result.loss is not None
