"""Django's ``task``, ``Task`` and ``TaskResult``, for type checkers with what the backends add.

At run time they are Django's own. Their types are in ``typing.pyi``: ``run_after`` may be a
``timedelta``, a result has ``progress``, and tasks, contexts and results have metadata.
"""

from django.tasks import Task, TaskContext, TaskResult, task

__all__ = ["Task", "TaskContext", "TaskResult", "task"]
