"""What a site does for its process's tasks and results just as its ring does."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django_tasks_local.ring import Ring
from django_tasks_local.store import Snapshot

if TYPE_CHECKING:
    from django.tasks import TaskResultStatus


class PassedOn:
    """A part of `Site`."""

    ring: Ring
    _tick_if_late: Callable[[], None]

    def get(self, result_id: str) -> Snapshot:
        """Do what `Ring.get` does."""
        self._tick_if_late()
        return self.ring.get(result_id)

    def save_metadata(self, result_id: str, metadata: bytes, claim: Any = None) -> None:
        """Do what `Ring.save_metadata` does."""
        self._tick_if_late()
        self.ring.save_metadata(result_id, metadata, claim)

    def listed(
        self, statuses: "Collection[TaskResultStatus]", accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Do what `Ring.listed` does; what the dead have left is settled first, as `get` does."""
        self._tick_if_late()
        self.ring.upkeep.settle_runners()
        return self.ring.listed(statuses, accepts, group)

    def unfinished_in(self, group: str) -> list[str]:
        """Do what `Ring.unfinished_in` does, likewise."""
        self._tick_if_late()
        self.ring.upkeep.settle_runners()
        return self.ring.unfinished_in(group)

    def wait_for_change(self, snapshot: Any, timeout_s: float) -> None:
        """Do what `Ring.wait_for_change` does."""
        self.ring.wait_for_change(snapshot, timeout_s)

    def held(self, keys: Sequence[bytes]) -> dict[int, str]:
        """Do what `Bulk.held` does."""
        return self.ring.bulk.held(keys)

    def begin_waiting(self, task_id: str) -> bool:
        """Do what `Ring.begin_waiting` does."""
        return self.ring.begin_waiting(task_id)

    def end_waiting(self, task_id: str) -> None:
        """Do what `Ring.end_waiting` does."""
        self.ring.end_waiting(task_id)

    def cancel(self, result_id: str, *, running: bool) -> tuple[bool, Snapshot | None]:
        """Do what `Ring.cancel` does."""
        self._tick_if_late()
        return self.ring.cancel(result_id, running=running)
