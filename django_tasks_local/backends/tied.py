"""Groups, follow-ups and chains of our backends: what they enqueue with a task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.tasks.exceptions import InvalidTask

from django_tasks_local.chains import Step
from django_tasks_local.following import Plan, check_follow_up
from django_tasks_local.groups import current_group
from django_tasks_local.own_backend import OwnBackend
from django_tasks_local.policies import Policy, policy_of
from django_tasks_local.store import BulkStore
from django_tasks_local.ties import NOTHING, Ties

from .preparing import encode_arguments

if TYPE_CHECKING:
    from django_tasks_local.naming import AnyTask


class TiedTasks(OwnBackend):
    """A part of `LocalBackend`."""

    alias: str
    _time_limit: Callable[[AnyTask], int]
    validate_task: Callable[[AnyTask], None]
    enqueue: Callable[..., Any]

    @abstractmethod
    def _store(self) -> BulkStore:
        """Return the store of this process and alias."""

    def unfinished_in(self, group: str) -> list[str]:
        """Return the ids of a group's tasks that wait or run; see ``store.StoreClient``."""
        return self._store().unfinished_in(group)

    def enqueue_chain(self, steps: Sequence[Step]) -> Any:
        """Store the first step of a chain, with all others behind it; see `chains.chain`."""
        store, first = self._store(), steps[0]
        for each in steps:
            self.validate_task(each.task)
            if policy_of(each.task.func).unique not in (None, False):
                raise InvalidTask(
                    f"{each.task.module_path} is unique, and cannot be a step of a chain: the rest "
                    "would be lost where the same task waits or runs."
                )
        plan, then = Plan(first.task, self.alias, self._time_limit), NOTHING
        for each in reversed(steps[1:]):
            check_follow_up(each.task, self.alias)
            arguments = encode_arguments(store, each.task, (each.args, each.kwargs))
            then = plan.add_step(each.task, arguments, then)
        groups = (policy_of(each.task.func).group for each in steps)
        group = current_group.get() or next(filter(None, groups), "") or f"chain-{uuid4()}"
        ties = plan.ties(policy_of(first.task.func), group, then)
        return self.enqueue(first.task, first.args, first.kwargs, ties=ties)

    def _ties(self, task: AnyTask, own: Policy) -> Ties | None:
        """Return the ties of a task with this policy; ``None``, as for most: it has none."""
        group = current_group.get() or own.group
        if not (group or own.then or own.on_failure):
            return None
        ties = self._known_ties.get(task.func)
        if ties is None:
            plan = Plan(task, self.alias, self._time_limit)
            ties = self._known_ties[task.func] = plan.ties(own, "")
        return ties._replace(group=group) if group else ties

    @cached_property
    def _known_ties(self) -> dict[Callable[..., Any], Ties]:
        return {}
