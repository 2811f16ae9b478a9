"""What follows a task: found by the names in its policy, and checked, when the task is enqueued.

All tasks that may follow, and follow each other, go with the record of the first one as a plan: who
ends a task looks nothing up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from django.core.checks import Error
from django.tasks import Task, task_backends
from django.tasks.exceptions import InvalidTask
from django.utils.module_loading import import_string

from .exceptions import describe
from .naming import copy_task, encode_task, load_task
from .policies import Policy, functions, policy_of
from .schedules import Problem
from .ties import NOTHING, FollowUp, Ties

if TYPE_CHECKING:
    from .naming import AnyTask

_WORDS = ("then", "on_failure")


class Plan:
    """A plan that grows, in the form in which `Ties` has it.

    Args:
        first: The task that all others follow.
        alias: That of the backend of all of them.
        time_limit: Returns the `time_limit_word` of a task there.
    """

    def __init__(self, first: AnyTask, alias: str, time_limit: Callable[[AnyTask], int]) -> None:
        self._alias = alias
        # What was made for the backend of the first task goes along where that is enqueued on
        # another one, as with `using(backend=…)`.
        self._home = home_of(first)
        self._time_limit = time_limit
        self._places: dict[str, int] = {}
        self._found: dict[int, FollowUp] = {}

    @property
    def follow_ups(self) -> tuple[FollowUp, ...]:
        """All that may follow."""
        return tuple(self._found[place] for place in range(len(self._found)))

    def ties(self, policy: Policy, group: str, then: int = NOTHING) -> Ties:
        """Return the ties of a task with this policy.

        Args:
            policy: The policy.
            group: The task's group.
            then: As for `add_step`.

        Raises:
            InvalidTask: A task that may follow it cannot.
        """
        then, on_failure = self._places_behind(policy, then)
        return Ties(group, "", then, on_failure, self.follow_ups)

    def place(self, path: str | None) -> int:
        """Return the place in the plan of the task with this import path, with all that follows it.

        Raises:
            InvalidTask: It cannot follow, or one of these cannot.
        """
        if path is None:
            return NOTHING
        known = self._places.get(path)
        if known is None:
            task = find_follow_up(path, self._alias, self._home)
            known = self._places[path] = len(self._places)
            self._put(known, task, None, *self._places_behind(policy_of(task.func)))
        return known

    def add_step(self, task: AnyTask, arguments: Any, then: int) -> int:
        """Add a step of a chain, and return its place.

        Args:
            task: The step's.
            arguments: Its arguments, as the store has encoded them.
            then: The place of the next step; `NOTHING`: what its policy says.
        """
        then, on_failure = self._places_behind(policy_of(task.func), then)
        place = len(self._places)
        self._places[f"step {place}"] = place
        self._put(place, task, arguments, then, on_failure)
        return place

    def _places_behind(self, policy: Policy, then: int = NOTHING) -> tuple[int, int]:
        """Return the places of what follows a success, and each other end."""
        if then == NOTHING:
            then = self._place_of("then", policy)
        return then, self._place_of("on_failure", policy)

    def _place_of(self, word: str, policy: Policy) -> int:
        path = getattr(policy, word)
        try:
            return self.place(path)
        except InvalidTask as error:
            raise InvalidTask(f"{word}={path!r}: {error}") from error

    def _put(self, place: int, task: AnyTask, arguments: Any, then: int, on_failure: int) -> None:
        group = policy_of(task.func).group or ""
        self._found[place] = FollowUp(
            encode_task(task), arguments, int(task.priority), self._time_limit(task), then,
            on_failure, group,
        )  # fmt: skip


def find_follow_up(path: str, alias: str, home: str = "") -> AnyTask:
    """Return the task with this import path, which is to follow one of a backend.

    Args:
        path: The import path.
        alias: The backend's.
        home: Another alias that it may belong to; it is then moved to the backend.

    Raises:
        InvalidTask: The path leads to no task of this alias, or to one that cannot follow.
    """
    try:
        task: Any = import_string(path)
    except Exception as error:
        raise InvalidTask(f"{path} cannot be imported: {describe(error)}.") from error
    if not isinstance(task, Task):
        raise InvalidTask(f"{path} is not a task but of type {type(task).__name__}.")
    found: AnyTask = copy_task(task, backend=alias) if task.backend == home else task
    check_follow_up(found, alias)
    return found


def check_follow_up(task: AnyTask, alias: str) -> None:
    """Check that a task can follow one of a backend.

    Raises:
        InvalidTask: It cannot; the text says why.
    """
    path = task.module_path
    if task.backend != alias:
        raise InvalidTask(
            f"{path} belongs to backend {task.backend!r}, and cannot follow a task of {alias!r}: "
            "give it the same backend."
        )
    if task.run_after is not None:
        raise InvalidTask(
            f"{path} has run_after, and cannot follow another task: what follows is due at once."
        )
    if getattr(task, "metadata", None):
        raise InvalidTask(f"{path} has metadata of its own, and cannot follow another task.")
    if policy_of(task.func).unique not in (None, False):
        raise InvalidTask(
            f"{path} is unique, and cannot follow another task: where the same task waits or runs "
            "already, nothing would follow."
        )
    task_backends[alias].validate_task(task)


def home_of(task: AnyTask) -> str:
    """Return the alias for which a task was decorated."""
    try:
        return load_task(encode_task(task).partition(b"\0")[0]).backend
    except ImportError:  # the path names the plain function
        return task.backend


def problems(alias: str) -> Iterator[Error]:
    """Yield what is wrong with the follow-ups of an alias's tasks, as far as these are imported."""
    for function in sorted(functions, key=lambda each: (each.__module__, each.__qualname__)):
        path = f"{function.__module__}.{function.__qualname__}"
        try:
            task: Any = import_string(path)
        except Exception:
            continue  # not the function of a task, or one that cannot be enqueued either
        if isinstance(task, Task) and task.func is function and task.backend == alias:
            yield from _problems_of(path, policy_of(function), alias)


def _problems_of(path: str, policy: Policy, alias: str) -> Iterator[Error]:
    for word in _WORDS:
        follow_up = getattr(policy, word)
        if follow_up is None:
            continue
        try:
            find_follow_up(follow_up, alias)
        except Exception as error:
            yield Problem(
                17,
                f"Task {path}: {word}={follow_up!r}: {error}",
                f"Name a task with @task(backend={alias!r}), as in 'reports.tasks.send'.",
            ).error()
