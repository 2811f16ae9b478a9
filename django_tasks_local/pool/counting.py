"""What counts the tasks that this process enqueues, where METRICS says that they are counted."""

from collections.abc import Callable

from django_tasks_local.naming import load_task
from django_tasks_local.ring import Ring
from django_tasks_local.ties import Ties

from .spec import PoolSpec


def tally_of(ring: Ring, spec: PoolSpec, meta: bytes) -> int:
    """Return what `Ring.put` wants to know of a task's tally; 0 where nothing is counted.

    Args:
        ring: Where the task goes.
        spec: Says whether it is counted.
        meta: What names the task; it can be imported here.
    """
    if not spec.metrics:
        return 0
    tally = ring.counters.known.get(meta)
    if tally is None:
        task = load_task(meta)
        tally = ring.counters.remember(meta, task.module_path, task.queue_name)
    return tally


def counts_of(
    ring: Ring, spec: PoolSpec, meta: bytes, ties: Ties | None
) -> tuple[int, Ties | None]:
    """Return `tally_of` a task, and its ties with the tallies of what may follow it."""
    if not spec.metrics:
        return 0, ties
    return tally_of(ring, spec, meta), tallied(ties, lambda each: tally_of(ring, spec, each))


def tallied(ties: Ties | None, tally: Callable[[bytes], int]) -> Ties | None:
    """Return ties with the tallies of what may follow."""
    if ties is None:
        return None
    plan = tuple(each._replace(tally=tally(each.meta)) for each in ties.plan)
    return ties._replace(plan=plan)
