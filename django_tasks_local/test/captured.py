"""What was enqueued while a block of a test ran, and assertions about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from django.tasks.signals import task_enqueued

from .backend import runs_at_once
from .store import drop_stores

if TYPE_CHECKING:
    from django.tasks import Task, TaskResult

    type AnyTask = Task[..., Any]
    type AnyResult = TaskResult[..., Any]


class CapturedTasks(Sequence["AnyResult"]):
    """The results of what was enqueued, in that order, whatever the backends.

    They are as ``enqueue`` returned them: on an `InlineBackend` finished, unless deferred.
    """

    def __init__(self) -> None:
        self._results: list[AnyResult] = []

    @overload
    def __getitem__(self, index: int) -> AnyResult: ...
    @overload
    def __getitem__(self, index: slice) -> list[AnyResult]: ...
    def __getitem__(self, index: int | slice) -> AnyResult | list[AnyResult]:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._listed()}>"

    def of(self, task: AnyTask) -> list[AnyResult]:
        """Return the results of one task, whatever its ``using()``."""
        return [result for result in self if result.task.func is task.func]

    def assert_enqueued(self, task: AnyTask) -> AnyResult:
        """Check that a task was enqueued, with whatever arguments, and return its latest result.

        Raises:
            AssertionError: It was not; the text says what was.
        """
        found = self.of(task)
        if not found:
            raise AssertionError(f"{task.module_path} was not enqueued. {self._summary()}")
        return found[-1]

    def assert_enqueued_once(self, task: AnyTask) -> AnyResult:
        """Check that a task was enqueued once, with whatever arguments, and return its result.

        Raises:
            AssertionError: It was enqueued more often, or never; the text says what was.
        """
        self.assert_enqueued(task)
        found = self.of(task)
        if len(found) > 1:
            raise AssertionError(
                f"{task.module_path} was enqueued {len(found)} times, not once. {self._summary()}"
            )
        return found[0]

    def assert_enqueued_with(self, task: AnyTask, *args: Any, **kwargs: Any) -> AnyResult:
        """Check that a task was enqueued with these arguments, and return its latest such result.

        Raises:
            AssertionError: It was not; the text says what was.
        """
        found = [
            result
            for result in self.of(task)
            if result.args == list(args) and result.kwargs == kwargs
        ]
        if not found:
            call = _call(task.module_path, args, kwargs)
            raise AssertionError(f"{call} was not enqueued. {self._summary()}")
        return found[-1]

    def assert_not_enqueued(self, task: AnyTask | None = None) -> None:
        """Check that a task was not enqueued; without one, that nothing was.

        Raises:
            AssertionError: It was; the text says what was.
        """
        if task is None and self:
            raise AssertionError(f"Tasks were enqueued. {self._summary()}")
        if task is not None and self.of(task):
            raise AssertionError(f"{task.module_path} was enqueued. {self._summary()}")

    def _summary(self) -> str:
        return f"Enqueued: {self._listed()}." if self else "Nothing was enqueued."

    def _listed(self) -> str:
        return ", ".join(
            _call(result.task.module_path, result.args, result.kwargs) for result in self
        )


@contextmanager
def captured_tasks(*, run: bool = True) -> Iterator[CapturedTasks]:
    """Note what is enqueued in a ``with`` block, on any backend and from any thread.

    Inline backends begin empty with the block, unless it lies inside another one. What they hold
    stays when it ends, and can be read and waited for, until the next one begins.

    Args:
        run: ``False``: inline backends run nothing in the block but what is waited for, or what
            `run_waiting` finds. All tasks stay READY.

    Yields:
        What was enqueued so far.
    """
    if len(runs_at_once) == 1:
        drop_stores()
    captured = CapturedTasks()

    def note(task_result: AnyResult, **_: Any) -> None:
        captured._results.append(task_result)

    task_enqueued.connect(note)
    runs_at_once.append(run)
    try:
        yield captured
    finally:
        runs_at_once.pop()
        task_enqueued.disconnect(note)


def _call(path: str, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    words = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"{path}({', '.join(words)})"
