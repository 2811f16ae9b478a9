"""Tasks that have failed, and wait for another attempt or have had it, for the crash tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.crash.scene import Record, Scene

FAR_NS: Final = 3_600_000_000_000
BUSY: Final = "app.Busy", "Traceback: busy\n"
VERY_BUSY: Final = "app.Busy", "Traceback: very busy\n" * 60  # some slots
LOST: Final = "django_tasks_local.exceptions.WorkerLost"


def retried_value(number: int, slots: int = 0) -> Any:
    """Arguments of a task that fails; they need a chain of so many slots."""
    return (number, b"r" * (512 * slots)), {}


def retry(scene: Scene, error: tuple[str, str] = BUSY, due_ns: int = 0) -> str:
    """Claims the next task for this process, and has it tried again."""
    result_id = scene.claim()
    assert scene.ring.retry(scene.claims.pop(result_id), error=error, due_ns=due_ns)
    record = scene.records.pop(result_id)  # behind the others
    record.status, record.deferred = "READY", due_ns > 0
    record.past.append(error)
    scene.records[result_id] = record
    return result_id


def retried(scene: Scene) -> None:
    """Tasks with earlier attempts, in all states; one of them is tried again when it is lost."""
    for number, outcome in ((1, "one"), (2, "a" * 1000)):
        scene.enqueue(retried_value(number), priority=100)
        retry(scene, VERY_BUSY)
        result_id = scene.claim()
        scene.finish(result_id, outcome)
    scene.enqueue(retried_value(3), 6)
    retry(scene)
    scene.lose_a_worker()
    scene.enqueue(retried_value(4), 5, lost_attempts=4)
    retry(scene)
    record = scene.records[scene.lose_a_worker()]
    record.lost_again, record.status, record.deferred = True, "READY", True
    scene.enqueue(retried_value(5, 2), 4)
    retry(scene, BUSY, time.time_ns() + FAR_NS)
    for number, slots, priority in ((6, 0, 2), (7, 2, 3)):
        scene.enqueue(retried_value(number, slots), priority)
        retry(scene, VERY_BUSY)
    scene.enqueue(retried_value(8))


def compare_attempts(found: Any, record: Record, may_be: tuple[str, str] | None) -> bool:
    """Compare the attempts of a task with what is known of them.

    Args:
        found: The task.
        record: What the test knows.
        may_be: How the dead operation may have failed an attempt of it.

    Returns:
        Whether there is one attempt more.
    """
    errors = list(found.past.errors) if found.past else []
    workers = len(found.past.workers) if found.past else 0
    known = list(record.past)
    if record.lost_again and workers == len(known) + 1 and errors[-1][0] == LOST:
        known.append(errors[-1])
    elif may_be is not None and workers == len(known) + 1:
        known.append(may_be)
    assert errors == known
    assert workers == len(known)
    started = found.started_at_ns > 0 and found.status.name != "READY"
    assert bool(found.worker_id) == started or workers > len(record.past)
    return workers > len(record.past)
