"""Metadata in the store of one process."""

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.memory import MemoryStore
from tests.unit.test_memory import put, run_all


@pytest.fixture
def store() -> MemoryStore:
    """An empty store that keeps two results."""
    return MemoryStore("memory", max_results=2, max_result_bytes=2**20, max_pending=100)


def test_metadata_is_replaced_in_any_state(store: MemoryStore) -> None:
    """Saving makes a finished result the most recent one, and does not bring back one that went."""
    first = put(store)
    store.save_metadata(first, b"1")
    claim = store.claim()
    assert claim is not None
    assert claim.metadata == b"1"
    store.save_metadata(first, b"2", claim)
    store.finish(claim, successful=True, outcome=None)
    second, _ = put(store), run_all(store)
    store.save_metadata(first, b"3")
    third, _ = put(store), run_all(store)
    assert store.get(first).metadata == b"3"
    assert store.get(third).metadata == b""
    for result_id in (second, "no id"):
        with pytest.raises(TaskResultDoesNotExist):
            store.save_metadata(result_id, b"4")


def test_metadata_counts_in_bytes() -> None:
    """What finished results hold is bounded with it; a closed store takes what a task saves."""
    store = MemoryStore("memory", max_results=100, max_result_bytes=2**20, max_pending=100)
    ids = [put(store), put(store)]
    run_all(store)
    store.save_metadata(ids[1], b"x" * 2**20)
    with pytest.raises(TaskResultDoesNotExist):
        store.get(ids[0])
    put(store)
    claim = store.claim()
    assert claim is not None
    store.close()
    store.save_metadata(claim.result_id, b"late", claim)
    assert claim.metadata == b"late"
