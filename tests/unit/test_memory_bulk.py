"""Many tasks at once in a store in memory: all of them or none."""

import threading
from typing import Any

import pytest

from django_tasks_local.exceptions import QueueFull
from django_tasks_local.memory import MemoryStore
from django_tasks_local.memory_bulk import PUT_AT_ONCE

META = b"tests.tasks:noop"
MANY = 3 * PUT_AT_ONCE + 1


def store_of(max_pending: int = 10_000) -> MemoryStore:
    """A store."""
    return MemoryStore(
        "unit", max_results=10, max_result_bytes=10**6, max_pending=max_pending, max_workers=2
    )


def put(store: MemoryStore, count: int, keys: Any = ()) -> list[str]:
    """Enqueues so many; their ids."""
    arguments: list[Any] = [((number,), {}) for number in range(count)]
    ids, held, _ = store.enqueue_many(META, arguments, priority=0, due_ns=0, keys=keys)
    assert not held
    return ids


def claimed(store: MemoryStore) -> list[int]:
    """The arguments of all that waits, in the order in which it is claimed."""
    found = []
    while (claim := store.claim("w")) is not None:
        found.append(claim.arguments()[0][0])
        store.finish(claim, successful=True, outcome=None)
    return found


def test_all_in_their_order() -> None:
    """However many holds of the lock that takes."""
    store = store_of()
    assert len(set(put(store, MANY))) == store.waiting == MANY
    assert claimed(store) == list(range(MANY))
    store.close()


def test_no_more_than_may_wait() -> None:
    """Those that are on their way count as well."""
    store = store_of(MANY)
    with pytest.raises(QueueFull, match=f"and {MANY + 1} more to come"):
        put(store, MANY + 1)
    assert store.waiting == 0
    put(store, MANY)
    with pytest.raises(QueueFull):
        put(store, 1)
    store.close()


@pytest.mark.parametrize("after", range(1, 6))
def test_interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A signal's handler may raise in the middle: what was accepted is there all the same."""
    store = store_of()
    original, calls = store._put, []

    def put_or_raise(*args: Any) -> None:
        calls.append(args)
        original(*args)
        if len(calls) == after * PUT_AT_ONCE // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(store, "_put", put_or_raise)
    with pytest.raises(KeyboardInterrupt):
        put(store, MANY)
    assert store.waiting == MANY
    assert claimed(store) == list(range(MANY))
    store.close()


def test_keys() -> None:
    """One that another task gets meanwhile stands for ours; the end frees it."""
    store = store_of()
    keys = [b"a" * 16, b"", b"b" * 16]
    there, _ = store.enqueue(META, ((9,), {}), priority=0, due_ns=0, key=keys[2])
    arguments: list[Any] = [((number,), {}) for number in range(3)]
    ids, held, _ = store.enqueue_many(META, arguments, priority=0, due_ns=0, keys=keys)
    assert held == {2: there}
    assert store.held(keys) == {0: ids[0], 2: there}
    assert store.waiting == 3
    assert claimed(store) == [9, 0, 1]
    assert store.held(keys) == {}
    store.close()


def test_threads_do_not_mix() -> None:
    """Those of each keep their order, and none gets lost."""
    store = store_of(MANY * 4)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(put(store, MANY))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = []
    while (claim := store.claim("w")) is not None:
        order.append(claim.result_id)
    assert len(order) == 4 * MANY
    for ids in found:
        mine = set(ids)
        assert [each for each in order if each in mine] == ids
    store.close()
