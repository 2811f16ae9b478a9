"""Every backend of Django's task framework, as the project's default backend."""

from django.tasks import TaskResult, task_backends

import bench_tasks
from workloads import wait

TASKS = {"noop": bench_tasks.noop, "produce": bench_tasks.produce}


def enqueue(task: str, *args: object) -> TaskResult:
    """Enqueue."""
    return TASKS[task].enqueue(*args)


def value(handle: TaskResult) -> object:
    """Poll, then the return value."""
    return wait(handle).return_value


def key(handle: TaskResult) -> str:
    """The result id."""
    return handle.id


def read(key: str) -> TaskResult:
    """The result again."""
    return task_backends["default"].get_result(key)
