"""Start states of a ring for the crash tests."""

import os
import time
from dataclasses import replace
from typing import Any, Final

from django_tasks_local.ring import Ring
from django_tasks_local.ring.records.slots import Wanted
from tests.crash.noted import noted
from tests.crash.retried import retried
from tests.crash.scene import FAR_NS, GREEN, SLOT, Scene, large_value, small_value
from tests.crash.steps import die_in_child
from tests.rings import META
from tests.support import wait_for


def empty(scene: Scene) -> None:
    """Nothing was ever in it."""


def waiting(scene: Scene) -> None:
    """Tasks of several priorities, and a few results."""
    scene.done(small_value(1), "one")
    scene.done(small_value(2), ("app.Error", "text"), successful=False)
    for number, priority in ((3, 0), (4, 7), (5, 0), (6, -100)):
        scene.enqueue(small_value(number), priority)


def running(scene: Scene) -> None:
    """Two tasks that run, one of them by a dead process."""
    scene.done(small_value(1), "one")
    scene.enqueue(small_value(2))
    scene.claim()
    scene.enqueue(small_value(3))
    scene.lose_a_worker(lambda ring, claim: claim.report(1, 2, "half"))
    scene.enqueue(small_value(4))
    scene.enqueue(small_value(5), 3)


def full(scene: Scene) -> None:
    """Results fill every slot, so whoever needs one must evict."""
    scene.enqueue(small_value(0))
    number = 1
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        spare = scene.ring.counts().free_slots - scene.limits.max_workers
        slots = max(0, min(8, spare - 1))
        scene.done(small_value(number), bytes(SLOT * slots - 60) if slots else None)
        number += 1


def crowded(scene: Scene) -> None:
    """Arguments of results fill every slot: some of them go before any result does."""
    scene.enqueue(small_value(0))
    scene.done(small_value(1), "small")
    number = 2
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        spare = scene.ring.counts().free_slots - scene.limits.max_workers
        slots = max(0, min(8, spare - 1))
        scene.done(large_value(number, slots) if slots else small_value(number), "small")
        number += 1


def deferred(scene: Scene) -> None:
    """Tasks that wait for their time, and two whose time has just come."""
    scene.done(small_value(1), "one")
    now_ns = time.time_ns()
    for number, delay_ns in ((2, FAR_NS), (3, 20_000_000), (4, 2 * FAR_NS), (5, 20_000_001)):
        scene.enqueue(small_value(number), due_ns=now_ns + delay_ns)
    due = list(scene.records)[2], list(scene.records)[4]
    wait_for(lambda: time.time_ns() > now_ns + 21_000_000)
    for key in due:
        scene.records[key].deferred = False


def chained(scene: Scene) -> None:
    """Large payloads, whole ones and those of the dead."""
    scene.done(large_value(1), "a" * 1000)
    scene.done(large_value(2), "small")
    scene.enqueue(large_value(3))

    def half_a_result(ring: Ring, claim: Any) -> None:
        ring._operations.chain_outcome(claim, Wanted(3, ring._table.owner_word(claim.slot)), 0)

    scene.lose_a_worker(half_a_result)
    scene.enqueue(large_value(4, 2))

    def half_a_request() -> None:
        ring = scene.attach()
        ring._table.slots.write = lambda *_: os.kill(os.getpid(), 9)  # type: ignore[method-assign]
        ring.enqueue(META, ring.encode(large_value(5)), priority=0, due_ns=0)

    die_in_child(half_a_request)


def holes(scene: Scene) -> None:
    """No two free slots are neighbours, and large payloads lie in single ones."""
    number = 1
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=100))
    while scene.ring.counts().free_slots > scene.limits.max_workers:
        scene.done(small_value(number), None)
        number += 1
    for key in scene.finished[::2]:
        scene.ring.get(key)
        scene.finished.remove(key)
        scene.finished.append(key)
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=number // 2))
    scene.ring.upkeep.trim()
    scene.ring.attachment.set_limits(replace(scene.limits, max_results=100))
    scene.done(large_value(number), "a" * 1000)
    scene.enqueue(large_value(number + 1))


def codes(scene: Scene) -> None:
    """Tasks of two releases, in both lanes of the one, and one whose time comes later."""
    scene.done(small_value(1), "one")
    green = scene.attach(path=GREEN)
    scene.enqueue(small_value(2))
    scene.enqueue(small_value(3), 5, site=green)
    scene.ring.upkeep.set_runnable_up_to(scene.ring.registry.serial)
    scene.enqueue(small_value(4))
    scene.enqueue(small_value(5), site=green)
    scene.enqueue(small_value(6), due_ns=time.time_ns() + FAR_NS, site=green)


STATES: Final = {
    state.__name__: state
    for state in (
        empty,
        waiting,
        running,
        full,
        holes,
        crowded,
        deferred,
        chained,
        noted,
        codes,
        retried,
    )
}
