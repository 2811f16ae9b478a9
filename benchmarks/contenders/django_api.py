"""Every backend of Django's task framework, as the project's default backend."""

from __future__ import annotations

from typing import Any

from django.tasks import Task, TaskResult, task_backends

import bench_tasks
from workloads import wait

TASKS: dict[str, Task[..., Any]] = {"noop": bench_tasks.noop, "produce": bench_tasks.produce}


def enqueue(task: str, *args: object) -> TaskResult[..., Any]:
    """Enqueue."""
    return TASKS[task].enqueue(*args)


def value(handle: TaskResult[..., Any]) -> object:
    """Poll, then return the return value."""
    return wait(handle).return_value


def key(handle: TaskResult[..., Any]) -> str:
    """Return the result id."""
    return handle.id


def read(key: str) -> TaskResult[..., Any]:
    """Read the result again."""
    return task_backends["default"].get_result(key)
