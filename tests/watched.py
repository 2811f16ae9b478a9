"""A claimed task without a ring, and a store that notes what it is told."""

import pickle
from typing import Any

from django.tasks import TaskResultStatus

from django_tasks_local.execution import run
from django_tasks_local.naming import encode_task


class Claim:
    """A claimed task."""

    result_id = "an id"
    status = TaskResultStatus.RUNNING
    enqueued_at_ns = 1
    started_at_ns = 2
    finished_at_ns = 0
    worker_id = "w"
    progress = None
    metadata = b""
    cancelled = False
    time_limit = 0
    stop_asked = False

    def __init__(self, task: Any, *args: Any, meta: bytes | None = None) -> None:
        self.meta = meta or encode_task(task)
        self.args = args
        self.unpickled = 0

    def arguments(self) -> Any:
        self.unpickled += 1
        return self.args, {}

    def report(self, done: float, total: float | None, message: str) -> None:
        pass


class WatchedStore:
    """Pickles like the ring, and notes what it is told in the list of all events."""

    def __init__(self, events: list[Any], refusal: BaseException | None = None) -> None:
        self.events = events
        self.refusal = refusal

    def encode(self, value: object) -> bytes:
        return pickle.dumps(value)

    def finish(
        self, claim: Claim, *, successful: bool, outcome: bytes, cancelled: bool = False,
        timed_out: bool = False,
    ) -> int:  # fmt: skip
        if successful and self.refusal is not None:
            raise self.refusal
        self.events.append(("finish", successful, pickle.loads(outcome)))
        return 3


def go(store: Any, claim: Any) -> None:
    """Run it."""
    run(store, claim, alias="thread", backend_class=WatchedStore)
