"""The async half of Django's interface."""

import asyncio
from typing import Any

import pytest
from django.db import connection
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued

from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench
from tests.support import SHORT_TIMEOUT


async def afinished(result: Any) -> Any:
    """Refreshes until it has finished."""
    async with asyncio.timeout(SHORT_TIMEOUT):
        while not result.is_finished:
            await asyncio.to_thread(lambda: None)
            await result.arefresh()
    return result


def test_aenqueue_arefresh_aget_result(bench: Bench) -> None:
    """Enqueue, refresh and read from a coroutine."""

    async def scenario() -> None:
        task = bench.on(tasks.async_add)
        result = await task.aenqueue(1, b=2)
        assert result.status == TaskResultStatus.READY
        assert (await afinished(result)).return_value == 3
        assert await task.aget_result(result.id) == result
        assert await bench.backend.aget_result(result.id) == result
        with pytest.raises(TaskResultDoesNotExist):
            await bench.backend.aget_result("no such id")

    asyncio.run(scenario())


@INLINE_TOO
def test_many_coroutines_at_once(bench: Bench) -> None:
    """Each asyncio context has a backend object of its own; they share one store."""

    async def one(n: int) -> float:
        result = await bench.on(tasks.add).aenqueue(n, n)
        value: float = (await afinished(result)).return_value
        return value

    async def scenario() -> None:
        values = await asyncio.gather(*(one(n) for n in range(20)))
        assert values == [2 * n for n in range(20)]

    asyncio.run(scenario())


@INLINE_TOO
def test_receivers_may_use_the_database(bench: Bench) -> None:
    """A receiver of task_enqueued runs outside the event loop, where Django allows queries."""
    seen = []

    def query(**_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 42")
            seen.append(cursor.fetchone())
        connection.close()

    task_enqueued.connect(query)
    try:
        result = asyncio.run(bench.on(tasks.nothing).aenqueue())
    finally:
        task_enqueued.disconnect(query)
    assert seen == [(42,)]
    assert result.id
