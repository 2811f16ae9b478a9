"""What the result of ``enqueue`` shows: the record that was stored, as it was at that moment."""

from django.tasks import TaskResultStatus

from django_tasks_local.store import Arguments
from django_tasks_local.ties import Ties


class Enqueued:
    """The `Snapshot` of a task that was enqueued just now.

    One is made for each task, and mostly nobody reads it: what all have in common stands here.
    """

    __slots__ = ("_arguments", "enqueued_at_ns", "meta", "metadata", "result_id", "ties")

    status = TaskResultStatus.READY
    started_at_ns = finished_at_ns = 0
    worker_id = ""
    progress = past = loss = None
    cancelled = False

    def __init__(
        self, result_id: str, meta: bytes, enqueued_at_ns: int, arguments: Arguments,
        metadata: bytes, ties: Ties,
    ) -> None:  # fmt: skip
        self.result_id = result_id
        self.meta = meta
        self.enqueued_at_ns = enqueued_at_ns
        self._arguments = arguments
        self.metadata = metadata
        self.ties = ties

    def arguments(self) -> Arguments:
        """Return the arguments that were passed."""
        return self._arguments

    def outcome(self) -> None:
        """Return None: it has not ended."""
