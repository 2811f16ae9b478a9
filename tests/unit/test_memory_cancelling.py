"""Cancelled tasks in the store of one process."""

import pytest
from django.tasks import TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.memory import MemoryStore


def put(store: MemoryStore, *args: object) -> str:
    """Enqueues; the id."""
    return store.enqueue(b"m:f", (args, {}), priority=0, due_ns=0)[0]


def test_arguments_of_cancelled_tasks_count() -> None:
    """As those of other finished tasks do."""
    store = MemoryStore("memory", max_results=2, max_result_bytes=2**20, max_pending=100)
    small, large = put(store, 1), put(store, bytes(2**21))
    assert store.cancel(small, running=True)[0]
    assert store.cancel(large, running=True)[0]
    with pytest.raises(TaskResultDoesNotExist):
        store.get(small)
    assert store.get(large).status is TaskResultStatus.FAILED  # the latest one stays
