"""How a worker announces the end of a task that was lost with another worker."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.signals import task_finished

from django_tasks_local import current_result_id
from django_tasks_local.pool.announcing import announce_loss
from django_tasks_local.ring import Found, Loss, Ring, Share, loss_word
from tests import rings as peers
from tests.rings import Rings


@pytest.fixture
def heard() -> Iterator[list[tuple[Any, ...]]]:
    """What a receiver gets."""
    found: list[tuple[Any, ...]] = []

    def note(sender: type, task_result: Any, **_: Any) -> None:
        assert task_result.id == current_result_id.get()
        found.append((sender, task_result.task.name, task_result.status, sys.exception()))

    task_finished.connect(note)
    yield found
    task_finished.disconnect(note)


def lost(rings: Rings, meta: bytes = b"tests.tasks:nothing", loss: Loss = Loss.SIGNAL) -> Found:
    """A task whose worker has died."""
    ring, peer = rings.attach(), rings.peer()
    ring.enqueue(meta, ring.encode(((), {})), priority=0, due_ns=0)
    peer.do(peers.claim)
    peer.kill()
    ring.upkeep.settle(peer.index, loss_word(loss, 9))
    (found,) = ring.upkeep.losses.take(Share(0, 0))
    return found


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        (Loss.SIGNAL, "WorkerLost"),
        (Loss.POOL_DIED, "WorkerLost"),
        (Loss.MEMORY, "MemoryExceeded"),
        (Loss.TIMED_OUT, "TaskTimeout"),
        (Loss.CANCELLED, "TaskCancelled"),
    ],
)
def test_as_after_a_task(rings: Rings, heard: list[tuple[Any, ...]], loss: Loss, name: str) -> None:
    """A receiver finds the task, its status and, where it looks for an exception, what ended it."""
    found = lost_by_kill(rings) if loss is Loss.CANCELLED else lost(rings, loss=loss)
    announce_loss(found, "process", Ring)
    ((sender, task, status, error),) = heard
    assert (sender, task, status) == (Ring, "nothing", TaskResultStatus.FAILED)
    assert type(error).__name__ == name
    assert current_result_id.get(None) is None


def lost_by_kill(rings: Rings) -> Found:
    """A task that was asked to stop, and whose worker died of that."""
    ring, peer = rings.attach(), rings.peer()
    arguments = ring.encode(((), {}))
    result_id, _ = ring.enqueue(b"tests.tasks:nothing", arguments, priority=0, due_ns=0)
    peer.do(peers.claim)
    assert ring.cancel(result_id, running=True)[0]
    peer.kill()
    ring.upkeep.settle(peer.index)
    (found,) = ring.upkeep.losses.take(Share(0, 0))
    return found


def test_a_task_that_does_not_import(
    rings: Rings, heard: list[tuple[Any, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """There is no result to announce; the log says so, and the worker goes on."""
    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        announce_loss(lost(rings, b"no.such:task"), "process", Ring)
    assert not heard
    assert "its end cannot be announced" in caplog.text


def test_a_receiver_that_raises_anything(rings: Rings, caplog: pytest.LogCaptureFixture) -> None:
    """It ends no worker."""

    def leave(**_: Any) -> None:
        raise SystemExit

    task_finished.connect(leave)
    try:
        with caplog.at_level(logging.ERROR, "django_tasks_local"):
            announce_loss(lost(rings), "process", Ring)
    finally:
        task_finished.disconnect(leave)
    assert "SystemExit" in caplog.text
