"""Chains: steps of which each is enqueued when the one before it has succeeded."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asgiref.sync import sync_to_async
from django.tasks import Task, TaskResultStatus, task_backends
from django.tasks.backends.dummy import DummyBackend
from django.tasks.backends.immediate import ImmediateBackend
from django.tasks.exceptions import InvalidTask

from .own_backend import OwnBackend

if TYPE_CHECKING:
    from django.tasks import TaskResult

    from .naming import AnyTask
    from .result import LocalTaskResult

# The result of the task that runs here; unset outside the tasks of our backends.
running_result: Final[ContextVar[LocalTaskResult]] = ContextVar("django_tasks_local_running_result")


class Step(NamedTuple):
    """A step of a chain, as `step` makes it."""

    task: AnyTask
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def step(task: AnyTask, /, *args: Any, **kwargs: Any) -> Step:
    """Return a step of a `chain`: the task, and the arguments that it will be called with."""
    if not isinstance(task, Task):
        raise TypeError(
            f"{task!r} is not a task but of type {type(task).__name__}. "
            "Decorate the function with @task of django.tasks."
        )
    return Step(task, args, kwargs)


def chain(*steps: Step | AnyTask) -> TaskResult[..., Any]:
    """Enqueue the first step; each further one is enqueued when the one before it has succeeded.

    That is done in the very moment in which the one before ends, whatever is killed then: no step
    is lost, and none runs twice. After one that has not succeeded the rest is dropped, and what its
    policy names as ``on_failure`` follows. The next step takes the place of ``then`` in a policy,
    but for the last one.

    All steps are in one group: that of `in_group` or of the first one's policy, or one of their
    own. `wait_group` with ``result.group`` thus waits for the chain. Inside a step
    `previous_result` returns the result of the one before.

    On Django's own backends the steps are enqueued one after the other as long as each has
    succeeded when ``enqueue`` returns.

    Args:
        steps: Each as `step` makes it, or a task without arguments; all of one backend, none of
            them unique, and from the second one on without ``run_after`` and metadata. Arguments
            from the second one on go with the first: all of them must fit in 64 slots
            (ProcessPoolBackend).

    Returns:
        The result of the first step.

    Raises:
        TypeError: There is no step, or one is not a task.
        InvalidTask: The backend cannot run a step, or it cannot follow another.
        ValueError: Some arguments cannot be pickled (ProcessPoolBackend).
        QueueFull, PayloadTooLarge, StoreUnavailable: As ``enqueue``.
    """
    if not steps:
        raise TypeError("chain() needs at least one step.")
    made = [each if isinstance(each, Step) else step(each) for each in steps]
    first = made[0].task
    backend: Any = first.get_backend()
    if isinstance(backend, OwnBackend):
        result: TaskResult[..., Any] = backend.enqueue_chain(made)
        return result
    for each in made:
        if not isinstance(each.task.get_backend(), ImmediateBackend | DummyBackend):
            raise InvalidTask(
                f"{each.task.module_path} belongs to backend {each.task.backend!r}, which cannot "
                "run chains: ThreadPoolBackend and ProcessPoolBackend of django_tasks_local can."
            )
    return _one_after_the_other(made)


async def achain(*steps: Step | AnyTask) -> TaskResult[..., Any]:
    """Do what `chain` does, in a thread."""
    return await sync_to_async(chain, thread_sensitive=True)(*steps)


def previous_result() -> LocalTaskResult | None:
    """Return the result of the task that the one that runs here follows, as it is now.

    Returns:
        ``None`` where it follows none, and outside the tasks of this package's backends.

    Raises:
        TaskResultDoesNotExist: It was evicted, or has expired.
    """
    result = running_result.get(None)
    if result is None or not result.after:
        return None
    backend: Any = task_backends[result.backend]
    previous: LocalTaskResult = backend.get_result(result.after)
    return previous


def _one_after_the_other(steps: list[Step]) -> TaskResult[..., Any]:
    results = []
    for each in steps:
        results.append(each.task.enqueue(*each.args, **each.kwargs))
        if results[-1].status != TaskResultStatus.SUCCESSFUL:
            break
    return results[0]
