"""How to tell this package's backends from others, and what is asked of them below their floor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from django.tasks import Task, TaskResult, TaskResultStatus

    from django_tasks_local.option_table import Kind
    from django_tasks_local.store import Snapshot


class OwnBackend(ABC):
    """A task backend of this package; ``backends.base.LocalBackend`` says what its methods do.

    By their names alone they could be a foreign backend's, too.

    Attributes:
        kind: Where its tasks run.
        result_class: That of the results that it returns.
    """

    kind: ClassVar[Kind]
    result_class: ClassVar[type[TaskResult[..., Any]]]

    @abstractmethod
    def prepare(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> object:
        """Do what in ``enqueue`` can fail because of the task or its arguments."""

    @abstractmethod
    def enqueue_prepared(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], prepared: Any
    ) -> Any:
        """Do what ``enqueue`` does, with what `prepare` has returned."""

    @abstractmethod
    def cancel(self, result_id: object, *, running: bool = True) -> bool:
        """Take a task out that waits, or ask it to stop if it runs."""

    @abstractmethod
    async def acancel(self, result_id: object, *, running: bool = True) -> bool:
        """Do what `cancel` does, in a thread."""

    @abstractmethod
    def listed(
        self, statuses: Collection[TaskResultStatus], accepts: Callable[[bytes], bool] | None,
        group: str = "",
    ) -> Iterator[Snapshot]:  # fmt: skip
        """Yield records."""

    @abstractmethod
    def unfinished_in(self, group: str) -> list[str]:
        """Return the ids of a group's tasks that wait or run."""

    @abstractmethod
    def get_result(self, result_id: object) -> Any:
        """Return the result as it is now."""

    @abstractmethod
    def enqueue_chain(self, steps: Sequence[Any]) -> Any:
        """Enqueue the first step of a chain, with all others behind it."""

    @abstractmethod
    def begin_waiting(self, result: Any) -> str:
        """Note that the task that runs here waits for that of ``result``."""

    @abstractmethod
    def end_waiting(self, task_id: str) -> None:
        """Note that a task waits no longer."""

    @abstractmethod
    def wait_for_change(self, result: Any, timeout_s: float) -> None:
        """Block until the task of ``result`` has ended, or for ``timeout_s``."""

    @abstractmethod
    async def await_change(self, result: Any, timeout_s: float) -> None:
        """Do what `wait_for_change` does, for an event loop."""
