"""An exception out of a signal handler at every point of every call of the store of one process."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.memory import MemoryStore
from django_tasks_local.ties import FollowUp, Ties
from tests.interrupter import Interrupt, Interrupter

WHERE = os.path.join("django_tasks_local", "")
FAR_NS = 2**62
READY, RUNNING = TaskResultStatus.READY, TaskResultStatus.RUNNING


def put(store: MemoryStore, due_ns: int = 0, priority: int = 0) -> str:
    """Enqueues; the id."""
    return store.enqueue(b"m:f", ((1,), {}), priority=priority, due_ns=due_ns)[0]


def put_many(store: MemoryStore) -> list[str]:
    """Enqueues several that are unique, one of which is there; the ids."""
    keys = [b"a" * 16, b"b" * 16, b""]
    store.enqueue(b"m:f", ((1,), {}), priority=0, due_ns=0, key=keys[0])
    arguments: list[Any] = [((n,), {}) for n in range(len(keys))]
    return store.enqueue_many(b"m:f", arguments, priority=0, due_ns=0, keys=keys)[0]


def put_tied(store: MemoryStore) -> str:
    """Enqueues what is next, and is followed by another one; the id."""
    plan = (FollowUp(b"m:after", None, 9, 0),)
    ties = Ties("g", "", 0, 0, plan)
    return store.enqueue(b"m:f", ((1,), {}), priority=99, due_ns=0, ties=ties)[0]


def run_next(store: MemoryStore) -> str | None:
    """Claims and finishes what is next; the id."""
    claim = store.claim("w")
    if claim is None:
        return None
    store.finish(claim, successful=True, outcome=None)
    return claim.result_id


class Filled:
    """A store as full as it may be, with records in every state."""

    def __init__(self) -> None:
        self.store = MemoryStore(
            "memory", max_results=3, max_result_bytes=2**20, max_pending=100,
            result_ttl_s=3600, failure_ttl_s=3600,
        )  # fmt: skip
        # As an inline backend's has it: only that runs tasks in the main thread.
        self.store._lock_of_workers = self.store._lock
        put(self.store)
        run_next(self.store)
        for record in self.store._records.values():
            record.finished_at_ns -= 2 * 3600 * 10**9  # it has expired
        self.ended = [put(self.store, priority=5) for _ in range(2)]
        for _ in self.ended:
            run_next(self.store)
        put(self.store, priority=5)
        self.running = self.store.claim("w")
        self.waiting = [put(self.store, priority=n % 2) for n in range(3)]
        self.due = [put(self.store, due_ns=time.time_ns() + n) for n in range(2)]
        self.deferred = put(self.store, FAR_NS)


def sound(store: MemoryStore) -> None:
    """All that is derived fits the records and their states, once it is used again."""
    with suppress(TaskResultDoesNotExist):
        store.get("none")
    assert not store._lock.locked()
    assert not store._torn
    records = store._records
    waiting = {key for key, record in records.items() if record.status is READY}
    items = [*store._order.ready.items(), *store._order.deferred.items()]
    assert sorted(item.result_id for item in items) == sorted(waiting)
    assert store.waiting == store._accepted == len(waiting)
    for item in items:
        assert item.heap is not None
        assert item.follow_up is None
        assert item.entry[2] is item
        assert not item.finished_at_ns
    ended = {key for key, record in records.items() if record.status not in (READY, RUNNING)}
    assert set(store._finished._records) == ended
    assert store._finished.kept_bytes == sum(records[key].weight for key in ended)
    expiring = [key for each in store._lifetimes._records.values() for key in each]
    assert sorted(expiring) == sorted(ended)
    for record in records.values():
        assert record.follow_up is None
        followers = [each for each in records.values() if each.ties.after == record.result_id]
        follows = record.result_id in ended and record.ties.next(successful=True) is not None
        assert len(followers) == follows
    assert store.running == sum(record.status is RUNNING for record in records.values())


OPERATIONS: dict[str, Callable[[Filled], Any]] = {
    "enqueue": lambda it: put(it.store),
    "enqueue_deferred": lambda it: put(it.store, FAR_NS),
    "enqueue_many": lambda it: put_many(it.store),
    "get": lambda it: it.store.get(it.ended[0]),
    "save": lambda it: it.store.save_metadata(it.ended[0], b"{}"),
    "save_much": lambda it: it.store.save_metadata(it.ended[1], b" " * 2**20),
    "cancel": lambda it: it.store.cancel(it.waiting[0], running=True),
    "cancel_deferred": lambda it: it.store.cancel(it.deferred, running=True),
    "cancel_running": lambda it: it.store.cancel(it.running.result_id, running=True),  # type: ignore[union-attr]
    "listed": lambda it: list(it.store.listed(frozenset(TaskResultStatus), None)),
    "drain": lambda it: it.store.wait_until_done(0),
    "run": lambda it: run_next(it.store),
    "run_followed": lambda it: [put_tied(it.store), run_next(it.store)],
    "cancel_followed": lambda it: it.store.cancel(put_tied(it.store), running=True),
}


# With 3, what mends is interrupted as well where the call goes on to it.
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_interrupt_at_every_point(name: str, times: int) -> None:
    """Nothing is lost, nothing runs twice, and what waits runs in its order."""
    at, completed = 0, False
    while not completed:
        at += 1
        it = Filled()
        try:
            with Interrupter(WHERE, at, times):
                OPERATIONS[name](it)
            completed = True
        except Interrupt:
            pass
        try:
            sound(it.store)
            check_order(it)
        except BaseException as error:
            error.add_note(f"interrupted at point {at}")
            raise
    assert at > 5


def test_interrupt_while_it_is_mended() -> None:
    """The next call begins again."""
    at, completed = 0, False
    while not completed:
        at += 1
        it = Filled()
        it.store._torn = True
        it.store._order.ready.pop()
        try:
            with Interrupter(WHERE, at, 1):
                it.store.get(it.deferred)
            completed = True
        except Interrupt:
            pass
        sound(it.store)
        assert it.store.waiting == 6
    assert at > 20


def check_order(it: Filled) -> None:
    """What is still there of what waited runs by priority, and then first come, first served."""
    left = [it.waiting[1], it.waiting[0], it.waiting[2], *it.due]
    expected = [key for key in left if getattr(it.store._records.get(key), "status", 0) is READY]
    run = []
    while (key := run_next(it.store)) is not None:
        sound(it.store)
        run.append(key)
    assert len(set(run)) == len(run)
    assert [key for key in run if key in left] == expected
