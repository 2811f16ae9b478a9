"""What the processes of `recovery.py` do: they kill others, and take the time until all is well."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from django.tasks import TaskResultStatus, task_backends

from bench_tasks import noop, pids, stamp
from django_tasks_local.naming import encode_task
from django_tasks_local.ring import Ring, Role, unlink_objects
from growth import NOTHING, add_finished
from readers import held, process_backend
from workloads import wait

IN_A_DAY_NS = 24 * 3600 * 10**9


class OwnRing:
    """The ring of an alias, without a pool, filled with finished records; removed at the end."""

    def __init__(self, alias: str, records: int) -> None:
        self.spec = process_backend(alias).spec()
        self.ring = self.attach()
        for _ in range(records):
            add_finished(self.ring)
        # As long as something is deferred, `next_due_ns` goes through the lock.
        due_ns = time.time_ns() + IN_A_DAY_NS
        self.ring.enqueue(encode_task(noop), NOTHING, priority=0, due_ns=due_ns)

    def attach(self) -> Ring:
        """Return this process's attachment; a forked child makes its own."""
        return Ring(self.spec.name, self.spec.alias, self.spec.limits, Role.VISITOR)

    def remove(self) -> None:
        """Leave nothing in /dev/shm."""
        self.ring.attachment.detach()
        unlink_objects(self.spec.name)


def rebuilds(alias: str, records: int, times: int) -> list[int]:
    """Return the nanoseconds of rebuilding everything that is derived."""
    own, spans = OwnRing(alias, records), []
    for _ in range(times):
        begin = time.perf_counter_ns()
        own.ring.upkeep.rebuild()
        spans.append(time.perf_counter_ns() - begin)
    own.remove()
    return spans


def holder_kills(alias: str, records: int, kills: int) -> list[int]:
    """Return the nanoseconds from the SIGKILL of a process inside until this one has been inside.

    The victim rebuilds the ring over and over, so that it is inside nearly always, half-way
    through its writes; the time of rebuilding after it is part of the figure.
    """
    own, spans = OwnRing(alias, records), []
    for number in range(kills):
        pid = os.fork()
        if pid == 0:
            rebuild_for_ever(own)
        wait_for(lambda: len(list(own.ring.registry.attachments())) > 1)
        time.sleep(0.002 + number % 10 / 5000)  # not always at the same step
        begin = time.perf_counter_ns()
        os.kill(pid, signal.SIGKILL)
        own.ring.upkeep.next_due_ns()
        spans.append(time.perf_counter_ns() - begin)
        os.waitpid(pid, 0)
        own.ring.upkeep.settle_dead()
    own.remove()
    return spans


def rebuild_for_ever(own: OwnRing) -> None:
    """Rebuild the ring until killed: the victim."""
    try:
        ring = own.attach()
        while True:
            ring.upkeep.rebuild()
    finally:
        os._exit(1)  # never back into the parent's code


def kill_worker(alias: str, gate: str) -> dict[str, int]:
    """SIGKILL the only worker in the middle of a task; another task waits behind it."""
    worker, _ = wait(pids.using(backend=alias).enqueue()).return_value
    task = held(alias, gate)
    behind = stamp.using(backend=alias).enqueue()
    begin = time.monotonic_ns()
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: task_backends[alias].get_result(task.id).status == TaskResultStatus.FAILED)
    failed = time.monotonic_ns() - begin
    return {"seen_failed": failed, "next_task_starts": wait(behind).return_value - begin}


def kill_pool(alias: str) -> dict[str, int]:
    """SIGKILL the pool while it is idle, enqueue at once, and again until a new worker answers.

    An old worker may still claim such a task, and dies with it a moment later.
    """
    job = pids.using(backend=alias)
    old_worker, old_pool = wait(job.enqueue()).return_value
    begin = time.monotonic_ns()
    os.kill(old_pool, signal.SIGKILL)
    worker = old_worker
    while worker == old_worker:
        with suppress(RuntimeError):
            worker = wait(job.enqueue()).return_value[0]
    return {"new_worker_answers": time.monotonic_ns() - begin}


def wait_for(reached: Callable[[], bool], limit_s: float = 30) -> None:
    """Look without a pause until `reached()`."""
    give_up = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > give_up:
            raise TimeoutError(f"nothing happened for {limit_s} s")
