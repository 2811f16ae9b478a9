"""Tasks in the store of one process that are tried again."""

from django.tasks import TaskResultStatus

from django_tasks_local.memory import MemoryStore


def test_a_list_of_what_is_retried_meanwhile() -> None:
    """It is in the list, in the state that it has then."""
    store = MemoryStore("memory", max_results=2, max_result_bytes=2**20, max_pending=100)
    ids = {store.enqueue(b"m:f", ((), {}), priority=0, due_ns=0)[0] for _ in range(2)}
    claims = [store.claim("w1"), store.claim("w2")]
    listed = store.listed(frozenset(TaskResultStatus), None)
    first = next(listed)
    for claim in claims:
        assert claim is not None
        store.retry(claim, error=("builtins.ValueError", "Traceback…"), due_ns=0)
    (second,) = listed
    assert {first.result_id, second.result_id} == ids
    assert (second.status, second.worker_id) == (TaskResultStatus.READY, "")
