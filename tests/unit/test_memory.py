"""The store of one process, without threads of a pool."""

import atexit
import sys
import threading
import time
import weakref
from typing import Any

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local import Progress
from django_tasks_local.backends import thread
from django_tasks_local.memory import MemoryStore
from django_tasks_local.memory_order import PROMOTED_AT_ONCE
from tests.support import LONG_TIMEOUT, SHORT_TIMEOUT, wait_for


@pytest.fixture
def store() -> MemoryStore:
    """An empty store that keeps two results."""
    return MemoryStore("memory", max_results=2, max_result_bytes=2**20, max_pending=100)


def put(store: MemoryStore, *args: Any, priority: int = 0, due_ns: int = 0) -> str:
    """Enqueues; the id."""
    return store.enqueue(b"m:f", (args, {}), priority=priority, due_ns=due_ns)[0]


def run_all(store: MemoryStore) -> list[str]:
    """Claims and finishes what is due; the ids in order."""
    ids = []
    while claim := store.claim("w"):
        store.finish(claim, successful=True, outcome=None)
        ids.append(claim.result_id)
    return ids


def test_claim_of_nothing(store: MemoryStore) -> None:
    """An empty store has nothing to claim."""
    assert store.claim() is None


def test_a_record_s_life(store: MemoryStore) -> None:
    """READY, RUNNING, SUCCESSFUL, with times that never go back."""
    result_id = put(store, 1)
    assert store.get(result_id).status == TaskResultStatus.READY
    claim = store.claim("w")
    assert claim is not None
    running = store.get(result_id)
    assert (running.status, running.worker_id) == (TaskResultStatus.RUNNING, "w")
    assert running.finished_at_ns == 0
    store.finish(claim, successful=False, outcome="why")
    done = store.get(result_id)
    assert done.status == TaskResultStatus.FAILED
    assert done.outcome() == "why"
    assert done.enqueued_at_ns <= done.started_at_ns <= done.finished_at_ns


def test_a_clock_that_is_set_back(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task neither starts before it was enqueued nor ends before it started."""
    clock = iter([300, 200, 200, 100])
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    put(store)
    claim = store.claim()
    assert claim is not None
    store.finish(claim, successful=True, outcome=None)
    assert (claim.enqueued_at_ns, claim.started_at_ns, claim.finished_at_ns) == (300, 300, 300)


def test_deferred_in_the_order_of_their_moments(store: MemoryStore) -> None:
    """What falls due takes its place by priority, and by its moment within one."""
    late, early = put(store, due_ns=3), put(store, due_ns=2)
    now = put(store)
    urgent = put(store, due_ns=1, priority=1)
    put(store, due_ns=2**62)
    assert run_all(store) == [urgent, now, early, late]
    assert store.waiting == 1


def test_a_herd_falls_due(store: MemoryStore) -> None:
    """However many fall due together: the lock is held for some of them, and claims go on."""
    store.max_pending = 3 * PROMOTED_AT_ONCE
    ids = [put(store, due_ns=1) for _ in range(3 * PROMOTED_AT_ONCE)]
    claim = store.claim()
    assert claim is not None
    assert claim.result_id == ids[0]
    assert store.unattended == PROMOTED_AT_ONCE  # and one for those that are still deferred
    store.finish(claim, successful=True, outcome=None)
    assert not store.wait_until_done(0)
    assert run_all(store) == ids[1:]
    assert store.wait_until_done(0)


def test_report_after_the_end(store: MemoryStore) -> None:
    """A report that comes too late changes nothing."""
    result_id = put(store)
    claim = store.claim()
    assert claim is not None
    claim.report(1, 2, "in time")
    store.finish(claim, successful=True, outcome=None)
    claim.report(2, 2, "too late")
    assert store.get(result_id).progress == Progress(1, 2, "in time")


class Thing:
    """Something of the user's that looks at the store when it goes."""

    def __init__(self, store: MemoryStore, result_id: str, seen: list[Any]) -> None:
        weakref.finalize(self, lambda: seen.append(store.get(result_id).status))


def test_evicted_objects_go_outside_the_lock(store: MemoryStore) -> None:
    """Code of the user's that runs when an object goes may use the store."""
    seen: list[Any] = []
    waiting = put(store, due_ns=2**62)
    first = put(store, Thing(store, waiting, seen))
    put(store)
    put(store)
    run_all(store)
    with pytest.raises(TaskResultDoesNotExist):
        store.get(first)
    assert seen == [TaskResultStatus.READY]


def test_closed(store: MemoryStore) -> None:
    """A closed store gives out nothing more, and says what was waiting, in order."""
    waiting = [put(store, due_ns=2**62), put(store), put(store, priority=1)]
    assert [record.result_id for record in store.close()] == waiting[::-1]
    assert store.claim() is None
    assert store.wait_for_claim("w") is None
    assert store.waiting == 0


class Plain:
    """Something that can be referred to weakly."""


def test_a_closed_store_keeps_nothing(store: MemoryStore) -> None:
    """Neither what waited, nor results, nor what ends later; whoever still has the store."""
    things = [Plain() for _ in range(3)]
    gone = [weakref.ref(thing) for thing in things]
    put(store, things.pop())
    run_all(store)
    put(store, things.pop())
    claim = store.claim()
    put(store, things.pop())
    store.close()
    assert [ref() is None for ref in gone] == [True, False, True]
    assert claim is not None
    store.finish(claim, successful=True, outcome=None)
    del claim
    assert gone[1]() is None
    assert store.wait_until_done(0)


def test_waiters_are_woken(store: MemoryStore) -> None:
    """Each of several waiting threads gets one of several tasks, whenever they fall due."""
    claimed: list[str] = []

    def work() -> None:
        claim = store.wait_for_claim("w")
        assert claim is not None
        claimed.append(claim.result_id)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    wait_for(lambda: store.idle == 3)
    moment = time.time_ns() + 50_000_000
    ids = {put(store, due_ns=moment), put(store, due_ns=moment), put(store, due_ns=moment + 1)}
    for each in threads:
        each.join()
    assert set(claimed) == ids
    assert time.time_ns() >= moment
    assert store.idle == 0


def test_many_threads_at_once() -> None:
    """Who enqueues, claims, finishes and reads at the same time never meets another inside."""
    store = MemoryStore("memory", max_results=10_000, max_result_bytes=2**30, max_pending=10_000)
    ids: list[str] = []
    claimed: list[str] = []

    def enqueue() -> None:
        for _ in range(500):
            ids.append(put(store))
            store.get(ids[-1])

    def work() -> None:
        while (claim := store.wait_for_claim("w")) is not None:
            claimed.append(claim.result_id)
            store.finish(claim, successful=True, outcome=None)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # in the middle of everything
    try:
        workers = [threading.Thread(target=work) for _ in range(3)]
        clients = [threading.Thread(target=enqueue) for _ in range(3)]
        for each in workers + clients:
            each.start()
        for each in clients:
            each.join()
        assert store.wait_until_done(None)
        assert {store.get(each).status for each in ids} == {TaskResultStatus.SUCCESSFUL}
        store.close()
        for each in workers:
            each.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(set(ids)) == 1500
    assert sorted(claimed) == sorted(ids)
    assert (store.running, store.waiting, store.idle) == (0, 0, 0)


def test_wait_until_done(store: MemoryStore) -> None:
    """It waits for what runs and is due, not for what is deferred, and gives up in time."""
    assert store.wait_until_done(None)
    put(store, due_ns=2**62)
    assert store.wait_until_done(None)
    put(store)
    assert not store.wait_until_done(0)
    claim = store.claim()
    assert claim is not None
    assert not store.wait_until_done(0.01)
    waiter = threading.Thread(target=store.wait_until_done, args=[None])
    waiter.start()
    store.finish(claim, successful=True, outcome=None)
    waiter.join()
    assert store.wait_until_done(0)


def test_a_pool_made_while_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the early exit hook can no longer be set, atexit's is."""
    registered: list[object] = []

    def refuse(function: Any) -> None:
        raise RuntimeError("can't register atexit after shutdown")

    monkeypatch.setattr(thread, "_exit_hook_set", False)
    monkeypatch.setattr(threading, "_register_atexit", refuse)
    monkeypatch.setattr(atexit, "register", registered.append)
    thread._set_exit_hook()
    assert registered == [thread._drain]


def test_results_are_bounded_by_bytes_too() -> None:
    """Large ones drive out the least recently used, with their arguments; the latest stays."""
    store = MemoryStore("memory", max_results=100, max_result_bytes=2**20, max_pending=100)
    ids = []
    for size in (400_000, 10, 400_000, 400_000):
        ids.append(put(store, b"x" * 100))
        claim = store.claim()
        assert claim is not None
        store.finish(claim, successful=True, outcome=b"x" * size)
    with pytest.raises(TaskResultDoesNotExist, match="MAX_RESULT_BYTES"):
        store.get(ids[0])
    assert [len(store.get(each).outcome()) for each in ids[1:]] == [10, 400_000, 400_000]
    put(store, b"x" * 2**21)
    claim = store.claim()
    assert claim is not None
    store.finish(claim, successful=True, outcome=None)
    assert store.get(claim.result_id).outcome() is None
    for each in ids:
        with pytest.raises(TaskResultDoesNotExist):
            store.get(each)


def test_a_list_of_what_ends_meanwhile(store: MemoryStore) -> None:
    """A record is listed once, though it ends while the list is made, and as it is then."""
    first, second = put(store, 1), put(store, 2)
    listed = store.listed(frozenset(TaskResultStatus), None)
    assert next(listed).result_id == first
    run_all(store)
    (other,) = listed
    assert (other.result_id, other.status) == (second, TaskResultStatus.SUCCESSFUL)
    waiting = store.listed({TaskResultStatus.READY}, None)
    put(store, 3)
    assert [each.status for each in waiting] == [TaskResultStatus.READY]


def test_closing_wakes_those_who_wait(store: MemoryStore) -> None:
    """Who waits for a task that is dropped is not left asleep."""
    snapshot = store.get(put(store))
    thread = threading.Thread(target=store.wait_for_change, args=(snapshot, LONG_TIMEOUT))
    thread.start()
    wait_for(lambda: store._records[snapshot.result_id].bell)
    store.close()
    thread.join(SHORT_TIMEOUT)
    assert not thread.is_alive()


def test_a_wait_that_outlives_its_task() -> None:
    """A thread of a task that has ended holds no worker, and does not end the next one's wait."""
    store = MemoryStore(
        "memory", max_results=50, max_result_bytes=2**20, max_pending=100, max_workers=2
    )
    put(store)
    claim = store.claim()
    assert claim is not None
    assert store.begin_waiting(claim.result_id)
    assert not store.begin_waiting("another")
    store.finish(claim, successful=True, outcome=None)
    assert store.begin_waiting("another")
    store.end_waiting(claim.result_id)
    assert not store.begin_waiting("a third one")
    store.end_waiting("another")
    assert store.begin_waiting("a third one")


# --- results that expire --------------------------------------------------------------------------

SECOND_NS = 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time, to be set in its one item."""
    now = [1_700_000_000 * SECOND_NS]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    return now


def lasting(**seconds: Any) -> MemoryStore:
    """A store with these lifetimes."""
    return MemoryStore("memory", max_results=50, max_result_bytes=2**20, max_pending=100, **seconds)


def end(store: MemoryStore, *, successful: bool = True) -> str:
    """A task that has ended; its id."""
    result_id = put(store)
    claim = store.claim()
    assert claim is not None
    store.finish(claim, successful=successful, outcome=None)
    return result_id


def readable(store: MemoryStore, result_id: str) -> bool:
    """Whether a result can be read."""
    try:
        store.get(result_id)
    except TaskResultDoesNotExist:
        return False
    return True


def test_results_expire_by_how_they_ended(clock: list[int]) -> None:
    """Each end has its own lifetime, which reading does not prolong; None is no limit."""
    store = lasting(result_ttl_s=10)
    success, failure = end(store), end(store, successful=False)
    for _ in range(9):
        clock[0] += SECOND_NS
        assert readable(store, success)
    clock[0] += SECOND_NS
    assert not readable(store, success)
    clock[0] += 10**9 * SECOND_NS
    assert readable(store, failure)
    with pytest.raises(TaskResultDoesNotExist, match=r"for at most 10 s \(RESULT_TTL\)"):
        store.get(success)


def test_expired_results_are_dropped_by_later_calls(clock: list[int]) -> None:
    """There is no thread for them: enqueuing, reading and ending drop some each."""
    store = lasting(result_ttl_s=10, failure_ttl_s=10)
    for number in range(20):
        end(store, successful=number % 2 == 0)
    waiting = put(store)
    clock[0] += 11 * SECOND_NS
    for _ in range(10):
        store.get(waiting)
    assert list(store._records) == [waiting]
    assert not store._finished
    assert store._finished.kept_bytes == 0


def test_what_is_evicted_is_not_kept_to_expire(clock: list[int]) -> None:
    """Results beyond MAX_RESULTS are gone at once, however long they might have been read."""
    store = lasting(result_ttl_s=10**9)
    ids = [end(store) for _ in range(200)]
    assert len(store._records) == 50
    assert sum(map(len, store._lifetimes._records.values())) == 50
    assert readable(store, ids[-1])


def test_lifetimes_under_a_clock_that_is_set_back(clock: list[int]) -> None:
    """A result then lasts longer, and one behind it is refused in time all the same."""
    store = lasting(result_ttl_s=10)
    first = end(store)
    clock[0] -= 100 * SECOND_NS
    second = end(store)
    clock[0] += 11 * SECOND_NS
    assert (readable(store, first), readable(store, second)) == (True, False)
    store.close()
    assert not readable(store, first)
