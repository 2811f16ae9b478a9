"""What counts the tasks that this process enqueues, where METRICS says that they are counted."""

from django_tasks_local.naming import load_task
from django_tasks_local.ring import Ring

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
