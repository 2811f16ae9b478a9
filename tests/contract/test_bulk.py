"""Many tasks at once: all of them or none, with one body for every backend."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import InvalidTask
from django.tasks.signals import task_enqueued

from django_tasks_local import (
    aenqueue_many,
    cancel,
    enqueue_many,
    metadata_of,
    results,
    with_metadata,
)
from django_tasks_local.exceptions import AlreadyEnqueued, QueueFull
from tests import tasks, unique_tasks
from tests.contract.conftest import Bench, finished


@pytest.fixture
def enqueued() -> Iterator[list[str]]:
    """The ids for which task_enqueued is sent."""
    ids: list[str] = []

    def receive(task_result: Any, **_: Any) -> None:
        ids.append(task_result.id)

    task_enqueued.connect(receive)
    yield ids
    task_enqueued.disconnect(receive)


def calls(*numbers: int) -> list[Any]:
    """Arguments for `add`."""
    return [((number,), {"b": 1}) for number in numbers]


def test_each_has_its_result(any_bench: Bench, enqueued: list[str]) -> None:
    """In the order of the calls, which may have any of these forms."""
    task = any_bench.on(tasks.add)
    forms: list[Any] = [((1, 2), {}), [[3], {"b": 4}], ((5,), {}), ((), {"a": 6})]
    found = enqueue_many(task, iter(forms))
    assert [finished(result).return_value for result in found] == [3, 7, 5, 6]
    assert len(set(enqueued)) == 4
    assert [result.id for result in found] == enqueued
    assert enqueue_many(task, []) == []


def test_they_wait_like_others(bench: Bench) -> None:
    """READY, by priority and in their order, deferred if the task says so."""
    release = bench.occupy(2)
    first = enqueue_many(bench.on(tasks.add), calls(1, 2))
    urgent = enqueue_many(bench.on(tasks.add, priority=9), calls(3, 4))
    later = enqueue_many(bench.on(tasks.add, run_after=timedelta(hours=1)), calls(5))
    for result in [*first, *urgent, *later]:
        assert (result.status, result.kwargs, result.attempts) == (
            TaskResultStatus.READY, {"b": 1}, 0,
        )  # fmt: skip
        again = bench.backend.get_result(result.id)
        assert again == result
        assert again.enqueued_at == result.enqueued_at
    waiting = [r.id for r in results(bench.alias, status="READY")]
    assert waiting == [result.id for result in [*urgent, *first, *later]]
    release()
    assert [finished(result).return_value for result in [*first, *urgent]] == [2, 3, 4, 5]
    assert cancel(later[0])


def test_metadata(bench: Bench) -> None:
    """Those of the task are those of each."""
    found = enqueue_many(with_metadata(bench.on(tasks.add), {"trace": "a"}), calls(1, 2))
    assert [metadata_of(finished(result)) for result in found] == [{"trace": "a"}] * 2


def test_async(bench: Bench) -> None:
    """From an event loop, too."""
    found = asyncio.run(aenqueue_many(bench.on(tasks.async_add), calls(1, 2)))
    assert [finished(result).return_value for result in found] == [2, 3]


def test_a_full_queue_takes_none(bench: Bench, enqueued: list[str]) -> None:
    """All of them count."""
    bench.configure(MAX_WORKERS=1, MAX_PENDING=3)
    release = bench.occupy()
    waiting = bench.enqueue(tasks.add, 1)
    count = len(enqueued)
    with pytest.raises(QueueFull) as caught:
        enqueue_many(bench.on(tasks.add), calls(1, 2, 3))
    assert (caught.value.waiting, caught.value.limit, caught.value.wanted) == (1, 3, 3)
    assert len(enqueued) == count
    assert len(enqueue_many(bench.on(tasks.add), calls(1, 2))) == 2
    release()
    assert finished(waiting).return_value == 1


@pytest.mark.parametrize(
    "wrong", [1, (), ((1,),), ((1,), {}, 3), (1, {}), ("ab", {}), ((1,), [2]), ((1,), {3: 4})]
)
def test_calls_that_are_none(any_bench: Bench, wrong: Any, enqueued: list[str]) -> None:
    """The error says which, and what is wanted; nothing is enqueued."""
    with pytest.raises(TypeError, match=r"calls\[1\] is .* It must be a pair \(args, kwargs\)"):
        enqueue_many(any_bench.on(tasks.add), [((1,), {}), wrong])
    with pytest.raises(TypeError, match=r"is not a task"):
        enqueue_many(tasks.add.func, calls(1))  # type: ignore[arg-type]
    assert enqueued == []


def test_what_is_wrong_with_one_stops_all(bench: Bench, enqueued: list[str]) -> None:
    """Whatever it is: the task, or the arguments of one."""
    if bench.alias == "process":
        with pytest.raises(ValueError, match="pickle"):
            enqueue_many(bench.on(tasks.add), [((1,), {}), ((threading.Lock(),), {})])
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        enqueue_many(bench.on(unique_tasks.by_function), [((1,), {}), (("x",), {})])
    with pytest.raises(InvalidTask):
        enqueue_many(bench.on(tasks.add, queue_name="unknown"), calls(1))
    assert enqueued == []


def test_unique_tasks(bench: Bench, enqueued: list[str]) -> None:
    """What is there stands for those that are the same, as the first does for the others."""
    release = bench.occupy(2)
    there = bench.enqueue(unique_tasks.bill, 1)
    count = len(enqueued)
    found = enqueue_many(
        bench.on(unique_tasks.bill), [((number,), {}) for number in (2, 1, 3, 2, 1)]
    )
    ids = [result.id for result in found]
    assert (ids[1], ids[3], ids[4]) == (there.id, ids[0], there.id)
    assert enqueued[count:] == [ids[0], ids[2]]
    release()
    assert [finished(result).return_value[0] for result in found] == [2, 1, 3, 2, 1]


def test_unique_tasks_that_raise(bench: Bench, enqueued: list[str]) -> None:
    """One that is there, or two that are the same, and none is enqueued."""
    release = bench.occupy(2)
    there = bench.enqueue(unique_tasks.strict, 1)
    count = len(enqueued)
    for numbers, result_id in (((2, 1), there.id), ((3, 3), "")):
        with pytest.raises(AlreadyEnqueued) as caught:
            enqueue_many(bench.on(unique_tasks.strict), [((n,), {}) for n in numbers])
        assert (caught.value.key, caught.value.result_id) == (numbers[1], result_id)
    assert len(enqueued) == count
    assert len(enqueue_many(bench.on(unique_tasks.strict), [((2,), {}), ((3,), {})])) == 2
    release()


def test_thousands(bench: Bench) -> None:
    """They all run, each once."""
    bench.configure(MAX_WORKERS=2, MAX_RESULTS=5000)
    found = enqueue_many(bench.on(tasks.add), calls(*range(3000)))
    assert len({result.id for result in found}) == 3000
    assert [finished(result).return_value for result in found] == list(range(1, 3001))
